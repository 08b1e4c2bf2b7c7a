//! A profile of a small service: two sites, of which one has two tasks, and a worker outside of tasks.

use std::time::{Duration, UNIX_EPOCH};

use pertask_profile::{
    Function, Line, Location, LocationId, Mapping, Profile, ProfileBuilder, Sample, Site, TaskRef,
    ThreadRef,
};

/// 2 samples of 20 ms in `render` for task 1, 3 of 30 ms for task 2, 4 of 40 ms in `hash` for task 3, which is incomplete
/// and labelled, and 1 of 10 ms outside.
pub fn profile() -> Profile {
    let mut builder = builder();
    let frames = frames(&mut builder);
    let [main, handle, render, hash, park] = frames;
    for (id, count) in [(1, 2), (2, 3)] {
        let sample = Sample { stack: vec![render, handle, main], ..amount(count) };
        let task = Some(task(&mut builder, id, "GET /render", 80));
        let thread = Some(worker(&mut builder));
        builder.add(Sample { task, thread, ..sample });
    }
    let labelled = Sample {
        stack: vec![hash, handle],
        task: Some(TaskRef { parent: Some(1), ..task(&mut builder, 3, "GET /hash", 81) }),
        thread: Some(worker(&mut builder)),
        scopes: vec![builder.text("parse"), builder.text("digest")],
        labels: vec![(builder.text("tenant"), builder.text("acme"))],
        complete: false,
        ..amount(4)
    };
    builder.add(labelled);
    let outside =
        Sample { stack: vec![park, main], thread: Some(worker(&mut builder)), ..amount(1) };
    builder.add(outside);
    builder.dropped(7);
    builder.finish(Duration::from_millis(2_500))
}

pub fn builder() -> ProfileBuilder {
    let mut builder = ProfileBuilder::new("by hand", 10_000_000);
    builder.start(UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789));
    builder
}

/// That many samples of 10 ms.
pub fn amount(count: u64) -> Sample {
    Sample { count, time_ns: count * 10_000_000, ..Sample::default() }
}

/// `main`, `handle` with `inlined` in it, `render`, `hash`, and one without a symbol in libc.
pub fn frames(builder: &mut ProfileBuilder) -> [LocationId; 5] {
    let service = mapping(builder, 0x1000, "/srv/service", "c0ffee");
    let libc = mapping(builder, 0x9000, "/lib/libc.so.6", "beef");
    let inlined = function(builder, "service::inlined");
    let named = ["service::main", "service::handle", "service::render", "service::hash"];
    let mut address = 0x1000;
    let [main, handle, render, hash] = named.map(|name| {
        address += 0x10;
        let mut lines = vec![Line { function: function(builder, name), line: 12 }];
        if name == "service::handle" {
            lines.insert(0, Line { function: inlined, line: 99 });
        }
        builder.location(Location { address, mapping: service, lines })
    });
    let park = builder.location(Location { address: 0x9044, mapping: libc, lines: Vec::new() });
    [main, handle, render, hash, park]
}

fn mapping(
    builder: &mut ProfileBuilder,
    start: u64,
    file: &str,
    build_id: &str,
) -> Option<pertask_profile::MappingId> {
    let (file, build_id) = (builder.text(file), builder.text(build_id));
    builder.mapping(Mapping { start, end: start + 0x1000, offset: 0x200, file, build_id })
}

fn function(builder: &mut ProfileBuilder, name: &str) -> pertask_profile::FunctionId {
    let (name, file) = (builder.text(name), builder.text("src/service.rs"));
    builder.function(Function { system_name: name.clone(), name, file, start_line: 3 })
}

pub fn task(builder: &mut ProfileBuilder, id: u64, name: &str, line: u32) -> TaskRef {
    let site = Site { file: builder.text("src/service.rs"), line };
    TaskRef { id: Some(id), name: Some(builder.text(name)), site: Some(site), ..TaskRef::default() }
}

pub fn worker(builder: &mut ProfileBuilder) -> ThreadRef {
    ThreadRef { tid: 4_711, name: builder.text("worker") }
}

pub fn pprof(profile: &Profile) -> Vec<u8> {
    let mut bytes = Vec::new();
    profile.write_pprof(&mut bytes).expect("memory");
    bytes
}
