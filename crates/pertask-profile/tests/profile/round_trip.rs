//! A profile that is written and read comes back, and profiles of other programs are read.

use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pertask_profile::{
    Allocation, Function, FunctionId, Line, Location, LocationId, Lost, Mapping, MappingId,
    Profile, RootBy, Sample, Site, State, TaskRef, TaskRoot, ThreadRef, Weight,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::example::{self, pprof};
use crate::protobuf::{bytes, number, packed};

#[test]
fn the_example_comes_back() {
    let profile = example::profile();
    assert_eq!(Profile::from_pprof(&pprof(&profile)[..]).expect("it is good"), profile);
}

#[test]
fn users_labels_never_pass_for_ours() {
    let mut profile = example::profile();
    let keys = [
        "task",
        "task_type",
        "runtime",
        "user.task",
        "user.user.site",
        "stack",
        "user",
        "user.name",
        "scope",
    ];
    profile.samples[0].labels = keys.map(|key| (key.into(), "incomplete".into())).to_vec();
    assert_eq!(Profile::from_pprof(&pprof(&profile)[..]).expect("it is good"), profile);
}

#[test]
fn ids_that_lead_nowhere_do_not_spoil_the_file() {
    let mut profile = example::profile();
    profile.samples[0].stack.push(LocationId(99));
    profile.locations[0].mapping = Some(MappingId(99));
    profile.locations[0].lines[0].function = FunctionId(99);
    let read = Profile::from_pprof(&pprof(&profile)[..]).expect("it is good");
    assert_eq!(read.samples[0].stack.len(), 3);
    assert_eq!(read.locations[0].lines, []);
}

#[test]
fn a_file_need_not_be_packed() {
    let mut unpacked = Vec::new();
    let packed = pprof(&example::profile());
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).expect("gzip");
    assert_eq!(Profile::from_pprof(&unpacked[..]).expect("it is good"), example::profile());
}

/// `go.pb.gz` is what Go's `runtime/pprof` wrote of a program that was busy for 300 ms under two labels, and for 150 ms
/// without.
#[test]
fn what_go_writes_is_read() {
    let profile = Profile::from_pprof(&include_bytes!("go.pb.gz")[..]).expect("Go wrote it");
    assert_eq!(profile.period_ns, 10_000_000);
    let mut folded = Vec::new();
    profile.write_folded(RootBy::TaskName, Weight::Samples, &mut folded).expect("memory");
    let folded = String::from_utf8(folded).expect("UTF-8");
    assert!(folded.contains("(outside tasks);runtime.main;main.main;main.spin"), "{folded}");
    let labelled = profile.samples.iter().find(|sample| !sample.labels.is_empty());
    let mut labels = labelled.expect("it has labels").labels.clone();
    labels.sort();
    // Go's users may well have a label of the name of ours; it is theirs.
    assert_eq!(labels, [("task".into(), "mine".into()), ("tenant".into(), "acme".into())]);
}

/// Older writers put samples before everything else, use ids that are not indices, do not pack numbers, and count milliseconds.
#[test]
fn files_of_other_shapes_are_read() {
    let strings = ["", "cpu", "milliseconds", "f", "bytes", "size", "thread", "main"];
    let label = [number(1, 5), number(3, 4_096), number(4, 4)].concat();
    let thread = [number(1, 6), number(2, 7)].concat();
    let sample = [number(1, 70), number(2, 30), bytes(3, label), bytes(3, thread)].concat();
    let cpu = [number(1, 1), number(2, 2)].concat();
    let line = [number(1, 900), number(2, 5)].concat();
    let file = [
        bytes(2, sample),
        bytes(4, [number(1, 70), number(3, 0x40), bytes(4, line)].concat()),
        bytes(5, [number(1, 900), number(2, 3)].concat()),
        bytes(1, &cpu),
        bytes(11, &cpu),
        number(12, 10),
        strings.map(|string| bytes(6, string)).concat(),
    ];
    let profile = Profile::from_pprof(&file.concat()[..]).expect("it is good");
    let sample = &profile.samples[0];
    assert_eq!((sample.time_ns, profile.period_ns), (30_000_000, 10_000_000));
    assert!(!profile.has_counts);
    assert_eq!(sample.labels, [("size".into(), "4096 bytes".into())]);
    assert_eq!(sample.thread, Some(ThreadRef { tid: 0, name: "main".into() }));
    let line = profile.location(sample.stack[0]).expect("a location").lines[0];
    assert_eq!((&*profile.functions[line.function.0 as usize].name, line.line), ("f", 5));
}

/// If a file only counts samples, the period says what they stand for.
#[test]
fn samples_without_cpu_time_stand_for_the_period() {
    let strings = ["", "samples", "count", "cpu", "nanoseconds"];
    let file = [
        strings.map(|string| bytes(6, string)).concat(),
        bytes(1, [number(1, 1), number(2, 2)].concat()),
        bytes(11, [number(1, 3), number(2, 4)].concat()),
        number(12, 500),
        bytes(2, packed(2, &[3])),
    ];
    let profile = Profile::from_pprof(&file.concat()[..]).expect("it is good");
    assert_eq!((profile.samples[0].count, profile.samples[0].time_ns), (3, 1_500));
}

proptest! {
    #[test]
    fn every_profile_comes_back(profile in profiles()) {
        let read = Profile::from_pprof(&pprof(&profile)[..]);
        prop_assert_eq!(read.expect("it is good"), profile);
    }
}

fn profiles() -> impl Strategy<Value = Profile> {
    let tables = (
        vec(samples(), 0..8),
        vec(locations(), 4..5),
        vec((text(), text(), text(), any::<u32>()), 3..4),
        vec((any::<[u64; 3]>(), text(), text()), 2..3),
    );
    (
        any::<i64>(),
        any::<[u32; 2]>(),
        "[^\u{0}]{0,8}",
        tables,
        (any::<[u64; 9]>(), any::<bool>()),
        (vec("[^\u{0}]{0,8}", 0..3), proptest::option::of(("[^\u{0} ]{1,8}", "[^\u{0}]{1,8}"))),
    )
        .prop_map(
            |(
                start,
                [duration, period],
                mechanism,
                tables,
                (lost, has_counts),
                (remarks, root),
            )| Profile {
                start: time(start),
                duration_ns: duration.into(),
                mechanism,
                period_ns: period.into(),
                samples: tables.0.iter().cloned().map(|it| counted(it, has_counts)).collect(),
                state: State::OnCpu,
                has_allocations: has_counts || tables.0.iter().any(|it| allocation(it).is_some()),
                allocations: tables.0.iter().filter_map(allocation).collect(),
                off_cpu: tables.0.into_iter().filter_map(off_cpu).collect(),
                has_counts,
                locations: tables.1,
                functions: tables.2.into_iter().map(function).collect(),
                mappings: tables.3.into_iter().map(mapping).collect(),
                lost: losses(lost),
                remarks,
                task_root: root.map(|(functions, file)| TaskRoot { functions, file }),
            },
        )
}

/// Allocations. None are of nothing.
fn allocation(sample: &Sample) -> Option<Allocation> {
    let (bytes, sample) = (sample.time_ns, Sample { time_ns: 0, ..sample.clone() });
    (bytes > 0 && sample.count > 0).then_some(Allocation { bytes, sample })
}

/// A sample of waiting, being ready or being blocked. Only waits have numbers, and no sample is of no time.
fn off_cpu(sample: Sample) -> Option<Sample> {
    let state = State::OFF_CPU[sample.time_ns as usize % 3];
    let count = if state == State::Waiting { sample.count } else { 0 };
    // A waker or a holder without a name and a site is none.
    let woken_by = sample.task.clone().filter(|task| task.name.is_some() || task.site.is_some());
    let other =
        woken_by.map(|task| TaskRef { name: task.name, site: task.site, ..TaskRef::default() });
    let (woken_by, held_by) = if sample.complete { (other, None) } else { (None, other) };
    (sample.time_ns > 0).then_some(Sample { state, count, woken_by, held_by, ..sample })
}

fn counted(sample: Sample, has_counts: bool) -> Sample {
    Sample { count: if has_counts { sample.count } else { 0 }, ..sample }
}

fn samples() -> impl Strategy<Value = Sample> {
    let amounts = (any::<u32>(), any::<u32>(), any::<bool>());
    let whose = (proptest::option::of(tasks()), proptest::option::of(text()));
    let stack = vec((0..4_u32).prop_map(LocationId), 0..6);
    let thread = proptest::option::of((any::<u32>(), text()));
    let scopes = vec(text().prop_map(Into::into), 0..3);
    let key = "[a-z.]{1,3}|user\\.task|task|task_type|runtime|site|stack|scope|thread|tid";
    let labels = vec((key, text()), 0..3);
    (amounts, stack, whose, thread, scopes, labels).prop_map(
        |((count, time_ns, complete), stack, (task, runtime), thread, scopes, labels)| Sample {
            count: count.into(),
            time_ns: time_ns.into(),
            state: State::OnCpu,
            stack,
            task,
            woken_by: None,
            held_by: None,
            runtime: runtime.map(Into::into),
            thread: thread.map(|(tid, name)| ThreadRef { tid, name: name.into() }),
            scopes,
            labels: labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
            complete,
        },
    )
}

fn tasks() -> impl Strategy<Value = TaskRef> {
    let site = proptest::option::of((text(), any::<u32>()));
    let ids = any::<(Option<u64>, Option<u64>)>();
    let names = (proptest::option::of(text()), proptest::option::of(text()));
    (ids, names, site).prop_map(|((id, parent), (name, future), site)| TaskRef {
        id,
        name: name.map(Into::into),
        site: site.map(|(file, line)| Site { file: file.into(), line }),
        parent,
        future: future.map(Into::into),
    })
}

fn locations() -> impl Strategy<Value = Location> {
    let lines = vec((0..3_u32, any::<u32>()), 0..3);
    (any::<u64>(), proptest::option::of(0..2_u32), lines).prop_map(|(address, mapping, lines)| {
        let line = |(function, line)| Line { function: FunctionId(function), line };
        let lines = lines.into_iter().map(line).collect();
        Location { address, mapping: mapping.map(MappingId), lines }
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), any::<String>(), "[a-z:;\n]{1,4}"]
}

fn time(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    if ns < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

fn function((name, system_name, file, start_line): (String, String, String, u32)) -> Function {
    Function { name: name.into(), system_name: system_name.into(), file: file.into(), start_line }
}

fn mapping(([start, end, offset], file, build_id): ([u64; 3], String, String)) -> Mapping {
    Mapping { start, end, offset, file: file.into(), build_id: build_id.into() }
}

fn losses(counts: [u64; 9]) -> Lost {
    Lost {
        samples_dropped: counts[0],
        stacks_incomplete: counts[1],
        samples_folded: counts[2],
        locations_folded: counts[3],
        texts_folded: counts[4],
        texts_cut: counts[5],
        stacks_cut: counts[6],
        threads_not_sampled: counts[7],
        unsampled_cpu_ns: counts[8],
    }
}
