//! Polls that a session begins, looks or ends in.

use crate::support::{self, Puppet, alone, poll_once, run};
use crate::{Turns, events, touch_pages, value};
use pertask::{Inherit, Report, SessionOptions, TaskExt};
use std::pin::pin;
use std::sync::mpsc;

#[test]
fn a_poll_under_way_is_in_the_report() {
    let _turn = alone();
    for names in [&["page-faults"][..], &["page-faults", "task-clock"]] {
        let worker = Puppet::new("worker");
        let (tell, told) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let turn = move || {
            for _ in 0..2 {
                tell.send(()).unwrap();
                may_go_on.recv().unwrap();
                touch_pages(200);
            }
            tell.send(()).unwrap();
            may_go_on.recv().unwrap();
        };
        let ended = worker.begins(move || {
            let _ = poll_once(pin!(Turns(turn).task("long poll")));
        });
        told.recv().unwrap();
        // Attached in the midst of the poll: what comes from here on counts.
        go_on.send(()).unwrap();
        told.recv().unwrap();
        let options = SessionOptions { counters: events(names), ..SessionOptions::default() };
        let session = options.start().unwrap();
        let faults = |report: &Report| {
            value(&support::row(report, "long poll").counters, "page-faults").count.unwrap()
        };
        let before = faults(&session.snapshot());
        go_on.send(()).unwrap();
        told.recv().unwrap();
        let during = faults(&session.snapshot());
        go_on.send(()).unwrap();
        ended.recv().unwrap();
        let after = faults(&session.stop());
        assert!(before < 20, "{names:?}: {before} before");
        assert!((200..240).contains(&during), "{names:?}: {during} during the poll");
        assert!((during..during + 20).contains(&after), "{names:?}: {during}, then {after}");
        worker.ends();
    }
}

#[test]
fn a_session_that_begins_in_a_poll_which_another_saw_begin_counts_from_its_own_start() {
    let _turn = alone();
    for names in [&["page-faults"][..], &["page-faults", "task-clock"]] {
        count_in_a_poll_which_another_session_saw_begin(names);
    }
}

fn count_in_a_poll_which_another_session_saw_begin(names: &[&str]) {
    let session = || {
        let counters = events(names);
        SessionOptions { counters, ..SessionOptions::default() }.start().unwrap()
    };
    let worker = Puppet::new("worker");
    worker.does(|| run(async {}.task("makes it a worker")));
    let (tell, told) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let first = session();
    // What the closed counters had counted is not taken for what the new ones have.
    worker.does(|| touch_pages(500));
    let turn = move || {
        for _ in 0..2 {
            touch_pages(200);
            tell.send(()).unwrap();
            may_go_on.recv().unwrap();
        }
    };
    let ended = worker.begins(move || {
        let _ = poll_once(pin!(Turns(turn).task("longer than a session")));
    });
    told.recv().unwrap();
    drop(first);
    // All counters are closed now, and opened anew.
    let second = session();
    go_on.send(()).unwrap();
    told.recv().unwrap();
    let faults = |report: &Report| {
        let row = support::row(report, "longer than a session");
        value(&row.counters, "page-faults").count.unwrap()
    };
    let during = faults(&second.snapshot());
    go_on.send(()).unwrap();
    ended.recv().unwrap();
    let after = faults(&second.stop());
    assert!((200..240).contains(&during), "{during} during the poll");
    assert!((during..during + 20).contains(&after), "{during}, then {after}");
    worker.ends();
}

#[test]
fn snapshots_beside_short_polls_count_each_poll_once() {
    let _turn = alone();
    let stop = support::StopOnDrop::default();
    let flag = stop.flag();
    let options =
        SessionOptions { counters: events(&["page-faults"]), ..SessionOptions::default() };
    let session = options.start().unwrap();
    let worker = Puppet::new("worker");
    let polls = worker.begins(move || {
        let mut task = pin!(Turns(|| touch_pages(50)).task("short polls"));
        let mut polls = 0;
        while !flag.load(std::sync::atomic::Ordering::SeqCst) {
            let _ = poll_once(task.as_mut());
            polls += 1;
        }
        polls
    });
    let faults = |report: &Report| {
        let row = report.sites.iter().find(|row| row.name.as_deref() == Some("short polls"));
        row.map_or(0, |row| value(&row.counters, "page-faults").count.unwrap())
    };
    let mut last = 0;
    for _ in 0..500 {
        let now = faults(&session.snapshot());
        // One counted twice would be missing from the next.
        assert!(now >= last, "{last}, then {now}");
        last = now;
    }
    drop(stop);
    let polls: u64 = polls.recv().unwrap();
    let all = faults(&session.stop());
    assert!((polls * 50..polls * 51 + 100).contains(&all), "{all} in {polls} polls");
    worker.ends();
}

#[test]
fn two_sessions_count_the_same_task_each_from_its_own_start() {
    let _turn = alone();
    let options =
        || SessionOptions { counters: events(&["page-faults"]), ..SessionOptions::default() };
    let faults = |report: &Report| {
        value(&support::row(report, "shared").counters, "page-faults").count.unwrap()
    };
    let first = options().start().unwrap();
    let mut task = pin!(Turns(|| touch_pages(100)).task("shared"));
    let _ = poll_once(task.as_mut());
    let second = options().start_on([task.handle().unwrap()], Inherit::No).unwrap();
    let _ = poll_once(task.as_mut());
    let (of_first, of_second) = (faults(&first.stop()), faults(&second.stop()));
    assert!((200..220).contains(&of_first), "{of_first}");
    assert!((100..110).contains(&of_second), "{of_second}");
}
