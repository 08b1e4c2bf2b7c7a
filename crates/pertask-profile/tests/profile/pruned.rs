//! Frames that a file asks to leave out. The expected stacks are those of `go tool pprof`.

use std::hash::{DefaultHasher, Hash, Hasher};

use pertask_profile::{GroupBy, Profile};

use crate::{go, protobuf::File};

const DROP: u64 = 7;
const KEEP: u64 = 8;

#[test]
fn the_caller_of_a_dropped_frame_has_its_time() {
    let profile = pruned("__tick_.*", "", &[&["__tick_hook"], &["work"], &["main"]]);
    assert_eq!(stack(&profile), ["work", "main"]);
    let rows = profile.summary(&GroupBy::Function).rows;
    assert_eq!((rows[0].subject.to_string(), rows[0].own.samples), ("work".to_owned(), 3));
    assert!(profile.remarks[0].starts_with("as the file asks"), "{:?}", profile.remarks);
}

#[test]
fn what_a_dropped_frame_called_goes_with_it() {
    let stacks: &[&[&str]] = &[&["memcpy"], &["__hook"], &["work"], &["main"]];
    assert_eq!(stack(&pruned("__hook|other", "", stacks)), ["work", "main"]);
    // The whole name must match.
    assert_eq!(stack(&pruned("hook|__ho", "", stacks)), ["memcpy", "__hook", "work", "main"]);
}

#[test]
fn a_kept_frame_is_not_dropped() {
    let stacks: &[&[&str]] = &[&["alloc_slow"], &["alloc_fast"], &["main"]];
    assert_eq!(stack(&pruned("alloc_.*", ".*_slow", stacks)), ["main"]);
    assert_eq!(
        stack(&pruned("alloc_.*", "alloc_.*", stacks)),
        ["alloc_slow", "alloc_fast", "main"]
    );
    assert_eq!(stack(&pruned("", "alloc_.*", stacks)), ["alloc_slow", "alloc_fast", "main"]);
}

#[test]
fn frames_at_the_root_stay() {
    let stacks: &[&[&str]] = &[&["hook"], &["work"], &["_start"], &["_start"]];
    assert_eq!(stack(&pruned("hook|_start", "", stacks)), ["work", "_start", "_start"]);
    let all: &[&[&str]] = &[&["_start"], &["_start"]];
    assert_eq!(stack(&pruned("_start", "", all)), ["_start", "_start"]);
}

#[test]
fn inlined_frames_are_dropped_within_their_location() {
    let stacks: &[&[&str]] = &[&["leaf"], &["inner", "hook", "outer"], &["main"]];
    assert_eq!(stack(&pruned("hook", "", stacks)), ["outer", "main"]);
    assert_eq!(stack(&pruned("outer", "", stacks)), ["main"]);
}

#[test]
fn arguments_are_no_part_of_a_name() {
    let names: &[&[&str]] = &[&["(anonymous namespace)::hook::operator()(int)"], &["main"]];
    let pattern = r"\(anonymous namespace\)::hook::operator\(\)";
    assert_eq!(stack(&pruned(pattern, "", names)), ["main"]);
    assert_eq!(stack(&pruned("foo::goo", "", &[&[".foo::goo(int)"], &["main"]])), ["main"]);
}

/// Without its middle it would be another pattern.
#[test]
fn a_pattern_that_is_longer_than_the_limit_on_strings_drops_nothing() {
    let file = file(&("work".to_owned() + &"|x".repeat(40_000)), "", &[&["work"], &["main"]]);
    let profile = Profile::from_pprof(&file[..]).expect("it is good");
    assert_eq!(stack(&profile), ["work", "main"]);
    assert!(profile.remarks[0].contains("longer than the limit"), "{:?}", profile.remarks);
}

#[test]
fn a_pattern_that_cannot_be_used_drops_nothing_and_is_told() {
    let long = "a?".repeat(2_000) + &"(a{100}){100}".repeat(20);
    for pattern in ["(", "(((a{900}){900}){900})", &long] {
        // Go refuses such a file.
        let file = file(pattern, "", &[&["work"], &["main"]]);
        let profile = Profile::from_pprof(&file[..]).expect("it is good");
        assert_eq!(stack(&profile), ["work", "main"]);
        assert!(profile.remarks[0].contains("they are shown"), "{:?}", profile.remarks);
    }
}

/// The profile of one sample, in whose stack Go finds the same frames.
fn pruned(drop: &str, keep: &str, frames: &[&[&str]]) -> Profile {
    let file = file(drop, keep, frames);
    let profile = Profile::from_pprof(&file[..]).expect("it is good");
    if let Some(go) = go::stack(&format!("pruned-{:x}", seed(&file)), &file) {
        assert_eq!(stack(&profile), go, "drop {drop}, keep {keep}");
    }
    profile
}

/// A number of its own for each file.
fn seed(file: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    file.hash(&mut hasher);
    hasher.finish()
}

fn file(drop: &str, keep: &str, stack: &[&[&str]]) -> Vec<u8> {
    let mut file = File::usual();
    file.text(DROP, drop);
    file.text(KEEP, keep);
    let stack: Vec<_> = stack.iter().map(|functions| file.location(functions)).collect();
    file.sample(&stack, &[3, 30_000_000], &[]);
    file.written()
}

/// The names of the first sample's frames, the innermost first.
fn stack(profile: &Profile) -> Vec<&str> {
    let locations = profile.samples[0].stack.iter().filter_map(|id| profile.location(*id));
    let lines = locations.flat_map(|location| &location.lines);
    lines.filter_map(|line| profile.function(line.function)).map(|it| &*it.name).collect()
}
