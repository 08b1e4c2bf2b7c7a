//! The Firefox Profiler's JSON: its tracks, and the stacks in them.

use pertask_profile::{Function, Line, Location, LocationId, Profile, Sample, TaskRef};
use serde_json::Value;
use std::collections::HashSet;
use std::time::Duration;

use crate::example::{self, amount, builder, task};

const RENDER: &str = "GET /render";
const HASH: &str = "GET /hash";
const OUTSIDE: &str = "worker [4711] (outside tasks)";

#[test]
fn each_task_name_has_a_track_the_busiest_first() {
    let json = json();
    assert_eq!(tracks(&json), [RENDER, HASH, OUTSIDE]);
    assert!(json["meta"]["product"].as_str().is_some_and(|product| product == "service"));
    let process = threads(&json)[0]["processName"].as_str().expect("a name");
    assert!(process.contains("by hand; 7 samples dropped, 4 stacks incomplete"), "{process}");
}

#[test]
fn tracks_are_not_in_the_order_of_their_names() {
    let mut profile = example::profile();
    profile.samples[2].time_ns = 60_000_000;
    profile.samples[3].time_ns = 90_000_000;
    assert_eq!(tracks(&written(&profile)), [OUTSIDE, HASH, RENDER]);
}

#[test]
fn samples_follow_one_another_by_their_cpu_time() {
    let json = json();
    let samples = &threads(&json)[0]["samples"];
    assert_eq!(samples["weight"], serde_json::json!([20, 30]));
    assert_eq!(samples["weightType"], "tracing-ms");
    assert_eq!(samples["threadCPUDelta"], serde_json::json!([20_000, 30_000]));
    assert_eq!(samples["timeDeltas"], serde_json::json!([20.0, 30.0]));
}

/// Such as time in the kernel, which is known and has no sample.
#[test]
fn time_without_samples_has_its_weight_and_no_fraction_is_lost() {
    let mut builder = builder();
    let name = builder.text("(kernel, not sampled)");
    let function = builder.function(Function { name, ..Function::default() });
    let lines = vec![Line { function, line: 0 }];
    let location = builder.location(Location { lines, ..Location::default() });
    // Of two tasks, so that they are not one.
    for id in 0..4 {
        let task = Some(task(&mut builder, id, "GET /", 80));
        builder.add(Sample { time_ns: 600_000, stack: vec![location], task, ..Sample::default() });
    }
    let json = written(&builder.finish(Duration::ZERO));
    let weights = &threads(&json)[0]["samples"]["weight"];
    assert_eq!(*weights, serde_json::json!([1, 0, 1, 0]), "2.4 ms together");
}

#[test]
fn stacks_grow_from_the_tasks_name() {
    let json = json();
    let names = stack(&threads(&json)[1], &json);
    let frames = ["service::handle", "service::inlined", "service::hash"];
    assert_eq!(names, [&["GET /hash", "(incomplete stack)"][..], &frames].concat());
}

#[test]
fn the_site_tells_apart_tasks_of_one_name_and_names_those_without() {
    let mut builder = builder();
    for (name, line, count) in [("GET /", 80, 4), ("GET /", 81, 3), ("client", 80, 2)] {
        let task = Some(task(&mut builder, 1, name, line));
        builder.add(Sample { task, ..amount(count) });
    }
    let nameless = TaskRef { name: None, ..task(&mut builder, 2, "", 82) };
    builder.add(Sample { task: Some(nameless), ..amount(1) });
    let json = written(&builder.finish(Duration::ZERO));
    let expected = [
        "GET /, service.rs:80 (src)",
        "GET /, service.rs:81 (src)",
        "client",
        "service.rs:82 (src)",
    ];
    assert_eq!(tracks(&json), expected);
}

/// Left alone, the Profiler hides the tracks below 5 % of the busiest, and all but 15.
#[test]
fn rare_tasks_are_visible_too() {
    let mut builder = builder();
    for number in 0..20 {
        let task = Some(task(&mut builder, number, &format!("task {number:02}"), 80));
        builder.add(Sample { task, ..amount(if number == 0 { 1_000 } else { 1 }) });
    }
    let json = written(&builder.finish(Duration::ZERO));
    assert_eq!(visible(&json).len(), 20);
    assert_eq!(json["meta"]["initialSelectedThreads"], serde_json::json!([0]));
    assert!(!process(&json).contains("hidden"), "{json}");
}

#[test]
fn the_hundred_busiest_tracks_are_visible_and_the_others_are_counted() {
    let of = |tasks: u64| {
        let mut builder = builder();
        for number in 0..tasks {
            let task = Some(task(&mut builder, number, &format!("task {number}"), 80));
            builder.add(Sample { task, ..amount(1_000 - number) });
        }
        written(&builder.finish(Duration::ZERO))
    };
    let json = of(103);
    let busiest: Vec<_> = (0..100).map(|number| format!("task {number}")).collect();
    let shown: Vec<_> = visible(&json).into_iter().map(|index| tracks(&json)[index]).collect();
    assert_eq!((tracks(&json).len(), shown), (103, busiest.iter().map(|it| &**it).collect()));
    assert!(process(&json).ends_with("; 3 more tracks are hidden)"), "{}", process(&json));
    assert!(process(&of(101)).ends_with("; 1 more track is hidden)"));
    assert!(!process(&of(100)).contains("hidden"));
}

/// The indices of the tracks that the Profiler shows when it opens the file.
fn visible(json: &Value) -> Vec<usize> {
    let indices = json["meta"]["initialVisibleThreads"].as_array().expect("a list");
    indices.iter().map(|index| index.as_u64().expect("an index") as usize).collect()
}

fn process(json: &Value) -> &str {
    threads(json)[0]["processName"].as_str().expect("a name")
}

/// The names of the first sample's frames, root first.
fn stack(thread: &Value, json: &Value) -> Vec<String> {
    stack_of(thread, json, 0)
}

/// The names of a sample's frames, root first.
fn stack_of(thread: &Value, json: &Value, sample: usize) -> Vec<String> {
    let at = |table: &Value, column: &str, row: &Value| {
        table[column][row.as_u64().expect("a row") as usize].clone()
    };
    let strings = thread.get("stringArray").unwrap_or(&json["shared"]["stringArray"]);
    let mut names = Vec::new();
    let mut stack = thread["samples"]["stack"][sample].clone();
    while !stack.is_null() {
        let func = at(&thread["frameTable"], "func", &at(&thread["stackTable"], "frame", &stack));
        let name = at(&thread["funcTable"], "name", &func);
        let name = &strings[name.as_u64().expect("a string") as usize];
        names.insert(0, name.as_str().expect("a name").to_owned());
        stack = at(&thread["stackTable"], "prefix", &stack);
    }
    names
}

fn tracks(json: &Value) -> Vec<&str> {
    threads(json).iter().filter_map(|thread| thread["name"].as_str()).collect()
}

fn json() -> Value {
    written(&example::profile())
}

fn written(profile: &Profile) -> Value {
    let mut json = Vec::new();
    profile.write_firefox("service", &mut json).expect("memory");
    serde_json::from_slice(&json).expect("JSON")
}

fn threads(json: &Value) -> &[Value] {
    json["threads"].as_array().expect("threads")
}

/// Stacks that share callers, end at one another's frames, are cut, empty, or of a location that is not there.
#[test]
fn each_sample_has_its_own_stack() {
    let mut builder = builder();
    let [main, handle, render, hash, park] = example::frames(&mut builder);
    let ids = [main, handle, render, hash, park, LocationId(99)];
    for number in 0..300_usize {
        let depth = number % 7;
        let stack = (0..depth).map(|at| ids[(number / 7 + at * number) % ids.len()]).collect();
        let task = Some(task(&mut builder, number as u64, ["a", "service::main"][number % 2], 80));
        let sample = Sample { stack, task, complete: number % 5 > 0, ..amount(1) };
        builder.add(sample);
    }
    let profile = builder.finish(Duration::ZERO);
    let json = written(&profile);
    for track in threads(&json) {
        let name = track["name"].as_str().expect("a name");
        let of_track = |sample: &&Sample| {
            sample.task.as_ref().is_some_and(|task| task.name.as_deref() == Some(name))
        };
        let samples: Vec<_> = profile.samples.iter().filter(of_track).collect();
        assert_eq!(track["samples"]["length"], samples.len());
        for (at, sample) in samples.into_iter().enumerate() {
            let mut names = vec![name.to_owned()];
            names.extend((!sample.complete).then(|| "(incomplete stack)".to_owned()));
            names.extend(sample.stack.iter().rev().flat_map(|id| functions(&profile, *id)));
            assert_eq!(stack_of(track, &json, at), names, "{name}: {at}");
        }
        // No two nodes are one.
        let [prefix, frame] = ["prefix", "frame"].map(|column| {
            track["stackTable"][column].as_array().expect("a column").iter().map(Value::to_string)
        });
        let nodes: Vec<_> = prefix.zip(frame).collect();
        assert_eq!(nodes.len(), track["stackTable"]["length"].as_u64().expect("one") as usize);
        assert_eq!(nodes.iter().collect::<HashSet<_>>().len(), nodes.len());
    }
}

/// The functions at a location, the outermost first.
fn functions(profile: &Profile, id: LocationId) -> Vec<String> {
    let Some(location) = profile.location(id) else { return vec!["(unknown)".to_owned()] };
    if location.lines.is_empty() {
        return vec!["libc.so.6+0x244".to_owned()];
    }
    let functions = location.lines.iter().rev().filter_map(|line| profile.function(line.function));
    functions.map(|function| function.name.to_string()).collect()
}

#[test]
fn beyond_a_thousand_tracks_the_rarest_are_one() {
    let mut builder = builder();
    for number in 0..1_200_u64 {
        let task = Some(task(&mut builder, number, &format!("task {number}"), 80));
        builder.add(Sample { task, ..amount(2_000 - number) });
    }
    let json = written(&builder.finish(Duration::ZERO));
    let tracks = tracks(&json);
    assert_eq!((tracks.len(), tracks[998]), (1_000, "task 998"));
    assert_eq!(tracks[999], "(201 more, with little CPU time)");
    let last = &threads(&json)[999];
    assert_eq!(last["samples"]["length"], 201);
    assert_eq!(stack_of(last, &json, 200), ["task 1199"]);
}
