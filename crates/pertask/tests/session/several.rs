//! Several sessions, at once and in turn: each has its own window, and takes nothing away from another.

use crate::support::{
    self, Puppet, StopOnDrop, Truth, alone, check_between, check_ns, cpu_time, ms, row, run,
    yield_once,
};
use crate::{LongPoll, at, between, check_long_poll, check_sums, step, steps};
use pertask::core::rcu;
use pertask::{CpuTime, Inherit, Session, TaskExt};
use std::sync::Mutex;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

/// A second session that starts in the middle of the same poll takes nothing away from the first.
#[test]
fn two_sessions_that_start_in_the_same_poll() {
    let _alone = alone();
    let poll = LongPoll::begin("seen twice");
    let (first, first_start) = at(poll.clock(), || Session::start().unwrap());
    poll.clock().wait_for(40);
    let (second, second_start) = at(poll.clock(), || Session::start().unwrap());
    poll.clock().wait_for(40);
    let (second, second_end) = at(poll.clock(), || second.stop());
    check_long_poll(&second, &poll, "seen twice", between(second_start, second_end));
    let (snapshot, now) = at(poll.clock(), || first.snapshot());
    check_long_poll(&snapshot, &poll, "seen twice", between(first_start, now));
    let end = poll.end();
    check_long_poll(&first.stop(), &poll, "seen twice", between(first_start, end));
    poll.puppet.ends();
}

/// One session after the other in the same poll: the second knows nothing of the first.
#[test]
fn sessions_one_after_the_other_in_the_same_poll() {
    let _alone = alone();
    let poll = LongPoll::begin("seen in turn");
    for _ in 0..3 {
        let (session, start) = at(poll.clock(), || Session::start().unwrap());
        poll.clock().wait_for(20);
        let (report, end) = at(poll.clock(), || session.stop());
        check_long_poll(&report, &poll, "seen in turn", between(start, end));
        poll.clock().wait_for(20);
    }
    poll.end();
    poll.puppet.ends();
}

#[test]
fn overlapping_sessions_each_have_their_own_window() {
    let _alone = alone();
    let mut task = steps("overlap", 5);
    step(1, &mut task);
    let first = Session::start().unwrap();
    step(3, &mut task);
    let mut other = steps("overlap, other", 5);
    step(1, &mut other);
    let second = Session::start().unwrap();
    step(4, &mut task);
    let second = second.stop();
    step(2, &mut task);
    drop(other);
    let first = first.stop();
    step(1, &mut task);

    let (in_first, in_second) = (row(&first, "overlap"), row(&second, "overlap"));
    assert_eq!((in_first.polls, in_second.polls), (9, 4));
    check_ns("first", in_first.cpu_ns, ms(45));
    check_ns("second", in_second.cpu_ns, ms(20));
    let (in_first, in_second) = (row(&first, "overlap, other"), row(&second, "overlap, other"));
    check_ns("first, other", in_first.cpu_ns, ms(5));
    assert_eq!((in_second.polls, in_second.cpu_ns), (0, 0));
    assert_eq!((in_first.tasks_started, in_second.tasks_started), (1, 0));
    assert_eq!((in_first.tasks_live, in_second.tasks_live), (0, 1));
    check_sums(&first);
    check_sums(&second);
}

/// An ended session does not end another's counting, whichever was first.
#[test]
fn the_second_session_outlives_the_first() {
    let _alone = alone();
    let mut task = steps("outlives", 5);
    let first = Session::start().unwrap();
    step(2, &mut task);
    let second = Session::start().unwrap();
    step(3, &mut task);
    let first = first.stop();
    step(4, &mut task);
    let second = second.stop();
    assert_eq!((row(&first, "outlives").polls, row(&second, "outlives").polls), (5, 7));
    check_ns("first", row(&first, "outlives").cpu_ns, ms(25));
    check_ns("second", row(&second, "outlives").cpu_ns, ms(35));
}

#[test]
fn stopping_and_dropping_detach() {
    let _alone = alone();
    let data = || {
        rcu::barrier().unwrap();
        cpu_time().cache().live()
    };
    let before = data();
    let mut tasks: Vec<_> = (0..50).map(|_| steps("detached", 0)).collect();
    let parent = &tasks[0].handle().unwrap().clone();
    for ends in [|session: Session| drop(session.stop()), drop::<Session>] {
        let global = Session::start().unwrap();
        let on_some = Session::start_on([parent], Inherit::Children).unwrap();
        tasks.iter_mut().for_each(|task| step(1, task));
        assert_eq!(data(), before + 50);
        ends(global);
        assert_eq!(data(), before + 1, "the one that is chosen");
        ends(on_some);
        assert_eq!(data(), before);
        // Nothing counts any more, and polls go on.
        tasks.iter_mut().for_each(|task| step(1, task));
        assert_eq!(data(), before);
    }
}

/// Sessions that start and stop on other threads while a task is polled: their counts never exceed what was done.
#[test]
fn sessions_come_and_go_while_a_task_runs() {
    let _alone = alone();
    let whole = Session::start().unwrap();
    let truth = Truth::default();
    let puppet = Puppet::new("busy");
    let working = StopOnDrop::default();
    let work = {
        let (truth, done) = (truth.clone(), working.flag());
        puppet.begins(move || {
            let future = truth.counts(|truth| async move {
                while !done.load(SeqCst) {
                    truth.spin(1);
                    yield_once().await;
                }
            });
            run(future.task("busy"));
        })
    };
    let seen = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let (session, start) = at(puppet.clock, || Session::start().unwrap());
                    puppet.clock.wait_for(3);
                    let (report, end) = at(puppet.clock, || session.stop());
                    let used = between(start, end);
                    seen.lock().unwrap().push((report, used));
                }
            });
        }
    });
    drop(working);
    work.recv().unwrap();
    puppet.ends();
    let whole = whole.stop();
    truth.check_row(row(&whole, "busy"));
    for (report, used) in seen.into_inner().unwrap() {
        check_sums(&report);
        let busy = row(&report, "busy");
        // The executor's glue between two polls is the thread's and not the task's.
        let least = used.0.saturating_sub(support::glue_ns(used.0));
        check_between("busy", busy.cpu_ns, (least, used.1));
    }
}

/// The PMU's own type is public, and so is its event: it says what the session says.
#[test]
fn an_event_and_a_session_agree() {
    let _alone = alone();
    let mut task = steps("agree", 5);
    let session = Session::start().unwrap();
    let mut event: pertask::Event<CpuTime> =
        cpu_time().attach_task(task.handle().unwrap(), Inherit::No).unwrap();
    step(3, &mut task);
    let report = session.snapshot();
    let (count, row) = (event.read(), row(&report, "agree"));
    assert_eq!((count.polls, count.cpu_ns, count.wall_ns), (row.polls, row.cpu_ns, row.wall_ns));
    event.reset().unwrap();
    step(2, &mut task);
    assert_eq!(event.read().polls, 2);
    check_ns("after the reset", event.read().cpu_ns, ms(10));
    assert_eq!(support::row(&session.stop(), "agree").polls, 5);
}
