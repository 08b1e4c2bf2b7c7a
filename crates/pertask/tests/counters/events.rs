//! Sets of events: shared, opened for each worker, closed with the last session; and their counts.

use crate::support::process::in_a_process_of_its_own;
use crate::support::{self, Puppet, alone, loudly, poll_once, run};
use crate::{Turns, attach, events, instructions, leave_the_cpu, source, touch_pages, value};
use pertask::{CounterEvent, Counters, Error, Event, SessionOptions, TaskExt};
use std::pin::pin;

/// Page faults of a task that has 300 and of one that has none, polled in turn; `with` selects how they are counted.
fn faults_of_two_tasks(with: &[&str]) -> (u64, u64) {
    let counters = Counters::open(&events(with)).unwrap();
    let mut busy = pin!(Turns(|| touch_pages(100)).task("busy"));
    let mut idle = pin!(Turns(|| ()).task("idle"));
    let (of_busy, of_idle) = (attach(&counters, &busy), attach(&counters, &idle));
    for _ in 0..3 {
        let _ = poll_once(busy.as_mut());
        let _ = poll_once(idle.as_mut());
    }
    let faults =
        |event: &Event<_>| value(&counters.values(&event.read()), "page-faults").count.unwrap();
    (faults(&of_busy), faults(&of_idle))
}

#[test]
fn page_faults_are_the_tasks_that_had_them() {
    let _turn = alone();
    // By getrusage, and, beside an event that only perf has, by a group; where perf is refused, by getrusage too.
    for with in [&["page-faults"][..], &["page-faults", "task-clock"]] {
        let (busy, idle) = faults_of_two_tasks(with);
        assert!((300..320).contains(&busy), "{with:?}: {busy}");
        assert!(idle < 10, "{with:?}: {idle}");
    }
}

#[test]
fn context_switches_are_counted_also_where_perf_shows_none() {
    let _turn = alone();
    let counters = Counters::open(&events(&["context-switches", "task-clock"])).unwrap();
    let mut waits = pin!(Turns(leave_the_cpu).task("waits"));
    let event = attach(&counters, &waits);
    for _ in 0..50 {
        let _ = poll_once(waits.as_mut());
    }
    let switches = value(&counters.values(&event.read()), "context-switches").count.unwrap();
    assert!(switches >= 50, "{switches} in 50 waits");
}

#[test]
fn workers_that_begin_later_are_counted_and_those_that_end_keep_their_counts() {
    let _turn = alone();
    let options = SessionOptions {
        counters: events(&["minor-faults", "task-clock"]),
        ..SessionOptions::default()
    };
    let session = options.start().unwrap();
    for _ in 0..3 {
        let worker = Puppet::new("late");
        worker.does(|| run(async { touch_pages(100) }.task("on a late worker")));
        worker.ends();
    }
    let report = session.stop();
    let row = support::row(&report, "on a late worker");
    let faults = value(&row.counters, "minor-faults").count.unwrap();
    assert!((300..330).contains(&faults), "{faults}");
    assert_eq!(report.lost.workers_without_counters, 0);
    assert_eq!(report.lost.turns_without_counters, 0);
}

#[test]
fn a_session_ends_with_all_its_descriptors_closed() {
    let _turn = alone();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let worker = Puppet::new("worker");
    worker.does(|| run(async {}.task("makes it a worker")));
    let before = open();
    let options = SessionOptions { counters: events(&["task-clock"]), ..SessionOptions::default() };
    let session = options.start().unwrap();
    if source(&session.snapshot().counters, "task-clock").source.is_none() {
        return loudly("SKIPPED: perf is refused, so nothing is opened");
    }
    assert!(open() > before, "nothing was opened");
    drop(session);
    assert_eq!(open(), before);
    worker.ends();
}

#[test]
fn a_set_is_shared_and_a_third_one_is_refused() {
    let _turn = alone();
    let open = |names: &[&str]| Counters::open(&events(names));
    let first = open(&["page-faults", "minor-faults"]).unwrap();
    let again = open(&["minor-faults", "page-faults"]).unwrap();
    let second = open(&["major-faults"]).unwrap();
    let busy = open(&["context-switches"]).unwrap_err();
    assert!(matches!(busy, Error::CountersBusy { sets: 2 }), "{busy}");
    drop(first);
    assert!(open(&["context-switches"]).is_err(), "somebody still uses the first set");
    drop(again);
    drop(open(&["context-switches"]).unwrap());
    // The first place is free, and what is counted in the second is joined there.
    let joined = open(&["major-faults"]).unwrap();
    drop(open(&["context-switches"]).unwrap());
    drop((second, joined));
    let known: Vec<_> = CounterEvent::known().collect();
    let too_many = open(&known).unwrap_err();
    assert!(matches!(too_many, Error::TooManyEvents { limit: 12, .. }), "{too_many}");
}

#[test]
fn counts_come_in_the_order_in_which_they_were_asked_for() {
    let _turn = alone();
    let first = Counters::open(&events(&["page-faults", "minor-faults"])).unwrap();
    let again = Counters::open(&events(&["minor-faults", "page-faults", "faults"])).unwrap();
    let names = |counters: &Counters| {
        counters.sources().into_iter().map(|source| source.event).collect::<Vec<_>>()
    };
    assert_eq!(names(&first), ["page-faults", "minor-faults"]);
    assert_eq!(names(&again), ["minor-faults", "page-faults"], "each once");
    let values = again.values(&pertask::CounterCounts::default());
    assert_eq!(values[0].event, "minor-faults");
}

#[test]
fn a_child_of_fork_goes_on_polling() {
    let _turn = alone();
    let with_pages = || {
        // SAFETY: this process is the test's own, and nothing else of it reads the environment now.
        unsafe { std::env::set_var("PERTASK_CLOCK", "perf-page") }
    };
    if !in_a_process_of_its_own("events::a_child_of_fork_goes_on_polling", with_pages) {
        return;
    }
    let options = SessionOptions { counters: events(&["task-clock"]), ..SessionOptions::default() };
    let session = options.start().unwrap();
    let mut task = pin!(Turns(|| instructions(100_000)).task("forks"));
    let _ = poll_once(task.as_mut());
    // SAFETY: the child runs this thread alone, which holds no lock, and ends at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        for _ in 0..100 {
            let _ = poll_once(task.as_mut());
        }
        // SAFETY: ends the child.
        unsafe { libc::_exit(7) };
    }
    let status = support::wait_for_child(child);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "the child: {status:#x}");
    let _ = poll_once(task.as_mut());
    assert!(support::row(&session.stop(), "forks").usage.cpu_ns > 0);
}
