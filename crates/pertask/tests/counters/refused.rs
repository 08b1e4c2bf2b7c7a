//! What cannot be counted: it is absent, or marked, and says why.

use crate::support::process::{become_nobody, forbid_perf, in_a_process_of_its_own};
use crate::support::{self, Puppet, alone, loudly, poll_once, run};
use crate::{Turns, attach, events, leave_the_cpu, source, touch_pages, value};
use pertask::{Counters, SessionOptions, TaskExt};
use std::hint::black_box;
use std::pin::pin;

#[test]
fn what_cannot_be_counted_says_why() {
    let _turn = alone();
    let counters = Counters::open(&events(&["context-switches:u", "cpu-migrations:u"])).unwrap();
    for source in counters.sources() {
        assert_eq!(source.source, None, "{source:?}");
        assert!(source.refused.is_some_and(|reason| !reason.is_empty()));
    }
    let mut task = pin!(Turns(|| ()).task("nothing"));
    let event = attach(&counters, &task);
    let _ = poll_once(task.as_mut());
    assert!(counters.values(&event.read()).iter().all(|counter| counter.count.is_none()));
}

#[test]
fn with_perf_refused_by_a_filter_the_rest_is_counted_and_the_report_says_so() {
    if !in_a_process_of_its_own(
        "refused::with_perf_refused_by_a_filter_the_rest_is_counted_and_the_report_says_so",
        forbid_perf,
    ) {
        return;
    }
    let names = ["page-faults", "context-switches", "cpu-migrations", "task-clock", "cycles"];
    let options = SessionOptions { counters: events(&names), ..SessionOptions::default() };
    let session = options.start().unwrap();
    run(async { touch_pages(100) }.task("touches"));
    let report = session.stop();
    let row = support::row(&report, "touches");
    let faults = value(&row.counters, "page-faults");
    assert!((100..120).contains(&faults.count.unwrap()) && !faults.estimated, "{faults:?}");
    assert!(value(&row.counters, "cpu-migrations").estimated);
    for event in ["task-clock", "cycles"] {
        assert_eq!(value(&row.counters, event).count, None);
        let refused = source(&report.counters, event).refused.clone().unwrap();
        assert!(refused.contains("EPERM") && refused.contains("seccomp"), "{refused}");
    }
    let switches = source(&report.counters, "context-switches");
    assert!(switches.source.as_ref().unwrap().contains("getrusage"), "{switches:?}");
}

#[test]
fn an_unprivileged_user_sees_no_zero_that_is_none() {
    if !in_a_process_of_its_own(
        "refused::an_unprivileged_user_sees_no_zero_that_is_none",
        become_nobody,
    ) {
        return;
    }
    let names = ["context-switches", "cpu-migrations", "task-clock", "page-faults"];
    let options = SessionOptions { counters: events(&names), ..SessionOptions::default() };
    let session = options.start().unwrap();
    let mut waits = pin!(Turns(leave_the_cpu).task("waits"));
    for _ in 0..50 {
        let _ = poll_once(waits.as_mut());
    }
    let report = session.stop();
    let counters = &support::row(&report, "waits").counters;
    let switches = value(counters, "context-switches").count.unwrap();
    assert!(switches >= 50, "{switches} in 50 waits: {:?}", report.counters);
    let clock = source(&report.counters, "task-clock");
    let paranoid =
        std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    if paranoid.trim().parse::<i32>().is_ok_and(|level| level == 2) {
        assert!(clock.source.as_ref().unwrap().contains("user mode only"), "{clock:?}");
        assert!(clock.refused.as_ref().unwrap().contains("perf_event_paranoid is 2"), "{clock:?}");
        assert!(value(counters, "cpu-migrations").estimated);
    } else {
        loudly(&format!("SKIPPED in part: kernel.perf_event_paranoid is {paranoid}"));
    }
}

#[test]
fn a_worker_whose_counters_do_not_open_is_reported_with_the_reason() {
    let few_descriptors = || {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: one rlimit, ours; this process is the test's own.
        unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            limit.rlim_cur = 16;
            assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
        }
    };
    let test = "refused::a_worker_whose_counters_do_not_open_is_reported_with_the_reason";
    if !in_a_process_of_its_own(test, few_descriptors) {
        return;
    }
    let workers: Vec<_> = (0..12).map(|_| Puppet::new("worker")).collect();
    for worker in &workers {
        worker.does(|| run(async {}.task("makes it a worker")));
    }
    let options = SessionOptions { counters: events(&["task-clock"]), ..SessionOptions::default() };
    let session = options.start().unwrap();
    if source(&session.snapshot().counters, "task-clock").source.is_none() {
        return loudly("SKIPPED: perf is refused, so nothing is opened");
    }
    for (n, worker) in workers.iter().enumerate() {
        worker.does(|| run(async { black_box(1) }.task("short of descriptors")));
        worker.does(move || run(async { black_box(1) }.task(format!("only on {n}"))));
    }
    let report = session.stop();
    let row = support::row(&report, "short of descriptors");
    let clock = value(&row.counters, "task-clock");
    assert!(clock.estimated && clock.count.is_some(), "some of the turns were counted: {clock:?}");
    let lost = &report.lost;
    assert!((1..12).contains(&lost.workers_without_counters), "{lost:?}");
    assert_eq!(lost.turns_without_counters, 2 * lost.workers_without_counters, "{lost:?}");
    // What ran there alone has no count; that is not zero.
    let only = report
        .sites
        .iter()
        .filter(|row| row.site.name.as_ref().is_some_and(|name| name.starts_with("only on")));
    let (counted, not): (Vec<_>, Vec<_>) =
        only.map(|row| value(&row.counters, "task-clock").count).partition(Option::is_some);
    assert_eq!(not.len() as u64, lost.workers_without_counters, "{counted:?}");
    let refused = source(&report.counters, "task-clock").refused.clone().unwrap();
    assert!(refused.contains("EMFILE") && refused.contains("ulimit -n"), "{refused}");
    // The rest is the program's.
    let left: Vec<_> = (0..4).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    drop(left);
}
