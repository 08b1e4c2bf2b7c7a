//! The commands that ask a running program's agent, on `pertask demo --serve`.

mod support;

use std::{
    fs::{self, DirBuilder},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use pertask::profile::{Profile, TaskRef};
use serde_json::Value;
use support::{ROUTES, Running, ask, loudly};

const PERTASK: &str = env!("CARGO_BIN_EXE_pertask");

/// The demo with its agent, in a folder of its own.
struct Demo {
    folder: PathBuf,
    running: Running,
    /// Where it serves, and where its endpoints are.
    service: String,
    endpoints: String,
}

impl Demo {
    fn start(name: &str) -> Self {
        let folder = folder(name);
        let mut running = Running::start(&mut command(&folder, &["demo", "--serve"]));
        let line = running.wait_for("serving on http://");
        let service = line.split(' ').next().expect("an address").to_owned();
        let line = running.wait_for("  go tool pprof 'http://");
        let endpoints = line.split('/').next().expect("an address").to_owned();
        Self { folder, running, service, endpoints }
    }

    fn pid(&self) -> String {
        self.running.child.id().to_string()
    }

    /// Runs a command on it. `PID` stands for its process id.
    fn command(&self, arguments: &[&str]) -> Command {
        let pid = self.pid();
        let given = |it: &&str| if *it == "PID" { pid.clone() } else { (*it).to_owned() };
        let arguments: Vec<String> = arguments.iter().map(given).collect();
        command(&self.folder, &arguments)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("to run")
    }

    /// Runs a command on it that must succeed.
    fn told(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn told_json(&self, arguments: &[&str]) -> Value {
        json(&self.told(arguments))
    }

    /// Runs `pertask stat` while it answers each of its requests at least once, then ends it by Ctrl-C.
    fn measured(&self, arguments: &[&str]) -> String {
        let mut stat = Running::start(&mut self.command(arguments));
        stat.wait_for("measuring");
        for route in ROUTES {
            assert!(ask(&self.service, route).starts_with("HTTP/1.1 200"), "{route}");
        }
        stat.signal(libc::SIGINT);
        let output = stat.finish();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Gets a path from its endpoints: the head, and the body.
    fn get(&self, path: &str) -> (String, Vec<u8>) {
        self.get_as(path, "")
    }

    /// As [`get`](Self::get), with more headers.
    fn get_as(&self, path: &str, headers: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.endpoints).expect("to connect");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.endpoints)
            .expect("to ask");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("to read");
        let end = answer.windows(4).position(|it| it == b"\r\n\r\n").expect("a head") + 4;
        (String::from_utf8_lossy(&answer[..end]).into_owned(), answer[end..].to_vec())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.running.child.kill();
        let _ = self.running.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("pertask-agent-{}-{name}", std::process::id()))
}

fn command(folder: &Path, arguments: &[impl AsRef<std::ffi::OsStr>]) -> Command {
    let mut command = Command::new(PERTASK);
    command.args(arguments).env("PERTASK_DIR", folder).env_remove("PERTASK");
    command
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

/// The rows of a report with this name.
fn row<'a>(report: &'a Value, rows: &str, name: &str) -> &'a Value {
    let rows = report[rows].as_array().expect("rows");
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}: {report:#}"))
}

#[test]
fn processes_with_an_agent_are_listed() {
    let demo = Demo::start("ps");
    let listed = demo.told_json(&["ps", "--json"]);
    // Others may have one, too.
    let of_demo = |row: &&Value| row["pid"] == demo.running.child.id();
    let only = listed.as_array().expect("a list").iter().find(of_demo).expect("the demo");
    assert_eq!(only["program"], "pertask");
    assert_eq!(only["pertask"], env!("CARGO_PKG_VERSION"));
    assert!(only["live_tasks"].as_u64() > Some(0), "{only:#}");
    assert_eq!(only["error"], Value::Null);
    let text = demo.told(&["ps"]);
    assert!(text.trim_start().starts_with("PID"), "{text}");
    assert!(text.contains(&demo.pid()), "{text}");
}

#[test]
fn a_process_that_was_killed_is_listed_no_more() {
    let mut demo = Demo::start("killed");
    let sockets = || fs::read_dir(&demo.folder).expect("a folder").count();
    assert_eq!(sockets(), 1);
    demo.running.signal(libc::SIGKILL);
    // Until it is reaped, the kernel still has it.
    demo.running.child.wait().expect("its end");
    let output = demo.run(&["ps", "--json"]);
    let listed = json(&String::from_utf8_lossy(&output.stdout));
    let of_demo = |row: &Value| row["pid"] == demo.running.child.id();
    assert!(!listed.as_array().expect("a list").iter().any(of_demo), "{listed:#}");
    assert_eq!(fs::read_dir(&demo.folder).expect("a folder").count(), 0);
}

#[test]
fn its_tasks_are_measured_exactly() {
    let demo = Demo::start("stat");
    let report = json(&demo.measured(&["stat", "--pid", "PID", "--json"]));
    assert_eq!(report["schema"], "pertask.report/1");
    for route in ROUTES {
        let row = row(&report, "sites", route);
        assert!(row["cpu_ns"].as_u64() > Some(0) && row["polls"].as_u64() > Some(0), "{row:#}");
    }
    let parts = ["tasks_cpu_ns", "unknown_cpu_ns", "workers_cpu_ns", "other_cpu_ns"];
    let sum: u64 = parts.iter().map(|part| report[*part].as_u64().expect("a number")).sum();
    let process = report["process_cpu_ns"].as_u64().expect("a number");
    // The clocks are read one after the other, and the reader may have to wait in between.
    assert!(sum.abs_diff(process) < process / 4 + 100_000_000, "{sum} {process}");
    // The same as a table.
    let text = demo.measured(&["stat", "--pid", "PID"]);
    assert!(text.contains("Tasks by spawn site") && text.contains("GET /hash"), "{text}");
}

#[test]
fn its_tasks_memory_is_counted_for_those_who_ask() {
    let demo = Demo::start("memory");
    let report = json(&demo.measured(&["stat", "--pid", "PID", "--memory", "--json"]));
    let memory = &row(&report, "sites", "GET /render")["memory"];
    assert!(memory["allocated_bytes"].as_u64() > Some(10_000), "{memory:#}");
    assert_eq!(report["memory_source"], "pertask::Alloc");
    let report = json(&demo.measured(&["stat", "--pid", "PID", "--json"]));
    assert!(row(&report, "sites", "GET /render")["memory"].is_null());
}

#[test]
fn a_report_each_interval_is_of_that_time_alone() {
    let demo = Demo::start("interval");
    let text = demo.told(&["stat", "--pid", "PID", "-I", "100", "-d", "2s", "--json"]);
    let times: Vec<u64> =
        text.lines().filter_map(|line| json(line)["duration_ns"].as_u64()).collect();
    let total: u64 = times.iter().sum();
    assert!(times.len() >= 2 && times.iter().all(|time| *time < total), "{times:?}");
}

#[test]
fn a_duration_ends_it() {
    let demo = Demo::start("duration");
    let report = demo.told_json(&["stat", "--pid", "PID", "-d", "300ms", "--json"]);
    assert!(report["duration_ns"].as_u64() >= Some(200_000_000), "{report:#}");
    // And the service goes on.
    demo.told(&["tasks", "--pid", "PID"]);
}

#[test]
fn the_last_report_is_kept_when_the_process_is_killed() {
    // A report comes once a moment: the process may be killed before the first.
    let output = [0, 200, 800, 3_200, 12_800, 51_200].into_iter().find_map(|wait_ms| {
        let demo = Demo::start("dies");
        let mut stat = Running::start(&mut demo.command(&["stat", "--pid", "PID"]));
        stat.wait_for("measuring");
        std::thread::sleep(Duration::from_millis(wait_ms));
        demo.running.signal(libc::SIGKILL);
        let output = stat.finish();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        said.lines().any(|line| line.starts_with("the process has ended")).then_some(output)
    });
    let output = output.expect("a report came");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("CPU"), "{output:?}");
}

#[test]
fn live_tasks_are_listed() {
    let began = Instant::now();
    let demo = Demo::start("tasks");
    let all = demo.told_json(&["tasks", "--pid", "PID", "--json", "--limit", "10000"]);
    let live = all["live"].as_u64().expect("a number");
    let tasks = all["tasks"].as_array().expect("tasks");
    assert_eq!(live, tasks.len() as u64);
    let accept = row(&all, "tasks", "accept connections");
    assert_eq!(accept["polls"], Value::Null, "nothing was measured: {accept:#}");
    assert!(accept["file"].as_str().is_some_and(|file| file.ends_with("service.rs")), "{accept:#}");
    let id = accept["id"].to_string();
    let one = demo.told_json(&["tasks", "--pid", "PID", "--task", &id, "--json"]);
    assert_eq!((&one["matching"], &one["tasks"][0]["id"]), (&Value::from(1), &accept["id"]));
    // It began when the demo did, and is older than at the look before. It may seem older by a tick of the kernel's timer, 10 ms at most.
    let age = |row: &Value| Duration::from_nanos(row["age_ns"].as_u64().expect("its age"));
    let (before, now) = (age(accept), age(&one["tasks"][0]));
    let most = began.elapsed() + Duration::from_millis(10);
    assert!(before < now && now <= most, "{before:?} {now:?} {most:?}");
    // Page by page, each task comes once.
    let first = demo.told_json(&["tasks", "--pid", "PID", "--limit", "1", "--json"]);
    let after = first["next_after"].to_string();
    let next =
        demo.told_json(&["tasks", "--pid", "PID", "--limit", "1", "--after", &after, "--json"]);
    assert!(next["tasks"][0]["id"].as_u64() > first["tasks"][0]["id"].as_u64(), "{next:#}");
    let measured = demo.told(&["tasks", "--pid", "PID", "-d", "500ms"]);
    assert!(
        measured.contains("MAX POLL") && measured.contains("AGE") && measured.contains("live task"),
        "{measured}"
    );
}

#[test]
fn it_is_recorded_by_its_agent_and_from_outside() {
    let demo = Demo::start("record");
    // Its requests are recorded until it has answered some.
    let mut record = Running::start(&mut demo.command(&["record", "--pid", "PID", "-F", "499"]));
    record.wait_for("recording process");
    for _ in 0..20 {
        ask(&demo.service, "GET /hash");
    }
    record.signal(libc::SIGINT);
    let output = record.finish();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if stderr.contains("cannot sample threads") {
        return loudly(&format!("SKIPPED: {stderr}"));
    }
    assert!(output.status.success() && stderr.contains("by its agent"), "{output:?}");
    // Tasks have their names, and functions theirs, although the service has looked up none.
    assert!(stdout.contains("GET /hash") && stdout.contains("fnv1a"), "{stdout}");
    let output = demo.run(&["record", "--pid", "PID", "-d", "1s", "-F", "499", "--outside"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("the kernel refuses perf events") {
        return loudly(&format!("SKIPPED: {stderr}"));
    }
    assert!(!stderr.contains("by its agent"), "{stderr}");
    assert!(String::from_utf8_lossy(&output.stdout).contains('~'), "{output:?}");
}

#[test]
fn where_tasks_allocate_is_recorded_for_those_who_ask() {
    let demo = Demo::start("allocations");
    let mut record =
        Running::start(&mut demo.command(&["record", "--pid", "PID", "--allocations"]));
    record.wait_for("recording process");
    for _ in 0..20 {
        ask(&demo.service, "GET /render");
    }
    record.signal(libc::SIGINT);
    let output = record.finish();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if stderr.contains("cannot sample threads") {
        return loudly(&format!("SKIPPED: {stderr}"));
    }
    let table = stdout.split("\n\n").find(|it| it.starts_with("Places of allocations"));
    let table = table.unwrap_or_else(|| panic!("{stdout} {stderr}"));
    assert!(table.lines().any(|line| line.contains("GET /render") && line.contains("routes.rs:")));
    // Go's tools have it, too.
    let (head, profile) = demo.get("/debug/pprof/allocs?seconds=0.3");
    assert!(head.starts_with("HTTP/1.1 200 ") && profile.starts_with(b"\x1f\x8b"), "{head}");
    let output = demo.run(&["record", "--pid", "PID", "-d", "1s", "--allocations", "--outside"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--outside"), "{output:?}");
}

#[test]
fn go_tools_find_their_paths() {
    let demo = Demo::start("pprof");
    let (head, index) = demo.get("/debug/pprof/");
    assert!(head.starts_with("HTTP/1.1 200 ") && index.starts_with(b"/debug/pprof/"), "{head}");
    let (head, text) = demo.get("/debug/pprof/tasks?seconds=0.5");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(String::from_utf8_lossy(&text).contains("GET /hash"), "{text:?}");
    let (head, profile) = demo.get("/debug/pprof/profile?seconds=1&hz=99");
    match head.starts_with("HTTP/1.1 200 ") {
        true => assert!(profile.starts_with(b"\x1f\x8b"), "gzip: {head}"),
        false => loudly(&format!("SKIPPED: {}", String::from_utf8_lossy(&profile))),
    }
    let (head, metrics) = demo.get("/metrics");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(String::from_utf8_lossy(&metrics).contains("pertask_task_cpu_seconds_total"), "{head}");
    for refused in ["/debug/pprof/heap", "/debug/pprof/profile?seconds=x", "/v1/report?sitee=a"] {
        let (head, why) = demo.get(refused);
        assert!(head.starts_with("HTTP/1.1 4"), "{refused}: {head}");
        let why: Value = serde_json::from_slice(&why).expect("a reason");
        assert!(why["error"].as_str().is_some_and(|why| !why.is_empty()), "{refused}");
    }
}

/// The requests that continuous profilers send, by their sources, but for the time.
#[test]
fn engines_that_pull_get_profiles() {
    let demo = Demo::start("engines");
    for (engine, path, headers) in [
        (
            "Alloy",
            "/debug/pprof/profile?seconds=1",
            "User-Agent: Alloy/1.10\r\nAccept-Encoding: gzip\r\n",
        ),
        (
            "Parca",
            "/debug/pprof/profile?seconds=1",
            "User-Agent: conprof/0.24\r\nAccept-Encoding: gzip\r\n",
        ),
        // It adds its parameter again for each of several targets.
        (
            "Parca",
            "/debug/pprof/profile?seconds=1&seconds=1",
            "User-Agent: conprof/0.24\r\nAccept-Encoding: gzip\r\n",
        ),
        (
            "Collector",
            "/debug/pprof/profile?seconds=1",
            "User-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n",
        ),
        // A parameter of Go's that means nothing here.
        ("Go", "/debug/pprof/profile?seconds=1&debug=0", "User-Agent: Go-http-client/1.1\r\n"),
    ] {
        let (head, body) = demo.get_as(path, headers);
        if head.starts_with("HTTP/1.1 503 ") {
            return loudly(&format!("SKIPPED: {}", String::from_utf8_lossy(&body)));
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{engine}: {head}");
        // What is packed is the profile, and not the answer.
        assert!(!head.contains("Content-Encoding"), "{engine}: {head}");
        let profile = Profile::from_pprof(&*body).expect("a profile");
        let is_named = |task: &TaskRef| task.name.as_deref() == Some("GET /hash");
        let mut tasks = profile.samples.iter().filter_map(|sample| sample.task.as_ref());
        assert!(tasks.any(is_named), "{engine}");
    }
    // They ask for no time, and expect what was allocated before.
    let (head, why) = demo.get("/debug/pprof/allocs");
    let why = String::from_utf8_lossy(&why).into_owned();
    assert!(
        head.starts_with("HTTP/1.1 400 ") && why.contains("seconds is missing"),
        "{head} {why}"
    );
    for path in ["block", "goroutine", "mutex", "heap"] {
        let (head, why) = demo.get(&format!("/debug/pprof/{path}"));
        let why = String::from_utf8_lossy(&why).into_owned();
        assert!(head.starts_with("HTTP/1.1 404 ") && why.contains(path), "{head} {why}");
    }
}

#[test]
fn a_program_without_an_agent_is_told_how_to_get_one() {
    let folder = folder("none");
    let pid = std::process::id().to_string();
    for arguments in [["stat", "--pid", &pid], ["tasks", "--pid", &pid]] {
        let output = command(&folder, &arguments).output().expect("to run");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("pertask::init()") && stderr.contains(&pid), "{stderr}");
    }
    let output = command(&folder, &["stat", "--", "sh", "-c", "exit 3"]).output().expect("to run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("nothing was measured"), "{stderr}");
}

#[test]
fn who_no_longer_reads_ends_the_measurement() {
    let demo = Demo::start("reader");
    let mut stat =
        Running::start(&mut demo.command(&["stat", "--pid", "PID", "-I", "20", "--json"]));
    let mut first = String::new();
    let mut stdout = BufReader::new(stat.child.stdout.take().expect("its stdout"));
    stdout.read_line(&mut first).expect("to read");
    drop(stdout);
    assert!(stat.finish().status.success());
    assert_eq!(json(&first)["schema"], "pertask.report/1");
}

#[test]
fn a_recording_by_an_agent_that_is_killed_has_what_came_before_or_says_what_to_do() {
    // What the agent has so far is fetched from time to time.
    for seconds in [0, 2, 8, 32, 128] {
        let demo = Demo::start("gone");
        let mut record =
            Running::start(&mut demo.command(&["record", "--pid", "PID", "-F", "499"]));
        record.wait_for("recording process");
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            ask(&demo.service, "GET /hash");
        }
        demo.running.signal(libc::SIGKILL);
        let output = record.finish();
        let stderr = String::from_utf8_lossy(&output.stderr);
        if stderr.contains("cannot sample threads") {
            return loudly(&format!("SKIPPED: {stderr}"));
        }
        if output.status.success() {
            let stdout = String::from_utf8_lossy(&output.stdout);
            assert!(stdout.contains("GET /hash"), "{stdout}");
            assert!(stderr.contains("are lost"), "{stderr}");
            return;
        }
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("--outside"), "{stderr}");
    }
    panic!("nothing came in two minutes");
}

/// A folder that agents take for theirs.
fn private_folder(name: &str) -> PathBuf {
    let folder = folder(name);
    DirBuilder::new().mode(0o700).create(&folder).expect("a folder");
    folder
}

/// The demo in a folder, recorded to `recorded.pb.gz` there from its launch, and what it says of its agent.
fn recorded_from_launch(folder: &Path) -> (Running, String) {
    let mut command = command(folder, &["demo", "--serve"]);
    let setting = format!("record,{}/recorded.pb.gz,hz=499", folder.display());
    let mut running = Running::start(command.env("PERTASK", setting));
    let line = running.wait_for("serving on http://");
    (running, line)
}

/// What `pertask report` says of the file there.
fn recorded(folder: &Path) -> String {
    let file = folder.join("recorded.pb.gz");
    let output = Command::new(PERTASK).arg("report").arg(file).output().expect("to run");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_program_is_recorded_from_its_launch_to_its_end() {
    let folder = private_folder("launch");
    let (running, line) = recorded_from_launch(&folder);
    if line.contains("no recording") {
        return loudly(&format!("SKIPPED: {line}"));
    }
    assert!(line.contains("recording to ") && line.contains("agent at "), "{line}");
    let service = line.split(' ').next().expect("an address");
    // Another process leaves the file alone, and goes on.
    let (other, refused) = recorded_from_launch(&folder);
    assert!(refused.contains("no recording") && refused.contains("%p"), "{refused}");
    other.signal(libc::SIGINT);
    assert!(other.finish().status.success());
    for _ in 0..20 {
        ask(service, "GET /hash");
    }
    running.signal(libc::SIGINT);
    assert!(running.finish().status.success());
    let table = recorded(&folder);
    assert!(table.contains("GET /hash") && table.contains("fnv1a"), "{table}");
    assert!(!folder.join("recorded.pb.gz.part").exists());
    fs::remove_dir_all(folder).expect("to remove it");
}

#[test]
fn a_program_that_is_killed_leaves_its_recording() {
    let folder = private_folder("leaves-its-recording");
    let (running, line) = recorded_from_launch(&folder);
    if line.contains("no recording") {
        return loudly(&format!("SKIPPED: {line}"));
    }
    while !folder.join("recorded.pb.gz").exists() {
        thread::sleep(Duration::from_millis(20));
    }
    running.signal(libc::SIGKILL);
    running.finish();
    // Its own clients call all the time.
    assert!(recorded(&folder).contains("GET /hash"), "{}", recorded(&folder));
    // The next one takes its place.
    let (running, line) = recorded_from_launch(&folder);
    assert!(line.contains("recording to "), "{line}");
    running.signal(libc::SIGINT);
    assert!(running.finish().status.success());
    assert!(!folder.join("recorded.pb.gz.part").exists());
    fs::remove_dir_all(folder).expect("to remove it");
}

#[test]
fn what_cannot_be_asked_for_is_refused_with_the_reason() {
    let demo = Demo::start("refusals");
    for (path, part) in [
        ("/v1/tasks?sort=cpu", "seconds"),
        ("/v1/tasks?sort=cpu&seconds=1&after=3", "after"),
        ("/v1/live?each=true&task=1", "each"),
        ("/v1/report?descendants=true", "task"),
        ("/v1/report?task=999999999", "alive"),
        ("/v1/report?task=1&blocked_ms=5", "blocked_ms"),
        ("/v1/report?events=nonsense", "nonsense"),
        ("/v1/report?seconds=nan", "seconds"),
        ("/v1/report?blocked_ms=0", "blocked_ms"),
        ("/v1/profile?hz=0", "hz"),
        ("/v1/tasks?id=", "id"),
        ("/v1/stop", "POST"),
    ] {
        let (head, why) = demo.get(path);
        assert!(head.starts_with("HTTP/1.1 4"), "{path}: {head}");
        let why = json(&String::from_utf8_lossy(&why));
        assert!(why["error"].as_str().is_some_and(|why| why.contains(part)), "{path}: {why}");
    }
    // Of one site, the other rows are left out, and the sums are those of the process.
    let (_, report) = demo.get("/v1/report?seconds=0.3&site=GET%20/hash");
    let report = json(&String::from_utf8_lossy(&report));
    let names = |rows: &str| -> Vec<_> {
        report[rows].as_array().expect("rows").iter().map(|row| row["name"].clone()).collect()
    };
    for name in names("sites").into_iter().chain(names("tasks")) {
        assert_eq!(name, "GET /hash");
    }
}

#[test]
fn blocked_workers_are_told_to_those_who_ask() {
    let demo = Demo::start("blocked");
    let blocked = |path: &str| {
        let (_, report) = demo.get(path);
        json(&String::from_utf8_lossy(&report))["blocked"].clone()
    };
    assert!(blocked("/v1/report?seconds=0").is_null());
    let blocked = blocked("/v1/report?seconds=2&blocked_ms=5");
    assert_eq!(blocked["threshold_ns"], 5_000_000);
    let rows = blocked["rows"].as_array().expect("rows");
    assert!(rows.iter().any(|row| row["name"] == "GET /blocking"), "{blocked:#}");
}

#[test]
fn without_a_terminal_top_says_what_to_use() {
    let output = Command::new(PERTASK).args(["top", "--pid", "1"]).output().expect("to run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("terminal") && stderr.contains("pertask stat"), "{stderr}");
}

#[test]
fn pertask_off_means_no_agent() {
    let folder = folder("off");
    let mut demo = Running::start(command(&folder, &["demo", "--serve"]).env("PERTASK", "off"));
    let line = demo.wait_for("serving on http://");
    assert!(line.contains("PERTASK is off"), "{line}");
    assert!(!folder.exists(), "no folder is made");
}

#[test]
fn an_agent_that_cannot_listen_ends_no_program() {
    let folder = folder("refused");
    fs::write(&folder, "a file").expect("to write");
    let mut demo = Running::start(&mut command(&folder, &["demo", "--serve"]));
    let line = demo.wait_for("serving on http://");
    let doctor = command(&folder, &["doctor", "--json"]).output().expect("to run");
    fs::remove_file(&folder).expect("to remove");
    assert!(line.contains("no agent") && line.contains("PERTASK_DIR"), "{line}");
    // And `doctor` says the same before.
    let doctor = json(&String::from_utf8_lossy(&doctor.stdout));
    assert!(doctor["agent"]["refused"].as_str().is_some_and(|why| why.contains("PERTASK_DIR")));
    let doctor = command(&folder, &["doctor", "--json"]).output().expect("to run");
    let doctor = json(&String::from_utf8_lossy(&doctor.stdout));
    assert_eq!(doctor["agent"]["refused"], Value::Null);
}

/// The demo in a mount namespace of its own, where the folder is a file system with this little room.
fn in_little_room(folder: &Path, room: &str, setting: Option<&str>) -> Option<Running> {
    let probe = Command::new("unshare").args(["--mount", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        loudly("SKIPPED: there is no unshare, or it is not allowed");
        return None;
    }
    let script = format!(
        r#"mount -t tmpfs -o mode=700,{room} none "$PERTASK_DIR" && exec "$0" demo --serve"#
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, PERTASK]).env("PERTASK_DIR", folder);
    match setting {
        Some(setting) => command.env("PERTASK", setting),
        None => command.env_remove("PERTASK"),
    };
    Some(Running::start(&mut command))
}

#[test]
fn a_full_disk_ends_no_program() {
    let folder = private_folder("full");
    // There is no room for a socket.
    let Some(mut running) = in_little_room(&folder, "nr_inodes=1", None) else { return };
    let line = running.wait_for("serving on http://");
    assert!(line.contains("no agent") && line.contains("No space left on device"), "{line}");
    running.signal(libc::SIGINT);
    assert!(running.finish().status.success());
    // There is room for an empty file, and for no profile.
    let setting = format!("record,{}/recorded.pb.gz", folder.display());
    let Some(mut running) = in_little_room(&folder, "size=4k", Some(&setting)) else { return };
    let line = running.wait_for("serving on http://");
    if line.contains("no recording") {
        return loudly(&format!("SKIPPED: {line}"));
    }
    running.wait_for("pertask: cannot write ");
    running.signal(libc::SIGINT);
    assert!(running.finish().status.success());
    fs::remove_dir_all(folder).expect("to remove it");
}

/// Under a filter that refuses all that sampling and other ways to look at a process need, as strict containers have.
#[test]
fn a_filter_that_refuses_everything_ends_no_program() {
    let folder = folder("filtered");
    let refused = [
        libc::SYS_membarrier,
        libc::SYS_memfd_create,
        libc::SYS_perf_event_open,
        libc::SYS_prctl,
        libc::SYS_process_vm_readv,
        libc::SYS_ptrace,
        libc::SYS_timer_create,
    ];
    let filter = support::filter(&refused);
    let mut command = command(&folder, &["demo", "--serve"]);
    // SAFETY: between fork and exec it makes system calls only; the filter was built before.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            seccompiler::apply_filter(&filter).map_err(std::io::Error::other)
        });
    }
    let mut running = Running::start(&mut command);
    let service = running.wait_for("serving on http://");
    assert!(service.contains("agent at "), "{service}");
    let pid = running.child.id().to_string();
    let ask = |arguments: &[&str]| {
        let mut command = crate::command(&folder, arguments);
        command.args(["--pid", &pid, "-d", "500ms"]).output().expect("to run")
    };
    let stat = ask(&["stat"]);
    assert!(String::from_utf8_lossy(&stat.stdout).contains("client"), "{stat:?}");
    let record = ask(&["record"]);
    let stderr = String::from_utf8_lossy(&record.stderr);
    assert!(stderr.contains("cannot sample threads"), "{record:?}");
    running.signal(libc::SIGINT);
    assert!(running.finish().status.success());
    let _ = fs::remove_dir_all(folder);
}
