//! Promises to samplers: equal samples become one, and a full profile keeps its sums.

use pertask_profile::{
    Allocation, Bounds, Function, Location, Profile, ProfileBuilder, Sample, State,
};
use std::time::Duration;

use crate::example::{amount, frames, task, worker};

#[test]
fn equal_samples_become_one() {
    let mut builder = ProfileBuilder::new("by hand", 1);
    let [main, ..] = frames(&mut builder);
    for _ in 0..3 {
        builder.add(Sample { stack: vec![main], ..amount(2) });
    }
    builder.add(amount(1));
    let profile = builder.finish(Duration::ZERO);
    assert_eq!(profile.samples.len(), 2);
    assert_eq!((profile.samples[0].count, profile.samples[0].time_ns), (6, 60_000_000));
}

#[test]
fn places_and_names_are_kept_once() {
    let mut builder = ProfileBuilder::new("by hand", 1);
    assert_eq!(frames(&mut builder), frames(&mut builder));
    let profile = builder.finish(Duration::ZERO);
    assert_eq!(profile.locations.len(), 5);
    assert_eq!(profile.functions.len(), 5);
    assert_eq!(profile.mappings.len(), 2);
}

#[test]
fn what_finds_no_place_loses_its_task_before_its_name_and_its_name_before_its_time() {
    let bounds = Bounds { samples: 1, folded_samples: 1, ..Bounds::default() };
    let mut builder = ProfileBuilder::with_bounds("by hand", 1, bounds);
    let [main, handle, ..] = frames(&mut builder);
    // The first has a place, the next two share one, the last has none.
    for (id, stack) in [(1, main), (2, main), (3, main), (4, handle)] {
        let task = Some(task(&mut builder, id, "GET /", 80));
        let thread = Some(worker(&mut builder));
        builder.add(Sample { stack: vec![stack], task, thread, ..amount(1) });
    }
    let profile = builder.finish(Duration::ZERO);
    let seen: Vec<_> =
        profile.samples.iter().map(|sample| (id(sample), name(sample), sample.count)).collect();
    assert_eq!(seen, [(Some(1), "GET /", 1), (None, "GET /", 2), (None, "", 1)]);
    assert_eq!(profile.samples[1].stack, [main]);
    assert_eq!(profile.lost.samples_folded, 3);
    assert_eq!(time_ns(&profile), 40_000_000);
}

/// Waits and allocations are no samples of CPU time, whose losses are counted.
#[test]
fn waits_and_allocations_that_find_no_place_are_told_of() {
    let bounds = Bounds { samples: 1, folded_samples: 1, ..Bounds::default() };
    let mut builder = ProfileBuilder::with_bounds("by hand", 1, bounds);
    let frames = frames(&mut builder);
    for stack in &frames[..3] {
        let sample = Sample { count: 4, stack: vec![*stack], ..Sample::default() };
        builder.add_allocation(Allocation { bytes: 100, sample });
        let (state, time_ns) = (State::Waiting, 1_000);
        builder.add(Sample { state, time_ns, count: 1, stack: vec![*stack], ..Sample::default() });
    }
    for number in 0..200 {
        builder.remark(format!("remark {number}"));
    }
    let profile = builder.finish(Duration::ZERO);
    let told = [
        "about 8 allocations lack labels, scopes or stacks, for which there was no room",
        "about 2 waits lack labels, scopes or stacks, for which there was no room",
    ];
    assert_eq!((&profile.remarks[..2], profile.remarks.len()), (&told.map(str::to_owned)[..], 100));
    assert_eq!(profile.allocations.iter().map(|it| it.bytes).sum::<u64>(), 300);
}

#[test]
fn deep_stacks_lose_their_roots_and_say_so() {
    let bounds = Bounds { depth: 2, labels: 1, ..Bounds::default() };
    let mut builder = ProfileBuilder::with_bounds("by hand", 1, bounds);
    let [main, handle, render, ..] = frames(&mut builder);
    let scopes = vec![builder.text("outer"), builder.text("inner")];
    builder.add(Sample { stack: vec![render, handle, main], scopes, ..amount(3) });
    let profile = builder.finish(Duration::ZERO);
    let sample = &profile.samples[0];
    assert_eq!((&sample.stack[..], sample.complete), (&[render, handle][..], false));
    assert_eq!(sample.scopes, ["outer".into()]);
    assert_eq!((profile.lost.stacks_incomplete, profile.lost.samples_folded), (3, 3));
}

#[test]
fn places_and_names_beyond_the_bounds_are_other() {
    let bounds = Bounds { locations: 2, texts: 2, text_bytes: 6, ..Bounds::default() };
    let mut builder = ProfileBuilder::with_bounds("by hand", 1, bounds);
    let names = ["a", "ééééé", "c", "a"].map(|name| builder.text(name));
    assert_eq!(names.each_ref().map(|name| &**name), ["a", "é…", "(other)", "a"]);
    let ids =
        [1, 2, 3].map(|address| builder.location(Location { address, ..Location::default() }));
    let functions = names.map(|name| builder.function(Function { name, ..Function::default() }));
    assert_eq!(ids[1], ids[2]);
    assert_ne!(ids[0], ids[1]);
    assert_eq!(functions[0], functions[3]);
    let profile = builder.finish(Duration::ZERO);
    let other = profile.location(ids[2]).expect("a location").lines[0].function;
    assert_eq!(&*profile.function(other).expect("a function").name, "(other)");
    assert_eq!((profile.locations.len(), profile.functions.len()), (2, 2));
    assert_eq!((profile.lost.texts_folded, profile.lost.locations_folded), (1, 3));
    assert_eq!(profile.lost.texts_cut, 1);
}

fn id(sample: &Sample) -> Option<u64> {
    sample.task.as_ref().and_then(|task| task.id)
}

fn name(sample: &Sample) -> &str {
    sample.task.as_ref().and_then(|task| task.name.as_deref()).unwrap_or_default()
}

fn time_ns(profile: &Profile) -> u64 {
    profile.samples.iter().map(|sample| sample.time_ns).sum()
}
