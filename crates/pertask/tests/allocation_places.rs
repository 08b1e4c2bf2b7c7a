//! Where tasks allocate: the stacks of allocations that are sampled, and what they stand for.

#![cfg(feature = "profiler")]

mod support;

use pertask::profile::{Allocation, Profile, Subject};
use pertask::sampler::{Sampler, SamplerOptions};
use pertask::{LabelExt, SessionOptions, TaskExt};
use std::alloc::System;
use std::hint::black_box;
use support::{alone, row, run, wait_until};

#[global_allocator]
static ALLOC: pertask::Alloc<System> = pertask::Alloc::new(System);

fn sampling() -> Sampler {
    let mut options = SamplerOptions::with_frequency(99);
    options.allocations = true;
    Sampler::start(options).expect("a mechanism works")
}

#[inline(never)]
fn small() {
    drop(black_box(Box::new([0_u8; 100])));
}

#[inline(never)]
fn large() {
    drop(black_box(Vec::<u8>::with_capacity(200_000)));
}

/// The functions of an allocation's stack, from the innermost.
fn functions(profile: &Profile, allocation: &Allocation) -> Vec<String> {
    let locations = allocation.sample.stack.iter().filter_map(|id| profile.location(*id));
    let lines = locations.flat_map(|location| &location.lines);
    lines.filter_map(|line| Some(profile.function(line.function)?.name.to_string())).collect()
}

fn is_of(allocation: &Allocation, name: &str) -> bool {
    let task = allocation.sample.task.as_ref();
    task.is_some_and(|task| task.name.as_deref() == Some(name))
}

#[test]
fn allocations_stand_at_what_asked_for_memory_and_add_up_to_the_byte() {
    let _alone = alone();
    let session = SessionOptions { memory: true, ..SessionOptions::default() }.start().unwrap();
    let sampler = sampling();
    let mut rounds = 0;
    // With so many, chance decides little.
    wait_until("a hundred are seen", || {
        rounds += 1;
        let work = async {
            for _ in 0..10_000 {
                small();
            }
            for _ in 0..10 {
                large();
            }
        };
        run(work.task("allocates"));
        run(async { drop(black_box(Box::new(7))) }.task("hardly allocates"));
        sampler.snapshot().allocations.iter().map(|it| it.seen).sum::<u64>() > 100
    });
    let profile = sampler.stop().resolve();
    let report = session.stop();
    for name in ["allocates", "hardly allocates"] {
        let of = || profile.allocations.iter().filter(|it| is_of(it, name));
        let exact = row(&report, name).memory.unwrap();
        assert_eq!(of().map(|it| it.bytes).sum::<u64>(), exact.allocated_bytes, "{name}");
        assert_eq!(of().map(|it| it.sample.count).sum::<u64>(), exact.allocations, "{name}");
    }
    let of = |part: &str| {
        let has = |it: &&Allocation| functions(&profile, it).iter().any(|it| it.contains(part));
        let found = profile.allocations.iter().filter(|it| is_of(it, "allocates")).filter(has);
        found.map(|it| it.bytes).sum::<u64>()
    };
    let all = f64::from(rounds) * (10_000.0 * 100.0 + 10.0 * 200_000.0);
    for (part, share) in [("::small", 1.0 / 3.0), ("::large", 2.0 / 3.0)] {
        let found = of(part) as f64 / all;
        assert!((share / 2.0..share * 1.6).contains(&found), "{part}: {found} of {share}");
    }
    let hardly = profile.allocations.iter().find(|it| is_of(it, "hardly allocates")).unwrap();
    assert_eq!(functions(&profile, hardly), ["(allocation not seen)"]);
    // The allocator itself is not shown.
    for allocation in profile.allocations.iter().filter(|it| is_of(it, "allocates")) {
        let first = functions(&profile, allocation).remove(0);
        let is_collection = ["alloc::vec", "alloc::boxed"].iter().any(|it| first.contains(it));
        assert!(is_collection || first.contains("allocation_places"), "{first}");
    }
}

/// The standard library's functions call each other. The one that the program called says what it did, and the line where.
#[test]
fn a_place_is_what_the_program_called() {
    const LINE: u32 = line!() + 3;
    #[inline(never)]
    fn copies(bytes: &[u8]) {
        drop(black_box(bytes.to_vec()));
    }
    let _alone = alone();
    let sampler = sampling();
    wait_until("a copy is seen", || {
        run(async { (0..10).for_each(|_| copies(black_box(&[7; 100_000]))) }.task("copies"));
        sampler.snapshot().allocations.iter().any(|it| it.seen > 0)
    });
    let rows = sampler.stop().resolve().allocations_by_place();
    let copies = rows.iter().find_map(|row| match &row.place {
        Subject::Place { name, at: Some(at), .. } if row.bytes > 100_000 => Some((name, at)),
        _ => None,
    });
    let (name, at) = copies.unwrap_or_else(|| panic!("{rows:#?}"));
    assert!(name.contains("to_vec"), "{name}");
    assert!(at.file.ends_with("allocation_places.rs") && at.line == LINE, "{at:?}");
}

#[test]
fn allocations_have_labels_and_go_through_files() {
    let _alone = alone();
    let sampler = sampling();
    wait_until("the label is seen", || {
        let work = async { (0..20).for_each(|_| large()) };
        run(work.labels([("tenant", "acme")]).task("labelled"));
        let profile = sampler.snapshot();
        profile.allocations.iter().any(|it| it.labels.iter().any(|it| it == ("tenant", "acme")))
    });
    let raw = sampler.stop();
    let resolved = raw.resolve();
    let mut file = Vec::new();
    resolved.write_pprof(&mut file).unwrap();
    assert_eq!(Profile::from_pprof(&file[..]).unwrap().allocations, resolved.allocations);
    let mut file = Vec::new();
    raw.write_pprof_unresolved(&mut file).unwrap();
    let read = Profile::from_pprof(&file[..]).unwrap();
    let later = pertask::sampler::resolve(&read, &Default::default());
    let bytes = |profile: &Profile| {
        let labelled = profile.allocations.iter().filter(|it| is_of(it, "labelled"));
        let seen = labelled.filter(|it| !it.sample.labels.is_empty());
        let has = |it: &&Allocation| functions(profile, it).iter().any(|it| it.contains("large"));
        seen.filter(has).map(|it| it.bytes).sum::<u64>()
    };
    assert!(bytes(&resolved) > 0, "{:#?}", resolved.allocations);
    assert_eq!(bytes(&later), bytes(&resolved), "{:#?}", later.allocations);
}

#[test]
fn who_does_not_ask_has_none() {
    let _alone = alone();
    let sampler = Sampler::start(SamplerOptions::with_frequency(99)).expect("a mechanism works");
    run(async { (0..100).for_each(|_| large()) }.task("allocates"));
    assert!(sampler.stop().allocations.is_empty());
}
