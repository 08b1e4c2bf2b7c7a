//! The command as its users meet it: the built binary, its streams, its exit status.

mod support;

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use pertask::profile::{Profile, Sample};
use serde_json::Value;
use support::{NEVER_OVER, ROUTES, Running, after_requests, ask};

/// So many requests to each route use the CPU for a second, and are met by some hundred samples.
const REQUESTS: usize = 40;

/// What the process may use while its parts are read, one after the other: whoever reads waits for its turn, on a busy machine.
const READING_NS: u64 = 100_000_000;

#[test]
fn every_route_has_a_row_of_its_own() {
    let report = json(&demo(3, &["--json"]));
    for route in ROUTES {
        let row = site(&report, route);
        assert!(number(row, "cpu_ns") > 0, "{route}: {row}");
        assert!(number(row, "tasks_started") >= 3, "{route}: {row}");
        assert!(number(row, "polls") >= number(row, "tasks_started"), "{route}: {row}");
    }
}

#[test]
fn the_parts_add_up_to_the_process() {
    let report = json(&demo(REQUESTS, &["--json"]));
    let parts @ [_, workers, other] =
        ["tasks_cpu_ns", "workers_cpu_ns", "other_cpu_ns"].map(|part| number(&report, part));
    let threads = report["threads"].as_array().expect("threads");
    let of_threads = |field| threads.iter().map(|thread| number(thread, field)).sum::<u64>();
    assert_eq!(workers + other + of_threads("tasks_cpu_ns"), of_threads("cpu_ns"), "{report}");

    let (told, process) = (parts.iter().sum::<u64>(), number(&report, "process_cpu_ns"));
    assert!(process > 10 * READING_NS, "too little to judge: {process} ns");
    assert!(told.abs_diff(process) <= process / 100 + READING_NS, "{parts:?} of {process}");
}

#[test]
fn the_rows_tell_the_routes_apart() {
    let report = json(&demo(10, &["--json"]));
    let [hash, wait, blocking] =
        ["GET /hash", "GET /wait", "GET /blocking"].map(|name| site(&report, name));

    let of_a_task = |row| number(row, "cpu_ns") / number(row, "tasks_started");
    assert!(of_a_task(hash) > 5 * of_a_task(wait), "{hash} {wait}");
    // /blocking sleeps for 15 ms inside one poll, and sleeping costs no CPU.
    assert!(number(blocking, "max_poll_ns") >= 15_000_000, "{blocking}");
    assert!(number(blocking, "wall_ns") > 5 * number(blocking, "cpu_ns"), "{blocking}");
    // /wait sleeps as long, but in async code: it is polled when it starts and when it wakes.
    assert!(number(wait, "polls") >= number(wait, "tasks_started") + 10, "{wait}");
}

#[test]
fn child_tasks_have_a_row_by_site_and_the_clients_connections_by_name() {
    let report = json(&demo(3, &["--json"]));
    let of_children = |row: &&Value| {
        row["name"].is_null() && row["file"].as_str().is_some_and(|f| f.ends_with("routes.rs"))
    };
    let children = sites(&report).iter().find(of_children);
    let children = children.unwrap_or_else(|| panic!("no row of child tasks: {report}"));
    assert!(number(children, "cpu_ns") > 0, "{children}");
    assert!(number(site(&report, "client connection"), "cpu_ns") > 0, "{report}");
}

#[test]
fn the_table_is_plain_text_where_stdout_is_no_terminal() {
    let output = demo(3, &[]);
    let table = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(table.contains("GET /hash") && table.ends_with('\n'), "{table}");
    assert!(!table.contains('\x1b'), "{table:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains('\x1b') && !stderr.contains('\r'), "{stderr:?}");
    assert!(stderr.contains("none failed"), "{stderr}");
}

#[test]
fn callers_cannot_invent_rows() {
    let mut demo = start(&["demo", "--duration", NEVER_OVER, "--json"]);
    let address = demo.wait_for("serving on http://");
    demo.wait_for("measuring");
    for invented in ["FLUSH /hash", "POST /hash", "GET /a/b?c", "GET //hash"] {
        let answer = ask(&address, invented);
        assert!(answer.starts_with("HTTP/1.1 40"), "{answer}");
    }
    demo.signal(libc::SIGINT);
    let report = json(&demo.finish());
    assert_eq!(number(site(&report, "no such route"), "tasks_started"), 4);
    let ours = ["no such route", "client", "client connection", "accept connections"];
    let known = [&ROUTES[..], &ours].concat();
    for name in sites(&report).iter().filter_map(|row| row["name"].as_str()) {
        assert!(known.contains(&name), "{name}");
    }
}

#[test]
fn an_interrupt_ends_the_run_with_a_report() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut demo = start(&["demo", "--duration", NEVER_OVER, "--json"]);
        demo.wait_for("measuring");
        demo.signal(signal);
        let report = json(&demo.finish());
        assert!(number(&report, "duration_ns") < 600_000_000_000, "{report}");
        assert_eq!(report["schema"], "pertask.report/1");
    }
}

#[test]
fn a_second_interrupt_quits_at_once() {
    let mut demo = start(&["demo", "--duration", NEVER_OVER]);
    let address = demo.wait_for("serving on http://");
    // A request that never ends holds up the orderly shutdown, so that the second signal falls into it.
    let mut stalled =
        TcpStream::connect(address.parse::<SocketAddr>().expect("an address")).expect("to connect");
    stalled.write_all(b"GET /wait HTTP/1.1\r\nHost:").expect("to send");

    demo.wait_for("measuring");
    demo.signal(libc::SIGINT);
    demo.wait_for("stopping early");
    demo.signal(libc::SIGINT);
    let output = demo.finish();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn usage_errors_exit_with_2_and_teach() {
    let cases: &[(&[&str], &str)] = &[
        (&["demo", "--duration", "0"], "a plain number means seconds"),
        (&["demo", "--duration", "-5s"], "a plain number means seconds"),
        (&["demo", "--duration", "soon"], "a plain number means seconds"),
        (&["demo", "--event", "cache-missus"], "cycles, instructions, cache-references"),
        (&["demo", "-e", "cpu-time,nonsense"], "cycles, instructions, cache-references"),
        (&["demo", "--clients", "0"], "1..=256"),
        (&["demo", "--port", "70000"], "0..=65535"),
        (&["demo", "surprise"], "surprise"),
        (&["dmeo"], "demo"),
        (&[], "Usage: pertask"),
    ];
    for (arguments, lesson) in cases {
        let output = run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(lesson), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn events_may_be_repeated_and_listed() {
    let output = run(&["demo", "-d", "100ms", "-e", "cpu-time,cpu-time", "-e", "cpu-time"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("measuring cpu-time for 100ms"), "{stderr}");
}

#[test]
fn a_tree_has_the_children_below_the_route_that_spawned_them() {
    let output = demo(3, &["--tree"]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    let (_, tree) = text.split_once("Tasks by spawn path").expect("the tree");
    let lines: Vec<_> = tree.lines().collect();
    let route = lines.iter().position(|line| line.contains("GET /fanout")).expect("its row");
    assert!(lines[route + 1].contains("routes.rs"), "{tree}");
    let report = json(&demo(3, &["--json"]));
    let rows = report["tree"].as_array().expect("rows");
    let fanout = rows.iter().find(|row| row["name"] == "GET /fanout").expect("its row");
    let child = rows.iter().find(|row| row["parent"] == fanout["id"]).expect("its children's row");
    assert!(number(child, "cpu_ns") > 0 && number(child, "tasks_started") > 0, "{child}");
    let inclusive = number(fanout, "cpu_ns") + number(child, "inclusive_cpu_ns");
    assert_eq!(number(fanout, "inclusive_cpu_ns"), inclusive);
}

#[test]
fn waits_are_shown_to_those_who_ask() {
    let report = json(&demo(3, &["--wake-latency", "--json"]));
    let waits = &site(&report, "GET /wait")["wakes"];
    assert!(number(waits, "count") >= 3 && number(waits, "p50_ns") > 0, "{waits}");
    let output = demo(3, &["--wake-latency"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Waits between wake and poll"), "{text}");
}

#[test]
fn lives_are_shown_to_those_who_ask() {
    let report = json(&demo(3, &["--life", "--json"]));
    let of = |name: &str, part: &str| number(&site(&report, name)["life"], part);
    // Its timer takes 5 ms of each request, and nearly nothing else does.
    assert!(of("GET /wait", "waiting_ns") > of("GET /wait", "on_cpu_ns"), "{report}");
    assert!(of("GET /blocking", "blocked_ns") > of("GET /blocking", "on_cpu_ns"), "{report}");
    assert_eq!(of("GET /hash", "on_cpu_ns"), number(site(&report, "GET /hash"), "cpu_ns"));
    let folded = Scratch::new("life.folded");
    let output = demo(3, &["--life", "-o", folded.text()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("life.folded has CPU time alone; not in it: "), "{stderr}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Lives of tasks by spawn site"), "{text}");
    let waits = text.split("Places").nth(1).expect("where tasks wait");
    let timer = waits.lines().find(|line| line.contains("GET /wait")).expect("its timer");
    assert!(timer.contains("Sleep") && timer.contains("routes.rs:"), "{text}");
    assert!(text.contains("Polls that blocked their worker"), "{text}");
    assert!(site(&json(&demo(1, &["--json"])), "GET /hash")["life"].is_null());
}

#[test]
fn blocked_workers_are_shown_to_those_who_ask() {
    let report = json(&demo(3, &["--blocked=5ms", "--json"]));
    let blocked = &report["blocked"];
    assert_eq!(number(blocked, "threshold_ns"), 5_000_000);
    let rows = blocked["rows"].as_array().expect("rows");
    let of_route = |row: &&Value| row["name"] == "GET /blocking" && row["state"] == "blocked";
    let row = rows.iter().find(of_route).unwrap_or_else(|| panic!("no such row: {blocked:#}"));
    assert_eq!(row["call"], "clock_nanosleep", "{row:#}");
    let has_place = |row: &&Value| of_route(row) && !row["place"].is_null();
    let row = rows.iter().find(has_place).unwrap_or_else(|| panic!("no place: {blocked:#}"));
    let place = &row["place"];
    let (file, function) = (place["file"].as_str(), place["function"].as_str());
    assert!(file.is_some_and(|file| file.ends_with("src/demo/routes.rs")), "{row:#}");
    assert!(function.is_some_and(|function| function.contains("blocking")), "{row:#}");
    let output = demo(3, &["--blocked"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Polls that blocked their worker for 10.0 ms or longer"), "{text}");
    let output = demo(3, &["--json"]);
    assert!(json(&output)["blocked"].is_null());
}

#[test]
fn memory_is_counted_for_those_who_ask() {
    let report = json(&demo(3, &["--memory", "--json"]));
    let render = &site(&report, "GET /render")["memory"];
    let (bytes, calls) = (number(render, "allocated_bytes"), number(render, "allocations"));
    // Each request builds and drops thousands of strings.
    assert!(calls > 3_000 && bytes > 8 * calls, "{render}");
    assert!(number(render, "frees") > 3_000, "{render}");
    let part = |part: &str| number(&report["memory"][part], "allocated_bytes");
    let parts = ["tasks", "unknown", "workers", "other"].map(part);
    assert_eq!(parts.iter().sum::<u64>(), part("process"));
    let output = demo(3, &["--memory"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Memory by spawn site"), "{text}");
    let report = json(&demo(3, &["--json"]));
    assert!(report["memory"].is_null() && report["memory_source"].is_null());
}

#[test]
fn help_teaches() {
    for (arguments, lessons) in [
        (&["--help"][..], ["pertask demo", "pertask::Session::start()", "Exit status"]),
        (&["demo", "--help"][..], ["MAX POLL", "--duration 30s", "Exit status"]),
    ] {
        let output = run(arguments);
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success());
        for lesson in lessons {
            assert!(help.contains(lesson), "{lesson}: {help}");
        }
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let output = run(&["demo", "--port", &port]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains(&format!("127.0.0.1:{port}")) && stderr.contains("--port 0"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn one_run_gives_a_table_and_a_profile_in_each_format() {
    let files = ["p.pb.gz", "p.svg", "p.folded", "p.json", "p.speedscope.json"].map(Scratch::new);
    // Nothing of the old file remains.
    fs::write(&files[2].0, "x".repeat(1 << 20)).expect("to write");
    let mut arguments = vec!["-F", "999"];
    arguments.extend(files.iter().flat_map(|file| ["-o", file.text()]));
    let output = demo(REQUESTS, &arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("GET /wait"), "{output:?}");
    assert!(stderr.contains("with whole stacks"), "{stderr}");
    let [pprof, svg, folded, firefox, speedscope] =
        files.map(|file| fs::read(&file.0).expect("a file"));

    let profile = Profile::from_pprof(&pprof[..]).expect("pprof");
    let of_hash = |sample: &&Sample| {
        sample.task.as_ref().and_then(|t| t.name.as_deref()) == Some("GET /hash")
    };
    let tasks: BTreeSet<_> =
        profile.samples.iter().filter(of_hash).filter_map(|s| s.task.as_ref()?.id).collect();
    assert!(tasks.len() > 10, "each request is a task: {tasks:?}");
    assert!(String::from_utf8_lossy(&svg).contains("GET /hash"));
    let tracks: Value = serde_json::from_slice(&firefox).expect("JSON");
    assert!(tracks["threads"].as_array().is_some_and(|tracks| tracks.len() > 4), "{tracks}");
    let profiles: Value = serde_json::from_slice(&speedscope).expect("JSON");
    let names = profiles["profiles"].as_array().expect("profiles");
    assert!(names.iter().any(|it| it["name"] == "GET /render"), "{profiles}");

    // Each route's own functions stand under that route: most of its time, and no other's.
    let folded = String::from_utf8(folded).expect("UTF-8");
    for (route, function) in [("GET /hash", "routes::hash"), ("GET /render", "routes::render")] {
        let (inside, whole) = (weight(&folded, route, function), weight(&folded, route, ""));
        assert!(
            inside * 10 > whole * 8,
            "{inside} of {whole} ns of {route} in {function}:\n{folded}"
        );
    }
    assert_eq!(weight(&folded, "GET /render", "routes::hashed"), 0, "{folded}");
    // The worker that polls a route is not a part of it. (Its functions that routes call, to wake others, are.)
    let thread = "__rust_begin_short_backtrace";
    assert!(
        !folded.lines().any(|line| line.starts_with("GET ") && line.contains(thread)),
        "{folded}"
    );
    assert!(folded.lines().any(|line| line.contains(thread)), "{folded}");
}

/// The weight of the stacks that grow from `root` and have `function` in them.
fn weight(folded: &str, root: &str, function: &str) -> u64 {
    let of_root = folded.lines().filter_map(|line| line.strip_prefix(root)?.strip_prefix(';'));
    let stacks = of_root.filter_map(|line| line.rsplit_once(' '));
    stacks
        .filter(|(stack, _)| stack.contains(function))
        .map(|(_, weight)| weight.parse::<u64>().expect("a number"))
        .sum()
}

#[test]
fn an_unwritable_file_costs_no_run() {
    let output = run(&["demo", "--duration", NEVER_OVER, "--output", "/nonexistent/profile.pb.gz"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("/nonexistent/profile.pb.gz") && stderr.contains("writable"),
        "{stderr}"
    );
}

#[test]
fn a_full_disk_costs_neither_the_report_nor_the_other_files() {
    let (full, other) = (Scratch::new("full.folded"), Scratch::new("other.folded"));
    std::os::unix::fs::symlink("/dev/full", &full.0).expect("a link");
    let output = demo(10, &["-o", full.text(), "-o", other.text()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!("cannot write {}", full.text())), "{stderr}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("GET /wait"), "{output:?}");
    assert!(fs::read_to_string(&other.0).expect("a file").contains("GET /hash"), "{stderr}");
}

/// In a mount namespace of its own, so that the file system goes away with the command.
#[test]
fn a_full_disk_keeps_old_files_and_leaves_no_new_ones() {
    let place = Scratch::new("place");
    fs::create_dir_all(&place.0).expect("a folder");
    let script = r#"
        mount -t tmpfs -o size=16k pertask-test "$1" && cd "$1" && printf older > old.folded || exit 77
        "$0" demo -d 500ms -F 999 -o new.folded -o old.folded > /dev/null
        echo "status $?"; ls -A; cat old.folded"#;
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_pertask"), place.text()]);
    let output = match shell.output() {
        Ok(output) if output.stdout.starts_with(b"status") => output,
        refused => {
            let _ = writeln!(std::io::stderr(), "SKIPPED: no tmpfs can be mounted: {refused:?}");
            return;
        }
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "status 1\nold.folded\nolder", "{stderr}");
    assert!(stderr.contains("cannot write new.folded: No space left on device"), "{stderr}");
}

/// Its reader sees no end before the profile.
#[test]
fn a_pipe_has_the_whole_profile() {
    let pipe = Scratch::new("pipe.folded");
    assert!(Command::new("mkfifo").arg(&pipe.0).status().expect("mkfifo").success());
    let reader = Command::new("timeout")
        .args(["300", "cat", pipe.text()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("cat");
    let output = run(&["demo", "-d", "300ms", "-o", pipe.text()]);
    assert!(output.status.success(), "{output:?}");
    let read = reader.wait_with_output().expect("to wait");
    assert!(String::from_utf8_lossy(&read.stdout).contains("GET /hash"), "{read:?}");
}

#[test]
fn a_run_that_fails_leaves_no_file() {
    let file = Scratch::new("unmeasured.svg");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let output = run(&["demo", "--port", &port, "-o", file.text()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!file.0.exists());
}

#[test]
fn a_link_that_leads_nowhere_stays_a_link() {
    let link = Scratch::new("link.folded");
    std::os::unix::fs::symlink("linked.folded", &link.0).expect("a link");
    let output = run(&["demo", "-d", "200ms", "-o", link.text()]);
    assert!(output.status.success(), "{output:?}");
    assert!(fs::symlink_metadata(&link.0).expect("it is there").is_symlink());
    assert!(fs::metadata(link.0.with_file_name("linked.folded")).expect("a file").is_file());
}

#[test]
fn a_service_that_cannot_answer_is_not_measured() {
    let script = r#"ulimit -n 64 && exec "$0" demo --clients 64 --json"#;
    let shell = Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_pertask")]).output();
    let output = shell.expect("sh to run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("nothing was measured") && stderr.contains("ulimit -n"), "{stderr}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut demo = start(&["demo", "--duration", "200ms"]);
    drop(demo.child.stdout.take());
    let output = demo.finish();
    assert!(output.status.success(), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panic"), "{output:?}");
}

#[test]
fn a_closed_stderr_does_not_cost_the_report() {
    let mut demo = start(&["demo", "--duration", "200ms", "--json"]);
    drop(demo.stderr.take());
    let report = json(&demo.finish());
    assert!(number(&report, "duration_ns") >= 200_000_000, "{report}");
}

fn pertask(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pertask"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn start(arguments: &[&str]) -> Running {
    Running::start(&mut pertask(arguments))
}

/// What the demo says after so many requests of ours to each route.
fn demo(requests: usize, arguments: &[&str]) -> Output {
    after_requests(requests, pertask(&["demo"]).args(arguments))
}

fn run(arguments: &[&str]) -> Output {
    pertask(arguments).output().expect("pertask to run")
}

fn json(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn sites(report: &Value) -> &[Value] {
    report["sites"].as_array().expect("sites")
}

fn site<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut rows = sites(report).iter().filter(|row| row["name"] == name);
    let row = rows.next().unwrap_or_else(|| panic!("no row for {name}: {report:#}"));
    assert!(rows.next().is_none(), "two rows for {name}: {report:#}");
    row
}

fn number(object: &Value, field: &str) -> u64 {
    object[field].as_u64().unwrap_or_else(|| panic!("no number {field}: {object}"))
}

/// A file of this test process, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("pertask-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder.join(name))
    }

    fn text(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(folder) = self.0.parent() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}
