//! `pertask record` on a program that knows nothing of pertask: its tasks stand under their types.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use support::loudly;

const PERTASK: &str = env!("CARGO_BIN_EXE_pertask");

const NOBODY: u32 = 65534;

/// The types of the program's tasks, each of which computes for the same time.
const TASKS: [&str; 9] = [
    "~plain::async_function",
    "~plain::Worker::method",
    "~plain::Own",
    "~plain::boxed",
    "~plain::selects",
    "~plain::unordered",
    "~plain::blocking",
    "~plain::local",
    "~plain::of_smol",
];

/// The example `plain`, which `cargo test --workspace` builds beside the tests.
fn plain() -> PathBuf {
    let own = std::env::current_exe().expect("a path");
    let plain = own.parent().and_then(Path::parent).expect("two folders").join("examples/plain");
    assert!(plain.exists(), "build it first: cargo build -p pertask-builds --example plain");
    plain
}

/// A folder with copies of both programs that everybody may run, removed when dropped.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("pertask-record-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let everybody = fs::Permissions::from_mode(0o777);
        fs::set_permissions(&folder, everybody.clone()).expect("a folder for everybody");
        for (name, from) in [("pertask", Path::new(PERTASK)), ("plain", &plain())] {
            fs::copy(from, folder.join(name)).expect("a copy");
            fs::set_permissions(folder.join(name), everybody.clone())
                .expect("a program for everybody");
        }
        Self(folder)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn pertask(&self, who: Option<u32>) -> Command {
        as_user(who, Command::new(self.at("pertask")))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn as_user(who: Option<u32>, mut command: Command) -> Command {
    command.current_dir("/");
    if let Some(user) = who {
        command.uid(user).gid(user);
    }
    command
}

/// A program that is killed when the test is over.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Who the test can run programs as: itself, and nobody if it is root.
fn users() -> Vec<Option<u32>> {
    // SAFETY: no arguments, no memory.
    let is_root = unsafe { libc::geteuid() } == 0;
    if is_root {
        return vec![None, Some(NOBODY)];
    }
    loudly("SKIPPED in part: only root can become nobody");
    vec![None]
}

/// Whether the kernel lets this user record, and if not, says so.
fn may_record(who: Option<u32>, output: &Output) -> bool {
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("the kernel refuses perf events") {
        loudly(&format!("SKIPPED as {who:?}: {stderr}"));
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("sysctl") || stderr.contains("seccomp"), "{stderr}");
        return false;
    }
    true
}

/// The rows of a profile's table, by site. `None` if samples were lost, as where other programs keep the recorder from its CPU: nobody
/// knows then whose they were.
fn rows(place: &Place, profile: &Path) -> Option<Vec<Value>> {
    rows_by(place, profile, "site").map(|(rows, _)| rows)
}

/// The rows, and the remarks.
fn rows_by(place: &Place, profile: &Path, by: &str) -> Option<(Vec<Value>, String)> {
    let mut report = place.pertask(None);
    let output =
        report.arg("report").arg(profile).args(["--by", by, "--json"]).output().expect("to run");
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let lost = report["lost"]["samples_dropped"].as_u64().expect("a number");
    if lost > 0 {
        loudly(&format!("NOT TESTED in part: {lost} samples were lost"));
        return None;
    }
    let rows = report["tables"][0]["rows"].as_array().expect("rows").clone();
    Some((rows, report["remarks"].to_string()))
}

fn cpu_ns(rows: &[Value], wanted: impl Fn(&Value) -> bool) -> u64 {
    rows.iter()
        .filter(|row| wanted(row))
        .map(|row| row["self_cpu_ns"].as_u64().expect("a number"))
        .sum()
}

#[test]
fn a_program_is_started_and_its_tasks_have_their_types() {
    for who in users() {
        let place = Place::new(&format!("started-{}", who.unwrap_or(0)));
        let profile = place.at("profile.pb.gz");
        let mut record = place.pertask(who);
        record
            .args(["record", "-F", "997", "-o"])
            .arg(&profile)
            .arg("--")
            .arg(place.at("plain"))
            .arg("7");
        let output = record.output().expect("to run");
        if !may_record(who, &output) {
            continue;
        }
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        assert!(text.starts_with("begins\n") && text.contains("Tasks by site"), "{text}");
        let Some(rows) = rows(&place, &profile) else { continue };
        let each: Vec<_> =
            TASKS.iter().map(|task| cpu_ns(&rows, |row| row["name"] == *task)).collect();
        let most = *each.iter().max().expect("tasks");
        // They compute the same. Samples are chance, and the machine may run at another speed later.
        assert!(each.iter().all(|it| *it > most / 3), "{who:?}: {each:?}\n{text}");
        let all = cpu_ns(&rows, |_| true);
        let named = cpu_ns(&rows, |row| row["kind"] != "outside_tasks");
        // Before its runtimes run, and between them, the program itself does something.
        assert!(named > all / 10 * 8, "{named} of {all}: {text}");
        let worker =
            rows.iter().find(|row| row["name"] == "~plain::Worker::method").expect("its row");
        assert!(
            worker["file"].as_str().is_some_and(|file| file.ends_with("examples/plain.rs")),
            "{worker}"
        );
    }
}

#[test]
fn a_program_that_runs_is_recorded_and_goes_on() {
    for who in users() {
        let place = Place::new(&format!("runs-{}", who.unwrap_or(0)));
        let mut plain = as_user(who, Command::new(place.at("plain")));
        let mut plain =
            Running(plain.arg("forever").stdout(Stdio::piped()).spawn().expect("to start"));
        let mut line = String::new();
        let stdout = plain.0.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("to read");
        assert_eq!(line, "begins\n");
        let profile = place.at("profile.pb.gz");
        let mut record = place.pertask(who);
        record.args(["record", "-F", "997", "-d", "3s", "--unresolved", "-o"]).arg(&profile);
        let output = record.args(["--pid", &plain.0.id().to_string()]).output().expect("to run");
        if !may_record(who, &output) {
            continue;
        }
        assert!(output.status.success(), "{output:?}");
        assert!(plain.0.try_wait().expect("to look").is_none(), "it has ended");
        let Some(rows) = rows(&place, &profile) else { continue };
        let of_tasks = cpu_ns(&rows, |row| {
            row["name"].as_str().is_some_and(|name| name.starts_with("~plain::"))
        });
        assert!(of_tasks > cpu_ns(&rows, |_| true) / 2, "{rows:?}");
    }
}

/// Two tasks of one type, of which one computes three times as much as the other.
#[test]
fn tasks_of_one_type_are_told_apart_by_the_ids_that_tokio_gives_them() {
    for who in users() {
        let place = Place::new(&format!("twins-{}", who.unwrap_or(0)));
        let mut twins = as_user(who, Command::new(place.at("plain")));
        let mut twins =
            Running(twins.arg("twins").stdout(Stdio::piped()).spawn().expect("to start"));
        let mut line = String::new();
        let stdout = twins.0.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("to read");
        let ids: Vec<u64> =
            line.split_whitespace().map(|id| id.parse().expect("a number")).collect();
        let profile = place.at("profile.pb.gz");
        let mut record = place.pertask(who);
        record.args(["record", "-F", "997", "-d", "3s", "--by", "task", "-o"]).arg(&profile);
        let output = record.args(["--pid", &twins.0.id().to_string()]).output().expect("to run");
        if !may_record(who, &output) {
            continue;
        }
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("~plain::twin"), "{output:?}");
        let Some((rows, remarks)) = rows_by(&place, &profile, "task") else { continue };
        if remarks.contains("may not read the memory") {
            loudly(&format!("SKIPPED as {who:?}: {remarks}"));
            assert!(remarks.contains("kernel.yama.ptrace_scope"), "{remarks}");
            continue;
        }
        let twin = |id: Option<u64>| {
            cpu_ns(&rows, |row| row["name"] == "~plain::twin" && row["task"].as_u64() == id)
        };
        let [more, less] = [0, 1].map(|at| twin(Some(ids[at])));
        // It is three times as much, and samples are chance.
        assert!(2 * more > 3 * less && 8 * less > more, "{more} {less} {ids:?} {rows:?}");
        // Those of the beginning have none.
        assert!(twin(None) < (more + less) / 2, "{ids:?} {rows:?}");
        let others = cpu_ns(&rows, |row| row["task"].as_u64().is_some_and(|id| !ids.contains(&id)));
        assert_eq!(others, 0, "{rows:?}");
    }
}

/// Tasks of one type come and go, and one has the memory that another had. An ID that is shown is right.
#[test]
fn no_task_gets_the_id_of_another_one() {
    let place = Place::new("families");
    let mut families = Command::new(place.at("plain"));
    let mut families =
        Running(families.arg("families").stdout(Stdio::piped()).spawn().expect("to start"));
    let mut line = String::new();
    let stdout = families.0.stdout.take().expect("its output");
    BufReader::new(stdout).read_line(&mut line).expect("to read");
    let profile = place.at("profile.pb.gz");
    let mut record = place.pertask(None);
    record.args(["record", "-F", "997", "-d", "3s", "--by", "task", "-o"]).arg(&profile);
    let output = record.args(["--pid", &families.0.id().to_string()]).output().expect("to run");
    if !may_record(None, &output) {
        return;
    }
    let mut with_id = 0;
    for (function, parity) in [("of_even_tasks", 0), ("of_odd_tasks", 1)] {
        let mut report = place.pertask(None);
        report.arg("report").arg(&profile).args(["--by", "task", "--json", "--function", function]);
        let report: Value = serde_json::from_slice(&report.output().expect("to run").stdout)
            .expect("a report in JSON");
        for row in report["tables"][0]["rows"].as_array().expect("rows") {
            let Some(id) = row["task"].as_u64() else { continue };
            assert_eq!(id % 2, parity, "{function}: {row:#}");
            with_id += row["total_samples"].as_u64().expect("a number");
        }
    }
    if with_id == 0 {
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("cannot be told apart") || said.contains("lost"), "{output:?}");
        loudly(&format!("SKIPPED: {said}"));
    }
}

#[test]
fn what_cannot_be_recorded_is_told_with_the_remedy() {
    let place = Place::new("refused");
    let told = |command: &mut Command| {
        let output = command.output().expect("to run");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let mut missing = place.pertask(None);
    let stderr = told(missing.args(["record", "--pid", "4194305"]));
    assert!(stderr.contains("there is no process 4194305"), "{stderr}");
    let mut nothing = place.pertask(None);
    let stderr = told(nothing.args(["record", "--", "/nothing/there"]));
    assert!(stderr.contains("/nothing/there cannot be started: No such file"), "{stderr}");
    for who in users().into_iter().flatten() {
        let mut others = place.pertask(Some(who));
        let stderr = told(others.args(["record", "--pid", "1"]));
        assert!(stderr.contains("process 1 cannot be recorded: /proc/1/maps"), "{stderr}");
        assert!(stderr.contains("run as the user of that process, or as root"), "{stderr}");
    }
}

#[test]
fn the_status_of_a_program_that_a_signal_ends_is_the_shells() {
    let place = Place::new("signal");
    let mut record = place.pertask(None);
    let output =
        record.args(["record", "--", "sh", "-c", "kill -KILL $$"]).output().expect("to run");
    if may_record(None, &output) {
        assert_eq!(output.status.code(), Some(128 + libc::SIGKILL), "{output:?}");
    }
}

/// What `perf record` writes of the program, if there is a perf that may record.
fn of_perf(place: &Place, call_graph: &str) -> Option<PathBuf> {
    let file = place.at("perf.data");
    let mut perf = Command::new("perf");
    perf.args(["record", "-qN", "-F", "997", "-e", "cpu-clock", "--call-graph", call_graph, "-o"])
        .arg(&file);
    let output = perf.arg("--").arg(place.at("plain")).output();
    let recorded = output.is_ok_and(|output| output.status.success() && file.exists());
    if !recorded {
        loudly("SKIPPED: there is no perf, or it may not record");
    }
    recorded.then_some(file)
}

#[test]
fn a_file_of_perf_record_is_read_by_task_type() {
    let place = Place::new("perf-dwarf");
    let Some(file) = of_perf(&place, "dwarf,16384") else { return };
    let Some(rows) = rows(&place, &file) else { return };
    let each: Vec<_> = TASKS.iter().map(|task| cpu_ns(&rows, |row| row["name"] == *task)).collect();
    let most = *each.iter().max().expect("tasks");
    assert!(each.iter().all(|it| *it > most / 3), "{each:?} {rows:?}");
}

#[test]
fn what_perf_record_has_written_to_a_pipe_is_read() {
    let place = Place::new("perf-pipe");
    if of_perf(&place, "fp").is_none() {
        return;
    }
    let file = place.at("pipe.data");
    let written = Command::new("perf")
        .args(["record", "-qN", "-F", "997", "-e", "cpu-clock", "-g", "-o", "-", "--"])
        .arg(place.at("plain"))
        .stdout(fs::File::create(&file).expect("a file"))
        .stderr(Stdio::null())
        .status();
    assert!(written.is_ok_and(|status| status.success()));
    let report = place.pertask(None).arg("report").arg(&file).output().expect("to run");
    let stdout = String::from_utf8_lossy(&report.stdout);
    assert!(stdout.contains("cpu-clock, 997 Hz") && stdout.contains("plain::"), "{report:?}");
}

#[test]
fn a_file_of_perf_record_that_is_damaged_is_read_as_far_as_it_goes() {
    let place = Place::new("perf-damaged");
    let Some(file) = of_perf(&place, "fp") else { return };
    let whole = fs::read(&file).expect("a file");
    assert!(rows(&place, &file).is_none_or(|rows| cpu_ns(&rows, |_| true) > 0));
    let report = |bytes: &[u8]| {
        fs::write(&file, bytes).expect("to write");
        place.pertask(None).arg("report").arg(&file).output().expect("to run")
    };
    // Wherever it ends, and whatever stands in it, there is a report or a reason.
    for at in (8..whole.len()).step_by(whole.len() / 20) {
        let mut changed = whole.clone();
        changed[at..].iter_mut().take(64).for_each(|byte| *byte ^= 0x5a);
        for bytes in [&whole[..at], &changed] {
            let output = report(bytes);
            let stderr = String::from_utf8_lossy(&output.stderr);
            let told = output.status.success() || stderr.starts_with("pertask: cannot read");
            assert!(told && !stderr.contains("panicked"), "{at}: {output:?}");
        }
    }
}

#[test]
fn who_asks_to_end_reaches_the_program_too() {
    let place = Place::new("term");
    let mut record = place.pertask(None);
    let program = "trap 'exit 5' TERM; echo begins; while :; do sleep 0.01; done";
    record
        .args(["record", "--", "sh", "-c", program])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = Running(record.spawn().expect("to start"));
    let mut line = String::new();
    let stdout = running.0.stdout.take().expect("its output");
    let mut stdout = BufReader::new(stdout);
    stdout.read_line(&mut line).expect("to read");
    if line != "begins\n" {
        loudly("SKIPPED: it cannot record");
        return;
    }
    let pid = libc::pid_t::try_from(running.0.id()).expect("a process id");
    // SAFETY: `kill` touches no memory; the child is not reaped yet, so the id is its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    let rest = std::io::read_to_string(stdout).expect("to read");
    assert_eq!(running.0.wait().expect("to wait").code(), Some(5), "{rest}");
    assert!(rest.contains("\nFunctions ("), "{rest}");
}

/// As when a new version was put in its place.
#[test]
fn a_program_whose_file_was_deleted_has_names() {
    let place = Place::new("deleted");
    let mut plain = Command::new(place.at("plain"));
    let mut plain = Running(plain.arg("forever").stdout(Stdio::piped()).spawn().expect("to start"));
    let mut line = String::new();
    let stdout = plain.0.stdout.take().expect("its output");
    BufReader::new(stdout).read_line(&mut line).expect("to read");
    fs::remove_file(place.at("plain")).expect("to delete");
    let mut record = place.pertask(None);
    record.args(["record", "-F", "997", "-d", "1s", "--pid", &plain.0.id().to_string()]);
    let output = record.output().expect("to run");
    if may_record(None, &output) {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("~plain::") && text.contains("plain::compute"), "{output:?}");
    }
}
