//! The Firefox Profiler's JSON: its tracks, and the stacks in them.

use pertask_profile::Profile;
use serde_json::Value;

use crate::example;

const RENDER: &str = "service.rs:80 (src)";
const HASH: &str = "service.rs:81 (src)";
const OUTSIDE: &str = "worker [4711] (outside tasks)";

#[test]
fn each_spawn_site_has_a_track_the_busiest_first() {
    let json = json();
    assert_eq!(tracks(&json), [RENDER, HASH, OUTSIDE]);
    assert!(json["meta"]["product"].as_str().is_some_and(|product| product == "service"));
    let process = threads(&json)[0]["processName"].as_str().expect("a name");
    assert!(process.contains("by hand; 7 samples dropped, 4 stacks incomplete"), "{process}");
}

#[test]
fn tracks_are_not_in_the_order_of_their_names() {
    let mut profile = example::profile();
    profile.samples[2].cpu_ns = 60_000_000;
    profile.samples[3].cpu_ns = 90_000_000;
    assert_eq!(tracks(&written(&profile)), [OUTSIDE, HASH, RENDER]);
}

#[test]
fn samples_follow_one_another_by_their_cpu_time() {
    let json = json();
    let samples = &threads(&json)[0]["samples"];
    assert_eq!(samples["weight"], serde_json::json!([2, 3]));
    assert_eq!(samples["threadCPUDelta"], serde_json::json!([20_000, 30_000]));
    assert_eq!(samples["timeDeltas"], serde_json::json!([20.0, 30.0]));
}

#[test]
fn stacks_grow_from_the_tasks_name() {
    let json = json();
    let names = stack(&threads(&json)[1], &json);
    let frames = ["service::handle", "service::inlined", "service::hash"];
    assert_eq!(names, [&["GET /hash", "(incomplete stack)"][..], &frames].concat());
}

/// The names of the first sample's frames, root first.
fn stack(thread: &Value, json: &Value) -> Vec<String> {
    let at = |table: &Value, column: &str, row: &Value| {
        table[column][row.as_u64().expect("a row") as usize].clone()
    };
    let strings = thread.get("stringArray").unwrap_or(&json["shared"]["stringArray"]);
    let mut names = Vec::new();
    let mut stack = thread["samples"]["stack"][0].clone();
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
