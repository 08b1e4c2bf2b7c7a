//! Advice for a report in which no CPU time is in tasks: how to make tasks that are seen.

use crate::report::Report;

/// How a program makes tasks that sessions see.
const NAME_OR_SPAWN: &str =
    "name futures with `.task(\"..\")`, or spawn them with `pertask::tokio::spawn`";

/// How a program on tokio tracks the tasks of libraries.
const LIBRARIES: &str = "For tasks that libraries spawn on tokio: build with `--cfg tokio_unstable`, and call \
     `pertask::tokio::track_runtime`";

/// The lines of advice. There are none where tasks used the CPU, or where tasks were seen and nothing was busy.
pub(super) fn lines(report: &Report) -> Vec<String> {
    let reason = if report.sites.is_empty() {
        "No task was seen"
    } else if report.tasks_cpu_ns == 0 && threads_were_busy(report) {
        "No task used the CPU, but threads did"
    } else {
        return Vec::new();
    };
    vec![format!("{reason}: {NAME_OR_SPAWN}"), LIBRARIES.to_owned()]
}

/// Whether the threads used more than a hundredth of a CPU outside tasks: a session alone uses less.
fn threads_were_busy(report: &Report) -> bool {
    let outside_ns = report.workers_cpu_ns.saturating_add(report.other_cpu_ns);
    outside_ns > report.duration_ns / 100
}
