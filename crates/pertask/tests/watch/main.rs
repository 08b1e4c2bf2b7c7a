//! The watch: it catches polls that block their worker, says what they do and where, and disturbs nobody.
//!
//! No poll here lasts for a given time. Each goes on until the watch has caught it, however busy the machine is.

#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod harmless;
mod places;
mod refused;
mod states;
mod told;

use pertask::watch::{Watch, WatchOptions};
use pertask::{BlockedReport, BlockedRow, TaskExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const THRESHOLD: Duration = Duration::from_millis(5);

fn watch() -> Watch {
    Watch::start(options()).unwrap()
}

fn options() -> WatchOptions {
    WatchOptions { threshold: THRESHOLD, ..WatchOptions::default() }
}

/// The rows of tasks with this name.
fn rows<'r>(report: &'r BlockedReport, name: &str) -> Vec<&'r BlockedRow> {
    let named = |row: &&BlockedRow| row.site.name.as_deref() == Some(name);
    report.rows.iter().filter(named).collect()
}

/// Runs a task whose one poll goes on until the watch has caught it as wanted, which `block` is told by the flag. Returns the row.
fn caught(
    name: &str,
    wanted: impl Fn(&BlockedRow) -> bool,
    block: impl FnOnce(&AtomicBool) + Send,
) -> BlockedRow {
    caught_by(watch(), name, wanted, block).0
}

/// The same, by this watch. Returns its report as well.
fn caught_by(
    watch: Watch,
    name: &str,
    wanted: impl Fn(&BlockedRow) -> bool,
    block: impl FnOnce(&AtomicBool) + Send,
) -> (BlockedRow, BlockedReport) {
    let over = AtomicBool::new(false);
    let while_it_lasts = thread::scope(|scope| {
        let task = async { block(&over) }.task(name);
        let worker = scope.spawn(|| support::run(task));
        let row = wait_for(&watch, name, &wanted);
        over.store(true, Ordering::Relaxed);
        worker.join().unwrap();
        row
    });
    assert_eq!((while_it_lasts.polls, while_it_lasts.under_way), (1, 1), "{while_it_lasts:#?}");
    let report = watch.stop();
    let rows = rows(&report, name);
    let [row] = rows[..] else { panic!("one row: {rows:#?}") };
    assert_eq!((row.polls, row.under_way, row.at_least), (1, 0, false), "{row:#?}");
    assert!(row.max_ns >= while_it_lasts.max_ns && row.max_ns == row.total_ns, "{row:#?}");
    assert!(row.max_ns >= THRESHOLD.as_nanos() as u64, "{row:#?}");
    let row = row.clone();
    (row, report)
}

/// Waits until there is such a row of tasks with this name.
fn wait_for(watch: &Watch, name: &str, wanted: impl Fn(&BlockedRow) -> bool) -> BlockedRow {
    loop {
        let report = watch.report();
        if let Some(row) = rows(&report, name).into_iter().find(|row| wanted(row)) {
            return row.clone();
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the stack is known.
fn has_stack(row: &BlockedRow) -> bool {
    !row.stack.is_empty()
}

/// Whether the program's own frame is in this file, at this line, and in a function of this name.
fn is_at(row: &BlockedRow, file: &str, line: u32, function: &str) -> bool {
    let Some(place) = &row.place else { return false };
    let ends = |text: &Option<String>, end: &str| text.as_ref().is_some_and(|it| it.contains(end));
    ends(&place.file, file) && place.line == Some(line) && ends(&place.function, function)
}
