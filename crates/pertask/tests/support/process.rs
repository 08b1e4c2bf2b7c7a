//! Tests in a process of their own, with less privilege.

use super::loudly;
use std::process::Command;

/// Runs one test of this program again, in a process of its own, after `prepare` has run there. Returns whether this is that process.
pub fn in_a_process_of_its_own(test: &str, prepare: impl FnOnce()) -> bool {
    const CHILD: &str = "PERTASK_TEST_CHILD";
    if std::env::var(CHILD).is_ok_and(|child| child == test) {
        prepare();
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    text.lines().filter(|line| line.contains("SKIPPED")).for_each(loudly);
    false
}

/// From here on, this thread and those that it starts are refused `perf_event_open`, as by a container's filter.
pub fn forbid_perf() {
    forbid(libc::SYS_perf_event_open);
}

/// From here on, this thread and those that it starts are refused a system call, as by a container's filter.
pub fn forbid(call: libc::c_long) {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let rules = [(call, Vec::new())].into();
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// From here on, this process has no privilege. Its files in `/proc` are its own, as those of a program that began so.
pub fn become_nobody() {
    // SAFETY: plain calls; this process is the test's own.
    let refused = unsafe {
        libc::setgid(65534) != 0
            || libc::setuid(65534) != 0
            || libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) != 0
    };
    if refused {
        loudly("SKIPPED in part: this user cannot become another: the test runs as who it is");
    }
}
