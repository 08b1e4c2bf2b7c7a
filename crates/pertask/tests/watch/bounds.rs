//! What is no blocking poll, and how much is kept of many.

use super::support::{self, alone};
use super::{THRESHOLD, options, rows, wait_for, watch};
use pertask::watch::{Watch, WatchOptions};
use pertask::{Job, TaskExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

#[test]
fn a_poll_shorter_than_the_threshold_is_no_row() {
    let _alone = alone();
    let threshold = Duration::from_secs(3600);
    let watch = Watch::start(WatchOptions { threshold, ..options() }).unwrap();
    support::run(async { thread::sleep(4 * THRESHOLD) }.task("short"));
    let report = watch.stop();
    assert_eq!((report.polls, report.rows.len()), (0, 0), "{report:#?}");
    assert_eq!(report.threshold_ns, 3_600_000_000_000);
}

#[test]
fn a_job_on_a_thread_of_its_own_may_take_as_long_as_it_likes() {
    let _alone = alone();
    let watch = watch();
    let job = || {
        let mut job = Job::new("job");
        job.run(|| thread::sleep(20 * THRESHOLD));
    };
    // The first may be caught before the site is known to stand alone; there is no such moment.
    thread::spawn(job).join().unwrap();
    let report = watch.stop();
    assert!(rows(&report, "job").is_empty(), "{report:#?}");
}

#[test]
fn many_different_polls_take_bounded_memory_and_all_are_counted() {
    let _alone = alone();
    let few = WatchOptions { most_rows: 2, most_stacks_a_second: 1, ..options() };
    let watch = Watch::start(few).unwrap();
    for name in ["a", "b", "c", "d"] {
        let so_far = watch.report().polls;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let task = async {
                while !over.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(20));
                }
            };
            let worker = scope.spawn(|| support::run(task.task(name)));
            while watch.report().polls == so_far {
                thread::sleep(Duration::from_millis(2));
            }
            over.store(true, Ordering::Relaxed);
            worker.join().unwrap();
        });
    }
    let report = watch.stop();
    assert_eq!((report.polls, report.rows.len(), report.polls_without_row), (4, 2, 2));
    let in_rows: u64 = report.rows.iter().map(|row| row.total_ns).sum();
    assert!(report.total_ns > in_rows, "{report:#?}");
}

#[test]
fn what_is_cleared_is_not_told_again() {
    let _alone = alone();
    let watch = watch();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let task = async {
            while !over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(20));
            }
        };
        let worker = scope.spawn(|| support::run(task.task("cleared")));
        wait_for(&watch, "cleared", |_| true);
        watch.clear();
        assert_eq!(rows(&watch.report(), "cleared").len(), 1, "it goes on");
        over.store(true, Ordering::Relaxed);
        worker.join().unwrap();
        wait_for(&watch, "cleared", |row| row.under_way == 0);
        watch.clear();
    });
    assert!(rows(&watch.stop(), "cleared").is_empty());
}
