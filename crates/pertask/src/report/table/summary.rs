//! The summary: the process's CPU time and its parts, to the nanosecond, so that a reader can add them up.

use crate::report::Report;
use pertask_text::human;
use pertask_text::ink::{Ink, Tint};
use pertask_text::text::width;

/// One line: a time, its part of the process, and what it is.
struct Part {
    cpu_ns: i128,
    percent: String,
    what: &'static str,
    /// More about the part, shown where there is room.
    details: &'static str,
}

/// The lines of the summary, none wider than `max`.
pub(super) fn lines(report: &Report, max: Option<usize>, ink: Ink) -> Vec<String> {
    let parts = parts(report);
    let process = part(report, report.process_cpu_ns, "process", "");
    let seconds = parts.iter().chain([&process]).map(|part| width(&seconds(part.cpu_ns))).max();
    let seconds = seconds.unwrap_or(0);
    let mut lines: Vec<_> = parts.iter().map(|part| part.line(seconds, max, ink)).collect();
    lines.push(ink.paint(&"─".repeat(seconds), Tint::Secondary));
    lines.push(ink.paint(&process.line(seconds, max, ink), Tint::Title));
    lines
}

fn parts(report: &Report) -> Vec<Part> {
    let driver = "scheduler, I/O driver, untracked futures";
    let mut parts = vec![part(report, report.tasks_cpu_ns, "in tasks", "")];
    if report.unknown_cpu_ns > 0 {
        let why = "polls ended out of order or on another thread";
        parts.push(part(report, report.unknown_cpu_ns, "task unknown", why));
    }
    parts.extend([
        part(report, report.workers_cpu_ns, "workers, outside tasks", driver),
        part(report, report.other_cpu_ns, "other threads", ""),
    ]);
    let told: i128 = parts.iter().map(|part| part.cpu_ns).sum();
    let rest = i128::from(report.process_cpu_ns) - told;
    if rest != 0 {
        parts.push(unattributed(rest, report.process_cpu_ns));
    }
    parts
}

fn part(report: &Report, cpu_ns: u64, what: &'static str, details: &'static str) -> Part {
    let percent = human::percent(cpu_ns, report.process_cpu_ns);
    Part { cpu_ns: cpu_ns.into(), percent, what, details }
}

/// The time that no part has or, where `cpu_ns` is negative, that two parts have.
fn unattributed(cpu_ns: i128, process_cpu_ns: u64) -> Part {
    let size = u64::try_from(cpu_ns.unsigned_abs()).unwrap_or(u64::MAX);
    let sign = if cpu_ns < 0 { "-" } else { "" };
    let percent = format!("{sign}{}", human::percent(size, process_cpu_ns));
    let details = if cpu_ns < 0 { "counted twice above" } else { "in none of the above" };
    Part { cpu_ns, percent, what: "unattributed", details }
}

impl Part {
    fn line(&self, seconds_width: usize, max: Option<usize>, ink: Ink) -> String {
        let Self { cpu_ns, percent, what, details } = self;
        let line = format!("{:>seconds_width$}  {percent:>6}  {what}", seconds(*cpu_ns));
        let details = format!(" ({details})");
        let fits = max.is_none_or(|max| width(&line) + width(&details) <= max);
        match fits && !self.details.is_empty() {
            true => line + &ink.paint(&details, Tint::Secondary),
            false => line,
        }
    }
}

/// Seconds with every digit, as `perf stat` prints them.
fn seconds(ns: i128) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let ns = ns.unsigned_abs();
    format!("{sign}{}.{:09} s", ns / 1_000_000_000, ns % 1_000_000_000)
}
