//! `go tool pprof` itself reads what we write.

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, io};

use pertask_profile::State;

use crate::example::{self, pprof};
use crate::waits;

#[test]
fn go_shows_functions_by_their_cpu_time() {
    let Some(top) = go_pprof("top", &["-top"]) else { return };
    assert!(top.contains("Type: cpu"), "{top}");
    assert!(top.contains("Duration: 2.50s, Total samples = 100ms"), "{top}");
    assert!(row(&top, "service::render").starts_with("50ms 50.00%"), "{top}");
    assert!(row(&top, "service::hash").starts_with("40ms 40.00%"), "{top}");
    assert!(row(&top, "service::inlined (inline)").contains("90ms 90.00%"), "{top}");
}

#[test]
fn go_shows_where_tasks_wait() {
    let file = pprof(&waits::profile());
    let top = |index: &str| {
        let index = format!("-sample_index={index}");
        go_pprof_of(&file, index.trim_start_matches('-'), &["-top", &index])
    };
    let Some(cpu) = go_pprof_of(&file, "cpu by default", &["-top"]) else { return };
    assert!(cpu.contains("Type: cpu") && row(&cpu, "app::render").starts_with("50ms"), "{cpu}");
    let lock = "tokio::sync::Mutex<T>::lock";
    let waiting = top("waiting").expect("go is there");
    assert!(waiting.contains("Type: waiting"), "{waiting}");
    assert!(row(&waiting, lock).starts_with("900ms 90.00%"), "{waiting}");
    let waits = top("waits").expect("go is there");
    assert!(row(&waits, lock).starts_with("40 95.24%"), "{waits}");
    assert!(row(&top("ready").expect("go is there"), lock).starts_with("20ms   100%"));
    let blocked = top("blocked").expect("go is there");
    assert!(row(&blocked, "(off the CPU in a poll)").starts_with("80ms   100%"), "{blocked}");
}

/// A profile of one state opens with that.
#[test]
fn go_opens_a_profile_of_waits_with_waiting_time() {
    let file = pprof(&waits::profile().in_state(State::Waiting));
    let Some(top) = go_pprof_of(&file, "one state", &["-top"]) else { return };
    assert!(top.contains("Type: waiting") && top.contains("900ms 90.00%"), "{top}");
}

#[test]
fn go_shows_tasks_as_tags() {
    let Some(tags) = go_pprof("tags", &["-tags"]) else { return };
    for key in ["task", "task_name", "site", "parent", "thread", "tid", "scope", "stack", "tenant"]
    {
        assert!(tags.contains(&format!("{key}: Total ")), "{key}: {tags}");
    }
    assert!(row(&tags, "GET /render").starts_with("50.0ms (55.56%)"), "{tags}");
    assert!(row(&tags, "src/service.rs:81").starts_with("40.0ms (44.44%)"), "{tags}");
}

#[test]
fn go_focuses_on_a_task_by_name_and_by_number() {
    let Some(named) = go_pprof("name", &["-top", "-tagfocus=task_name=GET /hash"]) else { return };
    assert!(row(&named, "service::hash").starts_with("40ms"), "{named}");
    assert!(!named.contains("service::render"), "{named}");
    let Some(numbered) = go_pprof("number", &["-top", "-tagfocus=task=2"]) else { return };
    assert!(row(&numbered, "service::render").starts_with("30ms"), "{numbered}");
    assert!(!numbered.contains("service::hash"), "{numbered}");
}

#[test]
fn go_shows_the_mechanism_the_losses_and_the_build_ids() {
    let Some(raw) = go_pprof("raw", &["-raw"]) else { return };
    for part in
        ["mechanism: by hand", "lost: samples_dropped=7", "c0ffee", "beef", "cpu/nanoseconds"]
    {
        assert!(raw.contains(part), "{part}: {raw}");
    }
}

/// Returns the frames of the only sample of a file, the innermost first.
pub fn stack(test: &str, file: &[u8]) -> Option<Vec<String>> {
    let traces = go_pprof_of(file, test, &["-traces"])?;
    let lines = traces.lines().skip_while(|line| !line.starts_with("-----")).skip(1);
    let frames = lines.take_while(|line| !line.starts_with("-----"));
    // The amount, of that width, stands before the first.
    let name = |line: &str| line.get(13..).unwrap_or_default().trim().to_owned();
    Some(frames.map(|line| name(line).replace(" (inline)", "")).collect())
}

/// Returns what `go tool pprof` prints of the example.
fn go_pprof(test: &str, arguments: &[&str]) -> Option<String> {
    go_pprof_of(&pprof(&example::profile()), test, arguments)
}

fn go_pprof_of(profile: &[u8], test: &str, arguments: &[&str]) -> Option<String> {
    let out = go_pprof_in(test, &[("profile.pb.gz", profile)], arguments)?;
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// Returns the files of the difference of two profiles that `go tool pprof` writes: with `-diff_base`, and with `-base`.
pub fn differences(before: &[u8], after: &[u8]) -> Option<[Vec<u8>; 2]> {
    let files = [("before.pb.gz", before), ("profile.pb.gz", after)];
    let of = |base: &str| {
        let base = format!("{base}=before.pb.gz");
        go_pprof_in("difference", &files, &["-proto", "-output=/dev/stdout", &base])
    };
    Some([of("-diff_base")?, of("-base")?])
}

/// Returns what `go tool pprof` prints of `profile.pb.gz`, one of the files. Without Go, says so and returns `None`.
fn go_pprof_in(test: &str, files: &[(&str, &[u8])], arguments: &[&str]) -> Option<Vec<u8>> {
    if Command::new("go").arg("version").output().is_err() {
        // Not by eprintln!, which the test harness swallows.
        let _ =
            writeln!(io::stderr(), "SKIPPED: go_{test}: there is no `go` here to read our pprof");
        return None;
    }
    // Tests run side by side, and some have helpers of one name. Each run has a directory that nobody else removes.
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let dir = env::temp_dir().join(format!("pertask-go-{test}-{}-{run}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    for (name, file) in files {
        fs::write(dir.join(name), file).expect("a file");
    }
    let mut command = Command::new("go");
    command.args(["tool", "pprof"]).args(arguments).arg("profile.pb.gz").current_dir(&dir);
    // Its files belong below ours; and it looks for programs by build id, of which there are none.
    let output = command.env("HOME", &dir).env("PPROF_TMPDIR", &dir).env("PPROF_BINARY_PATH", &dir);
    let output = output.output().expect("go tool pprof");
    fs::remove_dir_all(&dir).expect("the directory again");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// The line about `name`, without the blanks around it.
fn row<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find(|line| line.trim_end().ends_with(name));
    line.unwrap_or_else(|| panic!("{name} in {text}")).trim()
}
