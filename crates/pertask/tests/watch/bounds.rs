//! What is no blocking poll, and how much is kept of many.

use super::support::{self, alone};
use super::{THRESHOLD, caught, options, rows, wait_for, watch};
use pertask::watch::{Watch, WatchOptions};
use pertask::{BlockedReport, Job, TaskExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

#[test]
fn a_poll_shorter_than_the_threshold_is_no_row() {
    let _alone = alone();
    let threshold = Duration::from_secs(3600);
    let watch = Watch::start(WatchOptions { threshold, ..options() }).unwrap();
    // Another watch, with a lower threshold, catches the poll.
    let until = |over: &AtomicBool| {
        while !over.load(Ordering::Relaxed) {
            thread::sleep(THRESHOLD);
        }
    };
    caught("short", |_| true, until);
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
fn what_is_taken_is_told_once() {
    let _alone = alone();
    let watch = watch();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let task = async {
            while !over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(20));
            }
        };
        let worker = scope.spawn(|| support::run(task.task("taken")));
        wait_for(&watch, "taken", |_| true);
        for _ in 0..2 {
            let taken = watch.take();
            assert_eq!(rows(&taken, "taken").iter().map(|row| row.under_way).sum::<u64>(), 1);
        }
        over.store(true, Ordering::Relaxed);
        worker.join().unwrap();
        wait_for(&watch, "taken", |row| row.under_way == 0);
        let taken = watch.take();
        assert_eq!(rows(&taken, "taken").iter().map(|row| row.polls).sum::<u64>(), 1);
    });
    assert!(rows(&watch.stop(), "taken").is_empty());
}

/// Takes again and again while polls end: no poll is in no report or in two, although to find their names takes a while.
#[test]
fn no_poll_is_lost_between_two_takings() {
    const POLLS: u64 = 20;
    let _alone = alone();
    let (watch, over) = (watch(), AtomicBool::new(false));
    let goes_on = |report: &BlockedReport| -> bool {
        rows(report, "one of many").iter().any(|row| row.under_way > 0)
    };
    let ended = |report: &BlockedReport| -> u64 {
        rows(report, "one of many").iter().map(|row| row.polls - row.under_way).sum()
    };
    let taken = thread::scope(|scope| {
        let taker = scope.spawn(|| {
            let mut taken = 0;
            while !over.load(Ordering::Relaxed) {
                taken += ended(&watch.take());
            }
            taken
        });
        for _ in 0..POLLS {
            let until_it_is_caught = async {
                while !goes_on(&watch.report()) {
                    thread::sleep(Duration::from_millis(20));
                }
            };
            support::run(until_it_is_caught.task("one of many"));
            while goes_on(&watch.report()) {
                thread::yield_now();
            }
        }
        over.store(true, Ordering::Relaxed);
        taker.join().unwrap()
    });
    assert_eq!(taken + ended(&watch.stop()), POLLS);
}
