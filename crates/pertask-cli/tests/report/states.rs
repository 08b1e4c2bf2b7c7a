//! Time off the CPU: `--state`, and what a report of CPU time says of it.

use std::{
    fs,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use pertask::profile::{
    Allocation, Function, Line, Location, Profile, ProfileBuilder, Sample, State, TaskRef,
};

use crate::{
    GO, amount, pprof,
    run::{Folder, error, json, on, read, text, text_of},
    task,
};

/// `GET /render` computes for 50 ms and waits for a lock, 30 times or as often as wanted, 20 ms each, which `GET /hash` ends; `GET /hash`
/// waits there, too, for 400 ms, in a tenant's request, and is blocked for 80 ms.
fn profile(waits: u64) -> Profile {
    let mut builder = ProfileBuilder::new("by hand", 10_000_000);
    builder.start(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let mut place = |name: &str, file: &str, line| {
        let (name, file) = (builder.text(name), builder.text(file));
        let function = builder.function(Function { name, file, ..Function::default() });
        let lines = vec![Line { function, line }];
        builder.location(Location { lines, ..Location::default() })
    };
    let main = place("app::main", "src/main.rs", 7);
    let query = place("app::query::{{closure}}", "src/app.rs", 41);
    let lock = place("tokio::sync::Mutex<T>::lock", "/r/registry/src/i/tokio-1.0.0/src/a.rs", 9);
    let words = place("(off the CPU in a poll)", "", 0);
    let [render, hash] = [(11, "GET /render"), (12, "GET /hash")]
        .map(|(id, name)| Some(task(id, Some(name), 80, None)));
    let ms = |state, count, ms: u64| Sample { state, count, time_ns: ms * 1_000_000, ..amount(0) };
    let woken_by = hash.clone().map(|task| TaskRef { id: None, ..task });
    let labels = vec![(builder.text("tenant"), builder.text("acme"))];
    for (sample, task, stack) in [
        (amount(5), &render, &[main][..]),
        (
            Sample { woken_by, ..ms(State::Waiting, waits, waits * 20) },
            &render,
            &[lock, query, main],
        ),
        (Sample { labels, ..ms(State::Waiting, 12, 400) }, &hash, &[lock, query, main]),
        (ms(State::Blocked, 0, 80), &hash, &[words]),
    ] {
        builder.add(Sample { task: task.clone(), stack: stack.to_vec(), ..sample });
    }
    builder.finish(Duration::from_secs(2))
}

fn file() -> Vec<u8> {
    pprof(&profile(30))
}

#[test]
fn allocations_are_shown_and_filtered_though_there_is_no_cpu_time() {
    let mut builder = ProfileBuilder::new("by hand", 10_000_000);
    for (id, name, bytes) in [(1, "GET /a", 5_000), (2, "GET /b", 3_000)] {
        let task = Some(task(id, Some(name), 80, None));
        builder.add_allocation(Allocation { bytes, sample: Sample { task, ..amount(2) } });
    }
    let file = pprof(&builder.finish(Duration::from_secs(2)));
    let report = text_of(&["-", "--task", "GET /b"], &file);
    assert!(report.contains("Places of allocations (% of 2.93 KiB)"), "{report}");
    let json = json(&on(&file, &["-", "--json"]));
    let bytes: Vec<_> =
        json["allocations"].as_array().unwrap().iter().map(|row| &row["bytes"]).collect();
    assert_eq!(bytes, [8_000]);
}

/// Whoever holds the lock that a wait is for has not ended it.
#[test]
fn holders_of_locks_have_rows_of_their_own_kind() {
    let mut builder = ProfileBuilder::new("by hand", 10_000_000);
    let [waits, holds] = [(1, "GET /a"), (2, "GET /b")]
        .map(|(id, name)| Some(TaskRef { id: None, ..task(id, Some(name), 80, None) }));
    let wait = Sample { task: waits, state: State::Waiting, time_ns: 7_000_000, ..amount(0) };
    builder.add(Sample { woken_by: holds.clone(), ..wait.clone() });
    builder.add(Sample { held_by: holds, time_ns: 5_000_000, ..wait });
    let file = pprof(&builder.finish(Duration::from_secs(2)));
    let arguments = ["-", "--state", "waiting", "--by", "waker"];
    let text = text_of(&arguments, &file);
    assert!(text.contains("GET /a  GET /b\n") && text.contains("holds lock: GET /b"), "{text}");
    let json = json(&on(&file, &[&arguments[..], &["--json"]].concat()));
    let rows = json["tables"][0]["rows"].as_array().unwrap().iter();
    let rows: Vec<_> = rows
        .map(|row| (row["kind"].as_str(), row["name"].as_str(), row["self_ns"].as_u64()))
        .collect();
    let of = |kind, ns| (Some(kind), Some("GET /b"), Some(ns));
    assert_eq!(rows, [of("waker", 7_000_000), of("holder", 5_000_000)]);
}

#[test]
fn a_report_of_cpu_time_says_what_else_there_is() {
    let line = "not shown: 80.0 ms of blocked time, 1.00 s of waiting time; pertask report --state waiting shows where (or ready, blocked, life)";
    let report = text_of(&["-"], &file());
    assert!(report.lines().any(|it| it == line), "{report}");
    assert!(report.contains("Tasks by site (% of 50.0 ms)\n  CPU%      CPU  SAMPLES  TASK"));
    // Who asks for it knows, and where there is nothing else, nothing is said.
    assert!(!text_of(&["-", "--state", "on-cpu"], &file()).contains("not shown"));
    assert!(!text_of(&["-", "--state", "waiting"], &file()).contains("not shown"));
    assert!(!text_of(&["-"], GO).contains("not shown"));
}

#[test]
fn waiting_time_is_shown_by_site_and_place() {
    let expected = "\
1.00 s of waiting time in 42 waits over 2.00 s: 0.50 tasks waiting on average
from 2023-11-14 22:13:20 UTC; all stacks whole
labels: tenant

Tasks by site (% of 1.00 s of waiting time)
WAITING%  WAITING  WAITS  TASK         SITE
   60.0%   600 ms     30  GET /render  src/app.rs:80
   40.0%   400 ms     12  GET /hash    src/app.rs:80

Places (% of 1.00 s of waiting time)
WAITING%  WAITING  WAITS  PLACE                        AT
  100.0%   1.00 s     42  tokio::sync::Mutex<T>::lock  src/app.rs:41
";
    assert_eq!(text_of(&["-", "--state", "waiting"], &file()), expected);
    let part = text_of(&["-", "--state", "waiting", "--task", "GET /hash"], &file());
    assert!(part.contains("matched: 400 ms (40.0%) in 12 waits: task GET /hash"), "{part}");
    assert!(part.contains("  100.0%   400 ms     12  GET /hash  tokio::sync"), "{part}");
    let wakers = "\
Who ends waits (% of 1.00 s of waiting time)
WAITING%  WAITING  WAITS  TASK         WOKEN BY
   60.0%   600 ms     30  GET /render  GET /hash
   40.0%   400 ms     12  GET /hash    (no task)
";
    let by_waker = text_of(&["-", "--state", "waiting", "--by", "waker"], &file());
    assert_eq!(by_waker.split_once("\n\n").map(|(_, table)| table), Some(wakers));
    let functions = text_of(&["-", "--state", "waiting", "--by", "function"], &file());
    assert!(
        functions.contains("100.0%  1.00 s  100.0%  1.00 s     42  tokio::sync::Mutex<T>::lock"),
        "{functions}"
    );
}

#[test]
fn whole_types_are_shown_of_tasks_that_wait_too() {
    let mut profile = profile(30);
    let future: Arc<str> = "app::Session<app::Http>".into();
    let (name, task) = ("~app::Session".into(), task(11, None, 80, None));
    let task = Some(TaskRef { name: Some(name), future: Some(future), ..task });
    profile.off_cpu.iter_mut().for_each(|sample| sample.task = task.clone());
    let file = pprof(&profile);
    let waiting = ["-", "--state", "waiting", "--by", "site"];
    assert!(text_of(&waiting, &file).contains("1.00 s     42  ~app::Session  src"));
    let whole = text_of(&[&waiting[..], &["--full-names"]].concat(), &file);
    assert!(whole.contains("1.00 s     42  ~app::Session<app::Http>  src"), "{whole}");
}

#[test]
fn lives_are_shown_state_by_state() {
    let expected = "\
1.13 s in all states over 2.00 s: 50.0 ms of CPU time, 80.0 ms of blocked time, 1.00 s of waiting time
from 2023-11-14 22:13:20 UTC; by hand; a sample each 10.0 ms of CPU time; all stacks whole
labels: tenant

Tasks by site: whole lives (% of each row)
  LIFE  ON CPU  BLOCKED  READY  WAITING                        TASK         SITE
650 ms    7.7%        -      -    92.3%  ██░░░░░░░░░░░░░░░░░░  GET /render  src/app.rs:80
480 ms       -    16.7%      -    83.3%  ▓▓▓░░░░░░░░░░░░░░░░░  GET /hash    src/app.rs:80
█ on cpu  ▓ blocked  ▒ ready  ░ waiting
";
    assert_eq!(text_of(&["-", "--state", "life"], &file()), expected);
    let part = text_of(&["-", "--state", "life", "--task", "GET /hash"], &file());
    let matched =
        "matched: 480 ms (42.5%): task GET /hash: 80.0 ms of blocked time, 400 ms of waiting time";
    assert!(part.lines().any(|line| line == matched), "{part}");
}

#[test]
fn a_file_without_such_time_says_what_it_has() {
    let message = |output| error(&output);
    let go = message(on(GO, &["-", "--state", "waiting"]));
    assert_eq!(
        go,
        "pertask: standard input has no waiting time: it has 250 ms of CPU time. Programs record where their tasks wait with SamplerOptions { waits: true, .. }.\n"
    );
    assert!(message(on(GO, &["-", "--state", "life"])).contains("has no time off the CPU"));
    // A file that was recorded so needs no advice.
    let ready = message(on(&file(), &["-", "--state", "ready"]));
    assert_eq!(
        ready,
        "pertask: standard input has no ready time: it has 50.0 ms of CPU time, 80.0 ms of blocked time, 1.00 s of waiting time\n"
    );
    let elsewhere = message(on(&file(), &["-", "--task", "GET /hash"]));
    assert!(
        elsewhere.contains("there is no CPU time with task GET /hash, but there is 80.0 ms of blocked time, 400 ms of waiting time"),
        "{elsewhere}"
    );
    let nothing = message(on(&file(), &["-", "--state", "life", "--task", "GET /hsh"]));
    assert!(nothing.contains(r#"The nearest tasks: "GET /hash""#), "{nothing}");
}

#[test]
fn json_says_what_the_time_is() {
    let of =
        |state: &[&str]| json(&on(&file(), &[&["-", "--json", "--by", "place"], state].concat()));
    let cpu = of(&[]);
    assert_eq!((&cpu["state"], &cpu["time_ns"]), (&"on-cpu".into(), &cpu["cpu_ns"]));
    let states = serde_json::json!([
        { "state": "on-cpu", "time_ns": 50_000_000 },
        { "state": "blocked", "time_ns": 80_000_000 },
        { "state": "ready", "time_ns": 0 },
        { "state": "waiting", "time_ns": 1_000_000_000 },
    ]);
    let waiting = of(&["--state", "waiting", "--task", "GET /hash"]);
    assert_eq!((&cpu["states"], &waiting["states"]), (&states, &states));
    assert_eq!((&waiting["state"], &waiting["samples"]), (&"waiting".into(), &42.into()));
    assert_eq!((&waiting["time_ns"], &waiting["cpu_ns"]), (&1_000_000_000.into(), &0.into()));
    assert_eq!(
        (&waiting["matched"]["time_ns"], &waiting["matched"]["cpu_ns"]),
        (&400_000_000.into(), &0.into())
    );
    let row = &waiting["tables"][0]["rows"][0];
    for (field, value) in [
        ("kind", "place".into()),
        ("name", "tokio::sync::Mutex<T>::lock".into()),
        ("file", "src/app.rs".into()),
        ("line", 41.into()),
        ("task_name", "GET /hash".into()),
        ("self_ns", 400_000_000.into()),
        ("self_waiting_ns", 400_000_000.into()),
        ("self_cpu_ns", 0.into()),
        ("self_samples", serde_json::Value::from(12)),
    ] {
        assert_eq!(row[field], value, "{field}");
    }
    let blocked = of(&["--state", "blocked"]);
    assert_eq!(
        (&blocked["samples"], &blocked["time_ns"]),
        (&serde_json::Value::Null, &80_000_000.into())
    );
    let life = json(&on(&file(), &["-", "--json", "--state", "life"]));
    assert_eq!(
        (&life["state"], &life["time_ns"], &life["cpu_ns"]),
        (&"life".into(), &1_130_000_000.into(), &50_000_000.into())
    );
    // Only a wait has a label.
    let keys = [&life, &waiting, &cpu].map(|shown| shown["label_keys"].to_string());
    assert_eq!(keys, [r#"["tenant"]"#, r#"["tenant"]"#, "[]"]);
    let row = &life["tables"][0]["rows"][1];
    assert_eq!(
        (&row["self_ns"], &row["self_blocked_ns"], &row["total_waiting_ns"]),
        (&480_000_000.into(), &80_000_000.into(), &400_000_000.into())
    );
}

#[test]
fn pictures_and_stacks_are_of_the_state() {
    let folder = Folder::new("states");
    let [svg, folded, firefox, speedscope] =
        ["a.svg", "a.folded", "a.json", "b.speedscope.json"].map(|name| folder.path(name));
    let stack =
        "GET /hash;app::main;app::query::{{closure}};tokio::sync::Mutex<T>::lock 400000000\n";
    let waiting = ["-", "--state", "waiting", "--task", "GET /hash"];
    let output = on(&file(), &[&waiting[..], &["--folded", "-"]].concat());
    assert_eq!(text(&output), stack);
    // The end of the name says what is written, and then no tables are.
    for (path, has) in
        [(&svg, ">Waiting time by task<"), (&folded, stack), (&speedscope, "All tasks (waiting)")]
    {
        let output = on(&file(), &[&waiting[..], &["-o", path]].concat());
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(read(path).contains(has), "{path}");
    }
    let life =
        ["-", "--state", "life", "--flamegraph", &svg, "--folded", &folded, "--firefox", &firefox];
    assert!(on(&file(), &life).status.success());
    assert!(
        read(&svg).contains(">Whole lives by task: time on the CPU, blocked, ready and waiting<")
    );
    assert!(read(&folded).contains("GET /render;on-cpu;app::main 50000000\n"));
    assert!(read(&firefox).contains("GET /hash (blocked)"));
    // Without a state, viewers that tell states apart get all of them.
    assert!(on(&file(), &["-", "--firefox", &firefox, "--flamegraph", &svg]).status.success());
    assert!(
        read(&firefox).contains("GET /hash (waiting)") && read(&svg).contains(">CPU time by task<")
    );
    assert!(on(&file(), &["-", "--state", "on-cpu", "--firefox", &firefox]).status.success());
    assert!(!read(&firefox).contains("(waiting)"));
}

#[test]
fn waits_are_compared() {
    let folder = Folder::new("waits-compared");
    let paths = ["before.pb.gz", "after.pb.gz"].map(|name| folder.path(name));
    for (path, waits) in paths.iter().zip([300, 600]) {
        fs::write(path, pprof(&profile(waits))).expect("to write");
    }
    let [before, after] = &paths;
    let compare = |state: &str, more: &[&str]| {
        on(b"", &[&["--diff", before, after, "--state", state], more].concat())
    };
    let said = text(&compare("waiting", &[]));
    assert!(
        said.contains("waiting time per second of recording: 3.20 s before, 6.20 s after: +93.8%"),
        "{said}"
    );
    assert!(
        said.contains("Tasks by site (waiting time per second; % of 6.40 s and 12.4 s)"),
        "{said}"
    );
    assert!(said.contains("300 → 600  GET /render"), "{said}");
    assert!(
        said.contains("Places (waiting time per second") && said.contains("src/app.rs:41"),
        "{said}"
    );
    let blocked = text(&compare("blocked", &["--top", "0"]));
    assert!(
        blocked.contains("noise cannot be judged: blocked time is measured, and not counted"),
        "{blocked}"
    );
    let json = json(&compare("waiting", &["--json"]));
    assert_eq!((&json["state"], &json["noise_is_judged"]), (&"waiting".into(), &true.into()));
    let row = &json["tables"][0]["rows"][0];
    assert_eq!((&row["after_ns"], &row["after_cpu_ns"]), (&12_000_000_000_u64.into(), &0.into()));
    let svg = folder.path("growth.svg");
    assert!(compare("waiting", &["-o", &svg]).status.success());
    assert!(read(&svg).contains(">Growth of waiting time by task<"));
    let life = compare("life", &[]);
    assert_eq!(life.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&life.stderr).contains("--diff compares one state"));
    let missing = error(&compare("ready", &[]));
    assert!(missing.contains(&format!("{before} has no ready time")), "{missing}");
}
