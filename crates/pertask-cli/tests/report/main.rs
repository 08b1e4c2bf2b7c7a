//! `pertask report` as its users meet it: the built binary on files that the library wrote, and on files that nobody should.

mod difference;
mod memory;
mod others;
#[path = "../../../pertask-profile/tests/profile/protobuf.rs"]
#[allow(dead_code, reason = "files of a few kinds are enough here")]
mod protobuf;
mod run;
mod states;

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::ExitStatusExt,
    },
    process::{Command, Output, Stdio},
    time::{Duration, UNIX_EPOCH},
};

use pertask::profile::{
    Function, Line, Location, LocationId, Profile, ProfileBuilder, Sample, Site, State, TaskRef,
    ThreadRef,
};
use serde_json::Value;

use run::{Folder, error, flate, json, on, read, text, text_of, with};

const GO: &[u8] = include_bytes!("../../../pertask-profile/tests/profile/go.pb.gz");

/// 60 ms of `GET /render` in two tasks, 30 ms of a nameless child of one, 10 ms outside of tasks.
fn profile() -> Profile {
    let mut builder = ProfileBuilder::new("by hand", 10_000_000);
    builder.start(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let [render, walk, main] =
        ["app::render", "app::walk", "app::main"].map(|name| location(&mut builder, name));
    let thread = Some(ThreadRef { tid: 4_711, name: "worker".into() });
    for (id, count) in [(11, 4), (12, 2)] {
        let stack = vec![render, main];
        let task = Some(task(id, Some("GET /render"), 80, None));
        builder.add(Sample { stack, task, thread: thread.clone(), ..amount(count) });
    }
    let labels = vec![("tenant".into(), "acme".into())];
    let task = Some(task(13, None, 73, Some(11)));
    // It calls itself.
    let stack = vec![walk, walk, main];
    builder.add(Sample { stack, task, thread: thread.clone(), labels, ..amount(3) });
    builder.add(Sample { stack: vec![main], thread, complete: false, ..amount(1) });
    builder.dropped(7);
    builder.finish(Duration::from_secs(2))
}

#[test]
fn it_shows_sites_and_functions_and_how_they_were_sampled() {
    let expected = "\
100 ms of CPU time in 10 samples over 2.00 s: 0.05 CPUs busy
from 2023-11-14 22:13:20 UTC; by hand; a sample each 10.0 ms of CPU time; 90.0% of the stacks whole
lost: 7 samples dropped
labels: tenant

Tasks by site (% of 100 ms)
 CPU%      CPU  SAMPLES  TASK             SITE
60.0%  60.0 ms        6  GET /render      src/app.rs:80
30.0%  30.0 ms        3  -                src/app.rs:73
10.0%  10.0 ms        1  (outside tasks)  -

Functions (% of 100 ms)
SELF%     SELF  TOTAL%    TOTAL  SAMPLES  FUNCTION
60.0%  60.0 ms   60.0%  60.0 ms        6  app::render
30.0%  30.0 ms   30.0%  30.0 ms        3  app::walk
10.0%  10.0 ms  100.0%   100 ms        1  app::main
";
    assert_eq!(text(&report(&["-"])), expected);
}

#[test]
fn tables_may_be_listed_and_repeated_and_each_comes_once() {
    let text = text(&report(&["-", "--by", "task,thread", "--by", "label:tenant,scope,task"]));
    let titles: Vec<_> = text.lines().filter(|line| line.ends_with("(% of 100 ms)")).collect();
    let expected = ["Tasks", "Threads", "Label tenant", "Scopes"];
    assert_eq!(titles, expected.map(|title| format!("{title} (% of 100 ms)")));
    // A task's id, its parent's, and its site.
    assert!(text.contains("30.0%  30.0 ms        3  13      11  -"), "{text}");
    assert!(text.contains("30.0%  30.0 ms        3  acme"), "{text}");
    assert!(text.contains("70.0%  70.0 ms        7  (no such label)"), "{text}");
}

#[test]
fn filters_must_all_match_and_say_how_much_of_the_whole_they_are() {
    let text =
        text(&report(&["-", "--task", "GET /render", "--site", "app.rs:80", "--by", "task"]));
    let matched = "matched: 60.0 ms (60.0%) in 6 samples: task GET /render, site app.rs:80";
    assert!(text.lines().any(|line| line == matched), "{text}");
    assert!(text.contains("Tasks (% of 60.0 ms)") && text.contains("66.7%  40.0 ms"), "{text}");
    for (filter, samples) in [
        (&["--task", "12"][..], 2),
        (&["--task", "(outside tasks)"][..], 1),
        (&["--thread", "worker"][..], 10),
        (&["--label", "tenant=acme"][..], 3),
        (&["--function", "render", "--function", "main"][..], 6),
        (&["--function", "walk", "--thread", "4711"][..], 3),
    ] {
        let json = json(&report(&[&["-", "--json"][..], filter].concat()));
        assert_eq!(json["matched"]["samples"], samples, "{filter:?}");
        assert_eq!(json["samples"], 10);
    }
}

/// Each row's task, asked for alone: together they are everything, once.
#[test]
fn the_rows_partition_the_whole() {
    let whole = json(&report(&["-", "--by", "task", "--json"]));
    let rows = whole["tables"][0]["rows"].as_array().expect("rows");
    let mut sum = 0;
    for row in rows {
        let task = row["task"].as_u64().map_or("(outside tasks)".to_owned(), |id| id.to_string());
        let part = json(&report(&["-", "--task", &task, "--json"]));
        assert_eq!(part["matched"]["cpu_ns"], row["self_cpu_ns"], "{row}");
        sum += part["matched"]["cpu_ns"].as_u64().expect("a number");
    }
    assert_eq!((rows.len(), Some(sum)), (4, whole["cpu_ns"].as_u64()));
}

#[test]
fn what_matches_nothing_names_what_is_near() {
    for (filter, said) in [
        (
            &["--task", "GET /rendr"][..],
            r#"no sample has task GET /rendr. The nearest tasks: "GET /render""#,
        ),
        (&["--site", "ap.rs:80"][..], r#"The nearest sites: "src/app.rs:80""#),
        (&["--thread", "wrkr"][..], r#"The nearest threads: "worker [4711]""#),
        (&["--label", "tenant=acm"][..], r#"The nearest values: "acme""#),
        (&["--label", "tennant=acme"][..], r#"The nearest label keys: "tenant""#),
        (&["--function", "rendr"][..], r#"The nearest functions: "app::render""#),
        (
            &["--task", "11", "--label", "tenant=acme"][..],
            "no sample meets all of them: task 11, label tenant=acme",
        ),
    ] {
        let output = report(&[&["-"][..], filter].concat());
        let stderr = error(&output);
        assert!(stderr.contains(said), "{filter:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
    assert!(error(&on(GO, &["-", "--task", "x"])).contains("(outside tasks)"));
}

#[test]
fn rows_that_are_left_out_are_counted() {
    let table = |top| text(&report(&["-", "--by", "function", "--top", top]));
    assert!(table("1").ends_with("app::render\n… and 2 more rows, 40.0 ms self\n"));
    assert!(!table("0").contains("more row") && !table("3").contains("more row"));
    let json = json(&report(&["-", "--by", "function", "--top", "1", "--json"]));
    assert_eq!(json["tables"][0]["rows_left_out"], 2);
}

#[test]
fn profiles_of_others_have_functions_and_say_that_there_are_no_tasks() {
    let text = text(&on(GO, &["-"]));
    assert!(text.contains("tasks: the profile names none"), "{text}");
    assert!(text.contains("labels: task, tenant"), "{text}");
    assert!(!text.contains("Tasks by site"), "{text}");
    assert!(text.contains("88.0%   220 ms  100.0%   250 ms       22  main.spin"), "{text}");
    let labels = text_of(&["-", "--by", "label:tenant"], GO);
    assert!(labels.contains("64.0%   160 ms       16  acme"), "{labels}");
}

#[test]
fn recursion_is_counted_once() {
    let json = json(&report(&["-", "--by", "function", "--json"]));
    let rows = json["tables"][0]["rows"].as_array().expect("rows");
    let walk = rows.iter().find(|row| row["name"] == "app::walk").expect("its row");
    assert_eq!((&walk["total_cpu_ns"], &walk["total_samples"]), (&30_000_000.into(), &3.into()));
    let own: u64 = rows.iter().filter_map(|row| row["self_cpu_ns"].as_u64()).sum();
    assert_eq!(own, 100_000_000);
}

/// The fields of each object in `docs/PROFILE.md`, and those that are there.
#[test]
fn every_field_of_the_json_is_documented() {
    let docs = include_str!("../../../../docs/PROFILE.md");
    let json = json(&report(&["-", "--thread", "worker", "--json"]));
    assert!(docs.contains(&format!("`{}`", json["schema"].as_str().expect("a schema"))));
    for (heading, pointer) in [
        ("The profile", ""),
        ("Lost", "/lost"),
        ("A state", "/states/0"),
        ("Matched", "/matched"),
        ("A table", "/tables/0"),
        ("A row", "/tables/0/rows/0"),
    ] {
        let section = docs.split(&format!("## {heading}\n")).nth(1).expect(heading);
        let section = section.split("\n## ").next().expect("it begins");
        let lines = section.lines().filter_map(|line| line.strip_prefix("| `"));
        let mut documented: Vec<_> = lines.filter_map(|line| line.split('`').next()).collect();
        let object = json.pointer(pointer).and_then(Value::as_object).expect(pointer);
        let mut found: Vec<_> = object.keys().map(String::as_str).collect();
        documented.sort_unstable();
        found.sort_unstable();
        assert_eq!(documented, found, "{heading}");
    }
}

#[test]
fn stacks_and_pictures_are_of_what_matched() {
    let folder = Folder::new("pictures");
    let [svg, folded, firefox, speedscope, tables] =
        ["a.svg", "a.folded", "a.json", "b.json", "tables.json"].map(|name| folder.path(name));
    let output = report(&[
        "-",
        "--task",
        "GET /render",
        "--flamegraph",
        &svg,
        "--folded",
        &folded,
        "--firefox",
        &firefox,
        "--speedscope",
        &speedscope,
        "-o",
        &tables,
    ]);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert_eq!(read(&folded), "GET /render;app::main;app::render 60000000\n");
    let svg = read(&svg);
    assert!(svg.contains("<svg") && svg.contains("app::render") && !svg.contains("app::walk"));
    assert!(serde_json::from_str::<Value>(&read(&firefox)).is_ok_and(|it| it["meta"].is_object()));
    let speedscope: Value = serde_json::from_str(&read(&speedscope)).expect("JSON");
    assert_eq!(speedscope["profiles"][1]["name"], "GET /render");
    assert_eq!(speedscope["profiles"][0]["weights"], serde_json::json!([60_000_000]));
    let tables: Value = serde_json::from_str(&read(&tables)).expect("JSON, by its name");
    assert_eq!(tables["schema"], "pertask.profile/1");
    // Nothing else is left behind.
    assert_eq!(folder.names(), ["a.folded", "a.json", "a.svg", "b.json", "tables.json"]);
}

#[test]
fn folded_stacks_on_stdout_are_alone_there() {
    let output = report(&["-", "--folded", "-", "--root", "site"]);
    let expected = "\
(outside tasks);(incomplete stack);app::main 10000000
src/app.rs:73;app::main;app::walk;app::walk 30000000
src/app.rs:80;app::main;app::render 60000000
";
    assert_eq!(text(&output), expected);
}

#[test]
fn what_cannot_be_read_is_one_line_that_helps() {
    let folder = Folder::new("unreadable");
    let good = pprof(&profile());
    let mut unpacked = Vec::new();
    flate(&good, &mut unpacked);
    let files = [
        ("empty", Vec::new(), "the file is empty"),
        ("cut.pb.gz", good[..good.len() / 2].to_vec(), "begins like gzip and cannot be unpacked"),
        ("cut.pb", unpacked[..unpacked.len() - 3].to_vec(), "cut short or damaged"),
        ("text", b"Thus spoke no profiler.\n".to_vec(), "it is not pprof"),
        ("picture.svg", b"<?xml version=\"1.0\"?><svg/>".to_vec(), "it is not pprof"),
    ];
    for (name, bytes, said) in files {
        let path = folder.path(name);
        fs::write(&path, bytes).expect("to write");
        let stderr = error(&on(b"", &[&path]));
        assert!(stderr.contains(said) && stderr.contains(&path), "{name}: {stderr}");
    }
    let missing = folder.path("missing.pb.gz");
    let stderr = error(&on(b"", &[&missing]));
    assert!(stderr.contains(&missing) && stderr.contains("pertask demo -o"), "{stderr}");
    let stderr = error(&on(b"", &[folder.0.to_str().expect("UTF-8")]));
    assert!(stderr.contains("is a directory. Name a pprof file"), "{stderr}");
    assert!(error(&on(b"", &["-"])).contains("standard input: cannot read"));
}

#[test]
fn endless_input_is_refused_in_bounded_memory() {
    // 1 GB of address space: the limit on what is read is an eighth of that.
    let script = r#"ulimit -v 1000000 && exec "$0" report -"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_pertask")]);
    let zeros = fs::File::open("/dev/zero").expect("zeros");
    let stderr = error(&shell.stdin(zeros).output().expect("sh to run"));
    assert!(stderr.contains("too many unpacked bytes, more than 134217728."), "{stderr}");
}

#[test]
fn an_older_file_is_there_until_the_new_one_is_whole() {
    let folder = Folder::new("older");
    let [file, link] = ["report.txt", "link.txt"].map(|name| folder.path(name));
    fs::write(&file, "older").expect("to write");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("to set");
    symlink("report.txt", &link).expect("a link");

    // No file may grow beyond nothing, as on a full disk.
    let script = r#"trap '' XFSZ; ulimit -f 0 && exec "$0" report - -o "$1""#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_pertask"), &link]);
    let stderr = error(&with(&mut shell, &pprof(&profile())));
    assert!(stderr.contains(&link) && stderr.contains("is as it was"), "{stderr}");
    assert_eq!(read(&file), "older");
    assert_eq!(folder.names(), ["link.txt", "report.txt"]);

    // Nor is there a new file, empty or not.
    let new = folder.path("new.svg");
    let mut shell = Command::new("sh");
    let script = script.replace("-o", "--flamegraph");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_pertask"), &new]);
    let stderr = error(&with(&mut shell, &pprof(&profile())));
    assert!(stderr.contains(&new), "{stderr}");
    assert_eq!(folder.names(), ["link.txt", "report.txt"]);

    let output = report(&["-", "-o", &link]);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(read(&file).contains("GET /render"));
    assert!(fs::symlink_metadata(&link).expect("it is there").is_symlink());
    let mode = fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(folder.names(), ["link.txt", "report.txt"]);
}

/// The process ends at a write, by a signal that nothing can answer in time.
#[test]
fn nothing_is_left_of_a_file_whose_writer_was_killed() {
    let folder = Folder::new("killed");
    let new = folder.path("new.svg");
    let script = r#"ulimit -c 0; ulimit -f 4 && exec "$0" report - --flamegraph "$1""#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_pertask"), &new]);
    let output = with(&mut shell, &pprof(&profile()));
    assert!(output.status.signal().is_some(), "{output:?}");
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn what_cannot_be_written_is_named() {
    for file in ["/nonexistent/report.txt", "/proc/nothing", "/"] {
        let stderr = error(&report(&["-", "-o", file]));
        assert!(stderr.contains(&format!("cannot write {file}: ")), "{stderr}");
    }
}

/// A pipe cannot be replaced by a file. (Nor can a device, but a mistake would be costly if the tests run as root.)
#[test]
fn a_pipe_is_written_to_directly() {
    let folder = Folder::new("pipe");
    let pipe = folder.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let reader = Command::new("timeout")
        .args(["300", "cat", &pipe])
        .stdout(Stdio::piped())
        .spawn()
        .expect("cat");
    let output = report(&["-", "-o", &pipe]);
    if !output.status.success() {
        // Nobody else opens it, and `cat` waits for somebody who does.
        let _ = fs::write(&pipe, "");
    }
    let seen = reader.wait_with_output().expect("to wait");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&seen.stdout).contains("GET /render"));
    assert_eq!(folder.names(), ["pipe"]);
    assert!(text(&report(&["-", "-o", "/proc/self/fd/1"])).contains("GET /render"));
}

#[test]
fn names_in_a_file_steer_no_terminal() {
    let nasty = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}\n";
    let mut profile = profile();
    profile.mechanism = nasty.into();
    for sample in &mut profile.samples {
        sample.task = Some(task(1, Some(nasty), 1, None));
        sample.thread = Some(ThreadRef { tid: 1, name: nasty.into() });
        sample.labels = vec![(nasty.into(), nasty.into())];
        sample.scopes = vec![nasty.into()];
    }
    profile.functions.iter_mut().for_each(|function| {
        (function.name, function.file) = (nasty.into(), format!("{nasty}.rs").into());
    });
    let waits = profile.samples.iter().cloned();
    profile.off_cpu = waits.map(|sample| Sample { state: State::Waiting, ..sample }).collect();
    let file = pprof(&profile);
    let by = ["-", "--by", "site,task,function,place,thread,scope"];
    let label = format!("label:{nasty}");
    for arguments in [
        &by[..],
        &["-", "--by", &label],
        &[&by[..], &["--json"]].concat(),
        &[&by[..], &["--state", "waiting"]].concat(),
        &[&by[..], &["--state", "life"]].concat(),
        &[&by[..], &["--state", "life", "--json"]].concat(),
        &["-", "--task", "x"],
        &["-", "--task", "\u{1b}x"],
        &["-", "--thread", nasty],
        &["-", "--function", "x"],
        &["-", "--label", "x=y"],
    ] {
        let output = on(&file, arguments);
        let all = [output.stdout, output.stderr].map(|out| String::from_utf8(out).expect("UTF-8"));
        let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!all.concat().contains(steers), "{arguments:?}: {all:?}");
    }
}

#[test]
fn usage_errors_exit_with_2_and_teach() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "<FILE>"),
        (&["-", "--by", "tsak"], "site, task, function, place, waker, thread, scope, label:KEY"),
        (&["-", "--by", "label:"], "site, task, function, place, waker, thread, scope, label:KEY"),
        (&["-", "--label", "acme"], "as in tenant=acme"),
        (&["-", "--top", "many"], "--top"),
        (&["-", "--root", "scope"], "task, site, thread"),
        (&["-", "--folded", "-", "--json"], "stdout has room for one"),
        (&["-", "--flamegraph", "-"], "need a file"),
        (&["-", "--speedscope", "-"], "need a file"),
        (&["-", "-o", "profile.pb.gz"], "must not overwrite a profile"),
        (&["-", "--state", "asleep"], "on-cpu, blocked, ready, waiting, life"),
        (&["-", "--limit", "frames"], "NAME=NUMBER is needed"),
        (&["-", "--limit", "frames=many"], "NAME=NUMBER is needed"),
        (&["-", "--limit", "memory=1"], "bytes, part_bytes, samples"),
    ];
    for (arguments, lesson) in cases {
        let output = report(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(lesson), "{arguments:?}: {stderr}");
    }
}

#[test]
fn help_teaches_to_read_the_tables() {
    let help = text(&on(b"", &["--help"]));
    for lesson in [
        "SELF ",
        "TOTAL ",
        "POINTS ",
        "--diff before",
        "--state waiting --by place",
        "waker ",
        "WOKEN BY ",
        "(wait not seen)",
        "recursion is counted once",
        "label:KEY",
        "Exit status",
        "--folded -",
    ] {
        assert!(help.contains(lesson), "{lesson}: {help}");
    }
}

#[test]
fn a_profile_without_samples_is_no_error() {
    let empty = ProfileBuilder::new("by hand", 1).finish(Duration::from_secs(1));
    let text = text_of(&["-"], &pprof(&empty));
    assert!(text.starts_with("0 ns of CPU time in 0 samples"), "{text}");
    assert!(text.ends_with("\nno samples\n"), "{text}");
}

fn amount(count: u64) -> Sample {
    Sample { count, time_ns: count * 10_000_000, ..Sample::default() }
}

fn task(id: u64, name: Option<&str>, line: u32, parent: Option<u64>) -> TaskRef {
    let site = Some(Site { file: "src/app.rs".into(), line });
    TaskRef { id: Some(id), name: name.map(Into::into), site, parent, future: None }
}

fn location(builder: &mut ProfileBuilder, name: &str) -> LocationId {
    let name = builder.text(name);
    let function = builder.function(Function { name, ..Function::default() });
    builder.location(Location { lines: vec![Line { function, line: 1 }], ..Location::default() })
}

fn pprof(profile: &Profile) -> Vec<u8> {
    let mut bytes = Vec::new();
    profile.write_pprof(&mut bytes).expect("memory");
    bytes
}

/// The report of the example, which stdin is.
fn report(arguments: &[&str]) -> Output {
    on(&pprof(&profile()), arguments)
}
