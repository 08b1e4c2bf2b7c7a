//! The command as root, as nobody, and where a filter forbids perf events: each time it says what is so.

mod support;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;
use support::{Running, after_requests, filter, loudly};

/// As whom the command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum As {
    Me,
    Nobody,
    /// Under a seccomp filter that refuses `perf_event_open`, as containers have.
    Filtered,
}

const NOBODY: u32 = 65534;

/// Requests to each route of a demo.
const REQUESTS: usize = 8;

#[test]
fn doctor_says_what_each_user_is_offered() {
    for who in [As::Me, As::Nobody, As::Filtered] {
        let Some(output) = run(who, &["doctor", "--json"]) else { continue };
        let machine = json(&output);
        let event = |name: &str| find(&machine["events"], name);
        let refused = |name: &str| event(name)["refused"].as_str().unwrap_or_default().to_owned();
        assert_eq!(event("page-faults")["source"], "getrusage at each switch", "{who:?}");
        assert!(machine["clock"].as_str().is_some_and(|clock| !clock.is_empty()));
        assert!(machine["tick_hz"].as_u64().is_some_and(|hz| (24..=10_000).contains(&hz)));
        match who {
            As::Me => assert_eq!(machine["user"], user()),
            As::Nobody if paranoid() == 2 => {
                assert_eq!(machine["user"], NOBODY);
                assert!(refused("task-clock").contains("perf_event_paranoid is 2"), "{machine}");
                assert!(refused("cpu-migrations").contains("EACCES"), "{machine}");
            }
            As::Nobody => {
                loudly(&format!("SKIPPED in part: perf_event_paranoid is {}", paranoid()))
            }
            As::Filtered => {
                for name in ["task-clock", "cycles"] {
                    assert!(event(name)["source"].is_null(), "{machine}");
                    assert!(refused(name).contains("EPERM: a seccomp filter"), "{machine}");
                }
                let page = &machine["clocks"][1];
                assert_eq!(page["name"], "perf-page");
                assert!(
                    page["refused"].as_str().is_some_and(|why| why.contains("EPERM")),
                    "{page}"
                );
            }
        }
    }
}

/// A thread that makes another one blocks all signals for a moment, and that is no reason to sample in another way.
#[test]
fn doctor_says_the_same_each_time() {
    let sampling = || {
        let output = run(As::Me, &["doctor", "--json"]).expect("it runs as whoever runs the test");
        let doctor: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        doctor["sampling"].clone()
    };
    let first = sampling();
    for _ in 0..7 {
        assert_eq!(sampling(), first);
    }
}

#[test]
fn doctor_is_read_by_people_too() {
    let output = run(As::Me, &["doctor"]).expect("it runs as whoever runs the test");
    let text = String::from_utf8_lossy(&output.stdout);
    for part in ["CPU time of tasks", "in use", "rseq", "Events (", "page-faults", "open files"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn the_demo_counts_what_each_user_is_offered() {
    let events = "page-faults,context-switches";
    for who in [As::Me, As::Nobody, As::Filtered] {
        let Some(output) = demo(who, &["-e", events, "--tree", "--json"]) else { continue };
        let report = json(&output);
        let count = |route: &str, event: &str| {
            let sites = report["sites"].as_array().expect("sites");
            let site = sites.iter().find(|site| site["name"] == route).expect("its row");
            find(&site["counters"], event)["count"].as_u64().expect("a count")
        };
        // It sleeps inside its poll, which switches its thread out; the others' sleep is the executor's.
        let blocking = count("GET /blocking", "context-switches");
        assert!(blocking >= REQUESTS as u64, "{who:?}: {blocking}");
        assert!(count("GET /render", "page-faults") > 0, "{who:?}");
        for source in report["counters"].as_array().expect("sources") {
            assert_eq!(source["source"], "getrusage at each switch", "{who:?}");
        }
        assert_eq!(report["lost"]["turns_without_counters"], 0);
    }
}

#[test]
fn the_demo_says_why_an_event_is_not_counted() {
    let arguments = ["-e", "task-clock,cpu-migrations"];
    let output = demo(As::Filtered, &arguments).expect("filters are for everybody");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("task-clock: not counted (EPERM: a seccomp filter"), "{text}");
    assert!(
        text.contains("cpu-migrations: changes of the CPU seen at switches (perf: EPERM"),
        "{text}"
    );
    assert!(text.contains("~ an estimate"), "{text}");
}

#[test]
fn an_unknown_event_is_answered_with_the_known() {
    let output = run(As::Me, &["demo", "-e", "cylces"]).expect("it runs as whoever runs the test");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("cylces") && text.contains("cycles, instructions, "), "{text}");
}

/// As in a chroot or a container without `/proc`: here, in a mount namespace of its own, an empty one covers it.
#[test]
fn without_proc_the_file_that_is_missing_is_named() {
    let without_proc = |arguments: &[&str]| {
        let script = r#"mount -t tmpfs none /proc && echo covered && exec "$0" "$@""#;
        let mut shell = Command::new("unshare");
        shell.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_pertask")]).args(arguments);
        let output = shell.output().ok().filter(|it| it.stdout.starts_with(b"covered\n"));
        if output.is_none() {
            loudly("SKIPPED: /proc cannot be covered");
        }
        output.map(|it| [it.stdout, it.stderr].map(|it| String::from_utf8_lossy(&it).into_owned()))
    };
    let profile = std::env::temp_dir().join(format!("pertask-{}-proc.svg", std::process::id()));
    let profile = profile.to_str().expect("UTF-8");
    let Some([_, stderr]) = without_proc(&["demo", "-d", "100ms", "-o", profile]) else { return };
    let said = stderr.lines().last().unwrap_or_default();
    assert!(said.starts_with("pertask: cannot sample threads: /proc/thread-self/maps"), "{stderr}");
    assert!(said.contains("No such file or directory") && said.contains("mount /proc"), "{said}");
    assert!(!fs::exists(profile).expect("a folder"));
    let Some([_, stderr]) = without_proc(&["report", "/dev/stdin"]) else { return };
    assert!(
        stderr.contains("cannot read /dev/stdin") && stderr.contains("Mount /proc"),
        "{stderr}"
    );
    let Some([stdout, _]) = without_proc(&["doctor"]) else { return };
    let refused = "SIGTRAP: refused: /proc/thread-self/maps cannot be read";
    assert!(stdout.contains(refused), "{stdout}");
    let level = "perf_event_paranoid is unknown: /proc/sys/kernel/perf_event_paranoid";
    assert!(stdout.contains(level), "{stdout}");
}

/// Runs the command. `None` where this user cannot become another.
fn run(who: As, arguments: &[&str]) -> Option<Output> {
    let place = Place::of(who)?;
    Some(Running::start(place.command().args(arguments)).finish())
}

/// Runs the demo until it has answered some requests to each route. `None` where this user cannot become another.
fn demo(who: As, arguments: &[&str]) -> Option<Output> {
    let place = Place::of(who)?;
    Some(after_requests(REQUESTS, place.command().arg("demo").args(arguments)))
}

/// A copy of the binary where everybody may execute it, for as long as this lives.
struct Place {
    who: As,
    folder: PathBuf,
    binary: PathBuf,
}

impl Place {
    /// `None` where this user cannot become that one.
    fn of(who: As) -> Option<Self> {
        if who == As::Nobody && user() != 0 {
            loudly("SKIPPED in part: only root can become nobody");
            return None;
        }
        let thread = std::thread::current().id();
        let name = format!("pertask-{}-{thread:?}-{who:?}", std::process::id());
        let folder = std::env::temp_dir().join(name.replace(['(', ')'], ""));
        fs::create_dir_all(&folder).expect("a folder");
        let everybody = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&folder, everybody.clone()).expect("a folder for everybody");
        let binary = folder.join("pertask");
        fs::copy(env!("CARGO_BIN_EXE_pertask"), &binary).expect("a copy");
        fs::set_permissions(&binary, everybody).expect("a binary for everybody");
        Some(Self { who, folder, binary })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir("/");
        match self.who {
            As::Me => {}
            As::Nobody => {
                command.uid(NOBODY).gid(NOBODY);
            }
            As::Filtered => {
                let filter = filter(&[libc::SYS_perf_event_open]);
                // SAFETY: between fork and exec it makes system calls only; the filter was built before.
                unsafe {
                    command.pre_exec(move || {
                        seccompiler::apply_filter(&filter).map_err(std::io::Error::other)
                    });
                }
            }
        }
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn json(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn find<'a>(list: &'a Value, event: &str) -> &'a Value {
    let list = list.as_array().expect("a list");
    list.iter().find(|entry| entry["event"] == event).expect("the event")
}

fn user() -> u32 {
    // SAFETY: no arguments, no memory.
    unsafe { libc::geteuid() }
}

fn paranoid() -> i32 {
    let text = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    text.trim().parse().unwrap_or(i32::MAX)
}
