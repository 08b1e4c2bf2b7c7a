//! One session: what comes before its start and after its end is not in it, wherever in a poll they fall.

use crate::support::{
    self, Puppet, alone, check_between, check_ns, ms, row, run, spin, thread_cpu_ns, thread_row,
    yield_once,
};
use crate::{LongPoll, at, between, check_long_poll, check_sums, step, steps};
use pertask::{Session, SessionOptions, TaskExt};
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};

#[test]
fn only_what_comes_after_the_start() {
    let _alone = alone();
    let mut task = steps("ran before", 10);
    step(5, &mut task);
    let all = SessionOptions { max_tasks: usize::MAX, ..SessionOptions::default() };
    // The first counts what the second must not.
    let first = all.clone().start().unwrap();
    step(5, &mut task);
    let session = all.clone().start().unwrap();
    step(2, &mut task);
    let report = session.stop();
    step(5, &mut task);
    drop(first);

    let id = task.handle().unwrap().id().get();
    let listed = report.tasks.iter().find(|task| task.id == id).expect("it is alive");
    assert_eq!((listed.name.as_deref(), listed.polls), (Some("ran before"), 2));
    check_ns("the task's own row", listed.cpu_ns, ms(20));
    let thread = thread_row(&report, support::thread_number());
    check_ns("the thread's time in tasks", thread.tasks_cpu_ns, ms(20));

    let row = row(&report, "ran before");
    assert_eq!((row.tasks_started, row.tasks_live, row.polls), (0, 1, 2));
    check_ns("ran before", row.cpu_ns, ms(20));
    assert_eq!(report.tasks_cpu_ns, row.cpu_ns);
    check_sums(&report);
}

/// A task that has ended before the session is not in it, and one that sleeps through it has no row of work.
#[test]
fn tasks_that_did_nothing_have_no_time() {
    let _alone = alone();
    run(async { spin(5) }.task("ended before"));
    let mut sleeper = Box::pin(pending::<()>().task("sleeps through"));
    step(1, &mut sleeper);
    let session = Session::start().unwrap();
    let report = session.stop();
    assert!(!report.sites.iter().any(|site| site.name.as_deref() == Some("ended before")));
    let row = row(&report, "sleeps through");
    assert_eq!((row.tasks_live, row.tasks_started, row.polls, row.cpu_ns), (1, 0, 0, 0));
    assert_eq!((report.tasks_cpu_ns, row.max_poll_ns), (0, Some(0)));
}

#[test]
fn a_poll_that_is_longer_than_the_session() {
    let _alone = alone();
    let poll = LongPoll::begin("longer");
    poll.clock().wait_for(30);
    let (session, start) = at(poll.clock(), || Session::start().unwrap());
    poll.clock().wait_for(40);
    let (report, end) = at(poll.clock(), || session.stop());
    check_long_poll(&report, &poll, "longer", between(start, end));
    assert_eq!(row(&report, "longer").tasks_live, 1);
    poll.end();
    poll.puppet.ends();
}

#[test]
fn a_poll_that_ends_in_the_session() {
    let _alone = alone();
    let poll = LongPoll::begin("ends inside");
    poll.clock().wait_for(30);
    let (session, start) = at(poll.clock(), || Session::start().unwrap());
    poll.clock().wait_for(40);
    let end = poll.end();
    let report = session.stop();
    check_long_poll(&report, &poll, "ends inside", between(start, end));
    assert_eq!(row(&report, "ends inside").tasks_live, 0);
    poll.puppet.ends();
}

#[test]
fn a_poll_that_begins_in_the_session() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let poll = LongPoll::begin("begins inside");
    poll.clock().wait_for(40);
    let (report, end) = at(poll.clock(), || session.stop());
    check_long_poll(&report, &poll, "begins inside", between(poll.begins, end));
    let row = row(&report, "begins inside");
    assert_eq!((row.tasks_started, row.tasks_live, row.polls), (1, 1, 1));
    poll.end();
    poll.puppet.ends();
}

/// An inner task runs when the session starts; its outer one goes on when it is ready.
#[test]
fn nested_tasks_at_the_start() {
    let _alone = alone();
    let puppet = Puppet::new("nest");
    let [inner_end, outer_end] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (tell, told) = mpsc::channel();
    let ended = {
        let (inner_end, outer_end) = (Arc::clone(&inner_end), Arc::clone(&outer_end));
        let spin_until = |end: &AtomicBool| {
            while !end.load(SeqCst) {
                spin(1);
            }
        };
        puppet.begins(move || {
            let outer = async move {
                let inner = async {
                    tell.send(0).unwrap();
                    spin_until(&inner_end);
                    thread_cpu_ns()
                };
                let inner_ends = inner.task("nest inner").await;
                let outer_goes_on = thread_cpu_ns();
                tell.send(outer_goes_on).unwrap();
                spin_until(&outer_end);
                ((inner_ends, outer_goes_on), thread_cpu_ns())
            };
            let (turn, inside) = run(outer.task("nest outer"));
            (turn, (inside, thread_cpu_ns()))
        })
    };
    told.recv().unwrap();
    let (session, start) = at(puppet.clock, || Session::start().unwrap());
    puppet.clock.wait_for(30);
    inner_end.store(true, SeqCst);
    told.recv().unwrap();
    puppet.clock.wait_for(20);
    let (snapshot, now) = at(puppet.clock, || session.snapshot());
    outer_end.store(true, SeqCst);
    let (turn, end) = ended.recv().unwrap();
    let report = session.stop();
    check_between("inner", row(&report, "nest inner").cpu_ns, between(start, turn));
    check_between("outer, running", row(&snapshot, "nest outer").cpu_ns, between(turn, now));
    check_between("outer", row(&report, "nest outer").cpu_ns, between(turn, end));
    puppet.ends();
}

/// A longest poll that may be older than the session is not shown; one that is newer is.
#[test]
fn the_longest_poll_is_of_the_window_or_unknown() {
    let _alone = alone();
    let milliseconds = Arc::new(AtomicU64::new(20));
    let length = Arc::clone(&milliseconds);
    let work = async move {
        loop {
            spin(length.load(SeqCst));
            yield_once().await;
        }
    };
    let mut task = Box::pin(work.task("longest"));
    let first = Session::start().unwrap();
    step(1, &mut task);
    let second = Session::start().unwrap();
    let longest = |session: &Session| row(&session.snapshot(), "longest").max_poll_ns;
    let of_first = longest(&first).expect("it began with the session");
    assert!(of_first >= ms(20));

    milliseconds.store(1, SeqCst);
    step(3, &mut task);
    assert_eq!(longest(&first), Some(of_first));
    let polled = row(&second.snapshot(), "longest").clone();
    assert_eq!(polled.polls, 3);
    // The three may each have been held up for longer than the first, on a busy machine.
    assert!(polled.max_poll_ns.is_none_or(|longest| longest > of_first), "{polled:?}");

    milliseconds.store(of_first / ms(1) + 10, SeqCst);
    step(1, &mut task);
    let new = longest(&second).expect("it is longer than what was before");
    assert!(new > of_first);
    assert_eq!(longest(&first), Some(new));
}

#[test]
fn as_many_live_tasks_are_listed_as_was_asked_for() {
    let _alone = alone();
    let mut tasks: Vec<_> = (1..=6).map(|n| steps("listed", n * 2)).collect();
    for (asked, listed) in [(0, 0), (4, 4), (100, 6)] {
        let session =
            SessionOptions { max_tasks: asked, ..SessionOptions::default() }.start().unwrap();
        tasks.iter_mut().for_each(|task| step(1, task));
        let report = session.stop();
        let mine = || report.tasks.iter().filter(|task| task.name.as_deref() == Some("listed"));
        assert_eq!(mine().count(), listed, "{asked} asked for: {:#?}", report.tasks);
        assert!(report.tasks.is_sorted_by(|a, b| a.cpu_ns >= b.cpu_ns), "most CPU time first");
        // Those with the most.
        for (task, n) in mine().zip((1..=6).rev()) {
            check_ns("listed", task.cpu_ns, ms(n * 2));
        }
        assert_eq!(row(&report, "listed").tasks_live, 6, "the site's row counts all");
    }
}
