//! speedscope's own format: its profiles, and the frames in them.

use std::time::Duration;

use pertask_profile::{Function, Line, Location, Profile, ProfileBuilder, RootBy, Sample, Weight};
use serde_json::{Value, json};

use crate::example::{self, amount, task};

#[test]
fn all_tasks_come_first_and_then_each_the_busiest_first() {
    let json = written(&example::profile(), RootBy::TaskName, Weight::Time);
    assert_eq!(names(&json), ["All tasks", "GET /render", "GET /hash", "(outside tasks)"]);
    assert_eq!(json["name"], "service (by hand; 7 samples dropped, 4 stacks incomplete)");
    assert_eq!(json["activeProfileIndex"], 0);
    let schema = "https://www.speedscope.app/file-format-schema.json";
    assert_eq!(json["$schema"], schema);
    // The two tasks of one name and stack are one sample.
    let all = &json["profiles"][0];
    assert_eq!(all["weights"], json!([50_000_000, 40_000_000, 10_000_000]));
    assert_eq!((&all["startValue"], &all["endValue"]), (&json!(0), &json!(100_000_000)));
    assert_eq!((&all["type"], &all["unit"]), (&json!("sampled"), &json!("nanoseconds")));
    assert_eq!(json["profiles"][2]["weights"], json!([40_000_000]));
}

#[test]
fn inlined_functions_are_in_the_stacks() {
    let json = written(&example::profile(), RootBy::TaskName, Weight::Time);
    let render = ["service::main", "service::handle", "service::inlined", "service::render"];
    assert_eq!(stack(&json, 0, 0), [&["GET /render"][..], &render].concat());
    assert_eq!(stack(&json, 1, 0), render);
    let hash = ["(incomplete stack)", "service::handle", "service::inlined", "service::hash"];
    assert_eq!(stack(&json, 2, 0), hash);
    assert_eq!(stack(&json, 3, 0), ["service::main", "libc.so.6+0x244"]);
}

#[test]
fn the_caller_chooses_the_root_and_the_weight() {
    let json = written(&example::profile(), RootBy::Thread, Weight::Samples);
    assert_eq!(names(&json), ["All threads", "worker [4711]"]);
    assert_eq!(json["profiles"][0]["unit"], "none");
    assert_eq!(json["profiles"][0]["weights"], json!([5, 4, 1]));
    assert_eq!(stack(&json, 0, 2), ["worker [4711]", "service::main", "libc.so.6+0x244"]);
    let json = written(&example::profile(), RootBy::Site, Weight::Samples);
    assert_eq!(names(&json)[..2], ["All spawn sites", "src/service.rs:80"]);
}

#[test]
fn a_function_is_one_frame_with_its_file_and_first_line() {
    let mut builder = example::builder();
    let mut add = |address, name: &str, start_line, line| {
        let (name, file) = (builder.text(name), builder.text("src/a.rs"));
        let function = Function { name, file, start_line, ..Function::default() };
        let lines = vec![Line { function: builder.function(function), line }];
        let stack = vec![builder.location(Location { address, lines, ..Location::default() })];
        let task = Some(task(&mut builder, 1, "unknown", 1));
        builder.add(Sample { stack, task, ..amount(1) });
    };
    for (address, name, start_line, line) in
        [(1, "known", 3, 9), (2, "unknown", 0, 8), (3, "unknown", 0, 7), (4, "unknown", 0, 0)]
    {
        add(address, name, start_line, line);
    }
    let json = written(&builder.finish(Duration::ZERO), RootBy::TaskName, Weight::Time);
    let frames: Vec<_> = json["shared"]["frames"].as_array().expect("frames").iter().collect();
    for frame in [
        json!({ "name": "known", "file": "src/a.rs", "line": 3 }),
        json!({ "name": "unknown", "file": "src/a.rs", "line": 7 }),
        // The task of that name is not the function.
        json!({ "name": "unknown" }),
    ] {
        assert_eq!(frames.iter().filter(|it| ***it == frame).count(), 1, "{frame}: {frames:?}");
    }
    assert_eq!(frames.len(), 4, "with the one for incomplete stacks: {frames:?}");
}

#[test]
fn tasks_beyond_a_hundred_are_counted_and_in_the_first_profile() {
    let of = |tasks: u64| {
        let mut builder = example::builder();
        for number in 0..tasks {
            let task = Some(task(&mut builder, number, &format!("task {number}"), 80));
            builder.add(Sample { task, ..amount(1_000 - number) });
        }
        written(&builder.finish(Duration::ZERO), RootBy::TaskName, Weight::Samples)
    };
    let json = of(103);
    assert_eq!(names(&json).len(), 101);
    assert_eq!(names(&json)[..2], ["All tasks (3 of them are only here)", "task 0"]);
    assert_eq!(json["profiles"][0]["weights"].as_array().map(Vec::len), Some(103));
    assert_eq!(names(&of(101))[0], "All tasks (1 of them is only here)");
    assert_eq!(names(&of(100))[0], "All tasks");
}

#[test]
fn any_name_is_a_string_and_no_samples_are_a_profile() {
    for name in ["\"", "\\", "\n\u{0}\u{1b}", "a;b 7", ""] {
        let json = written(&crate::folded::named(name), RootBy::TaskName, Weight::Samples);
        assert_eq!(names(&json), ["All tasks", name]);
    }
    let empty = ProfileBuilder::new("by hand", 1).finish(Duration::ZERO);
    let json = written(&empty, RootBy::TaskName, Weight::Time);
    assert_eq!((names(&json), &json["profiles"][0]["samples"]), (vec!["All tasks"], &json!([])));
}

#[test]
fn sums_beyond_an_integer_are_its_end() {
    let mut builder = ProfileBuilder::new("", 0);
    for tid in [1, 2] {
        let thread = Some(pertask_profile::ThreadRef { tid, name: "t".into() });
        builder.add(Sample { thread, ..amount(u64::MAX / 10_000_000) });
    }
    let json = written(&builder.finish(Duration::ZERO), RootBy::TaskName, Weight::Time);
    assert_eq!(json["profiles"][0]["endValue"], u64::MAX);
}

/// The names of a sample's frames, root first.
fn stack(json: &Value, profile: usize, sample: usize) -> Vec<&str> {
    let frames = json["profiles"][profile]["samples"][sample].as_array().expect("a stack");
    let frame =
        |index: &Value| &json["shared"]["frames"][index.as_u64().expect("an index") as usize];
    frames.iter().map(|index| frame(index)["name"].as_str().expect("a name")).collect()
}

fn names(json: &Value) -> Vec<&str> {
    let profiles = json["profiles"].as_array().expect("profiles");
    profiles.iter().filter_map(|profile| profile["name"].as_str()).collect()
}

fn written(profile: &Profile, root: RootBy, weight: Weight) -> Value {
    let mut json = Vec::new();
    profile.write_speedscope("service", root, weight, &mut json).expect("memory");
    serde_json::from_slice(&json).expect("JSON")
}
