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
use std::time::Instant;

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
    assert_eq!((listed.site.name.as_deref(), listed.usage.polls), (Some("ran before"), 2));
    check_ns("the task's own row", listed.usage.cpu_ns, ms(20));
    let thread = thread_row(&report, support::thread_number());
    check_ns("the thread's time in tasks", thread.tasks_cpu_ns, ms(20));

    let row = row(&report, "ran before");
    assert_eq!((row.tasks_started, row.tasks_live, row.usage.polls), (0, 1, 2));
    check_ns("ran before", row.usage.cpu_ns, ms(20));
    assert_eq!(report.tasks_cpu_ns, row.usage.cpu_ns);
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
    assert!(!report.sites.iter().any(|site| site.site.name.as_deref() == Some("ended before")));
    let row = row(&report, "sleeps through");
    assert_eq!(
        (row.tasks_live, row.tasks_started, row.usage.polls, row.usage.cpu_ns),
        (1, 0, 0, 0)
    );
    assert_eq!((report.tasks_cpu_ns, row.usage.max_poll_ns), (0, 0));
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
    assert_eq!((row.tasks_started, row.tasks_live, row.usage.polls), (1, 1, 1));
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
    check_between("inner", row(&report, "nest inner").usage.cpu_ns, between(start, turn));
    check_between("outer, running", row(&snapshot, "nest outer").usage.cpu_ns, between(turn, now));
    check_between("outer", row(&report, "nest outer").usage.cpu_ns, between(turn, end));
    puppet.ends();
}

/// Each session has its own, whatever was longer before it began, and whatever sessions begin after it.
#[test]
fn the_longest_poll_is_of_the_window() {
    let _alone = alone();
    let milliseconds = Arc::new(AtomicU64::new(40));
    let (length, longest) = (Arc::clone(&milliseconds), Arc::new(AtomicU64::new(0)));
    let true_longest = Arc::clone(&longest);
    let work = async move {
        loop {
            let began = Instant::now();
            spin(length.load(SeqCst));
            let wall_ns = u64::try_from(began.elapsed().as_nanos()).unwrap();
            longest.fetch_max(wall_ns, SeqCst);
            yield_once().await;
        }
    };
    let mut task = Box::pin(work.task("longest"));
    let mut sessions = Vec::new();
    // What each session must have at the end: the longest poll since it began.
    let mut truths = Vec::<u64>::new();
    for polled_ms in [40, 2, 20, 1, 5] {
        sessions.push(Session::start().unwrap());
        truths.push(0);
        milliseconds.store(polled_ms, SeqCst);
        true_longest.store(0, SeqCst);
        step(2, &mut task);
        let new = true_longest.load(SeqCst);
        truths.iter_mut().for_each(|truth| *truth = new.max(*truth));
        for (session, truth) in sessions.iter().zip(&truths) {
            let polled = row(&session.snapshot(), "longest").usage.clone();
            // Wall time: the poll may wait for a CPU just before and after what it measures of itself.
            assert!(polled.max_poll_ns + truth / 1_000 >= *truth, "{polled:?} {truth}");
            assert!(polled.max_poll_ns <= polled.wall_ns, "{polled:?}");
        }
    }
    // The ended task's polls stay those of its site.
    let reports: Vec<_> = sessions.iter().map(Session::snapshot).collect();
    drop(task);
    for (session, before) in sessions.into_iter().zip(reports) {
        let report = session.stop();
        let (after, before) = (row(&report, "longest"), row(&before, "longest"));
        assert_eq!((after.tasks_live, after.usage.max_poll_ns), (0, before.usage.max_poll_ns));
    }
}

/// A session that begins after long polls does not have them.
#[test]
fn longer_polls_of_before_are_not_in_it() {
    let _alone = alone();
    let mut task = steps("was long", 1);
    let first = Session::start().unwrap();
    run(async { spin(60) }.task("was long before"));
    step(1, &mut task);
    let second = Session::start().unwrap();
    let report = second.snapshot();
    assert_eq!(row(&report, "was long").usage.max_poll_ns, 0, "it has not been polled");
    assert!(!report.sites.iter().any(|site| site.usage.max_poll_ns >= ms(60)), "{report:#?}");
    step(1, &mut task);
    let polled = row(&second.stop(), "was long").usage.clone();
    assert!((ms(1)..=polled.wall_ns).contains(&polled.max_poll_ns), "{polled:?}");
    drop(first);
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
        let mine =
            || report.tasks.iter().filter(|task| task.site.name.as_deref() == Some("listed"));
        assert_eq!(mine().count(), listed, "{asked} asked for: {:#?}", report.tasks);
        assert!(
            report.tasks.is_sorted_by(|a, b| a.usage.cpu_ns >= b.usage.cpu_ns),
            "most CPU time first"
        );
        // Those with the most.
        for (task, n) in mine().zip((1..=6).rev()) {
            check_ns("listed", task.usage.cpu_ns, ms(n * 2));
        }
        assert_eq!(row(&report, "listed").tasks_live, 6, "the site's row counts all");
    }
}
