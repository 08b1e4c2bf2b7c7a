//! Profiles of other programs and files of other kinds.

use std::time::Duration;

use pertask::profile::{
    Function, Line, Location, Profile, ProfileBuilder, ReadLimits, Sample, ThreadRef,
};

use crate::{
    pprof,
    run::{Folder, error, json, on, text_of},
};

/// 30 ms of a thread without a name, in samples that nobody counted.
fn uncounted() -> Profile {
    let mut builder = ProfileBuilder::new("", 0);
    let name = builder.text("work");
    let function = builder.function(Function { name, ..Function::default() });
    let lines = vec![Line { function, line: 1 }];
    let work = builder.location(Location { lines, ..Location::default() });
    let thread = Some(ThreadRef { tid: 7, name: "".into() });
    builder.add(Sample { time_ns: 30_000_000, stack: vec![work], thread, ..Sample::default() });
    let mut profile = builder.finish(Duration::from_secs(1));
    profile.has_counts = false;
    profile
}

#[test]
fn numbers_of_samples_that_are_not_known_are_not_shown() {
    let file = pprof(&uncounted());
    let text = text_of(&["-", "--by", "function,thread"], &file);
    let expected = "\
30.0 ms of CPU time over 1.00 s: 0.03 CPUs busy";
    assert_eq!(text.lines().next(), Some(expected), "{text}");
    let rows = [
        "100.0%  30.0 ms  100.0%  30.0 ms        -  work",
        "100.0%  30.0 ms        -  -         7",
    ];
    assert!(rows.iter().all(|row| text.contains(row)), "{text}");
    let json = json(&on(&file, &["-", "--thread", "7", "--by", "thread", "--json"]));
    let row = &json["tables"][0]["rows"][0];
    for value in [
        &json["samples"],
        &json["samples_whole"],
        &json["matched"]["samples"],
        &row["self_samples"],
        &row["total_samples"],
        &row["name"],
    ] {
        assert!(value.is_null(), "{json}");
    }
    assert_eq!((&row["self_cpu_ns"], &row["tid"]), (&30_000_000.into(), &7.into()));
}

#[test]
fn files_of_other_kinds_are_one_line_that_helps() {
    for (file, said) in [
        (&b"\x28\xb5\x2f\xfd\x04\x00"[..], "compressed with zstd; unpack it first: zstd -d"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (br#"{"error":"not found"}"#, "JSON"),
    ] {
        let stderr = error(&on(file, &["-"]));
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
    let twice = pprof(&uncounted()).repeat(2);
    assert!(error(&on(&twice, &["-"])).contains("several profiles, one after another"));
}

#[test]
fn what_is_too_large_says_how_to_raise_the_limit() {
    let folder = Folder::new("limits");
    let svg = folder.path("a.svg");
    let file = pprof(&uncounted());
    for (limit, said) in [
        ("samples", "too many samples, more than 0."),
        ("strings", "too many strings, more than 0."),
        ("locations", "too many functions, more than 0."),
        ("frames", "too many frames in all stacks, more than 0."),
        ("labels", "too many labels, more than 0."),
        ("bytes", "too many unpacked bytes, more than 0."),
        ("part_bytes", "too many bytes in one part, more than 0."),
    ] {
        let none = format!("{limit}=0");
        let stderr = error(&on(&file, &["-", "--limit", &none, "--flamegraph", &svg]));
        assert!(stderr.contains(said), "{limit}: {stderr}");
        assert!(stderr.contains(&format!("--limit {limit}=NUMBER")), "{limit}: {stderr}");
        // The last one counts.
        let raised = format!("{limit}=10000");
        assert!(on(&file, &["-", "--limit", &none, "--limit", &raised]).status.success());
    }
    assert!(folder.names().is_empty(), "{:?}", folder.names());
    let help = text_of(&["--help"], b"");
    for name in ReadLimits::NAMES {
        assert!(help.contains(name), "{name}: {help}");
    }
}
