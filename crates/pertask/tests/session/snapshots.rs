//! Snapshots while the session goes on.

use crate::support::{
    self, Puppet, StopOnDrop, alone, check_between, cpu_time, ms, row, run, spin, wait_until,
};
use crate::{LongPoll, at, check_sums, step, steps};
use pertask::core::{Edge, Pmu, Switch, System};
use pertask::{CpuTimeData, Inherit, Report, Session, SiteReport, TaskExt};
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

/// What a snapshot says never goes back in a later one.
#[track_caller]
fn check_monotone(before: &Report, after: &Report) {
    let totals = |report: &Report| {
        [
            ("duration_ns", report.duration_ns),
            ("process_cpu_ns", report.process_cpu_ns),
            ("tasks_cpu_ns", report.tasks_cpu_ns),
        ]
    };
    for (before, after) in totals(before).into_iter().zip(totals(after)) {
        assert!(before.1 <= after.1, "{before:?} was followed by {after:?}");
    }
    for was in &before.sites {
        let same = |site: &&SiteReport| {
            (&site.name, &site.file, site.line) == (&was.name, &was.file, was.line)
        };
        let is = after.sites.iter().find(same);
        let is = is.unwrap_or_else(|| panic!("the row is gone: {was:?}"));
        assert!(
            was.polls <= is.polls
                && was.cpu_ns <= is.cpu_ns
                && was.wall_ns <= is.wall_ns
                && was.tasks_started <= is.tasks_started
                && was.max_poll_ns <= is.max_poll_ns,
            "{was:?} was followed by {is:?}"
        );
    }
    for was in before.threads.iter().filter(|thread| thread.tid.is_some()) {
        if let Some(is) = after.threads.iter().find(|thread| thread.tid == was.tid) {
            let grown = was.cpu_ns <= is.cpu_ns && was.tasks_cpu_ns <= is.tasks_cpu_ns;
            assert!(grown, "{was:?} was followed by {is:?}");
        }
    }
}

/// Snapshots while tasks are born, polled and ended. The walk over all of them takes some milliseconds, in which polls
/// end that have been seen running; the polls are longer than the time between two snapshots, so that one which is
/// missing shows.
#[test]
fn snapshots_never_go_back() {
    const IDLE: usize = 20_000;
    let _alone = alone();
    let session = Session::start().unwrap();
    let puppets = [Puppet::new("polls"), Puppet::new("ends"), Puppet::new("makes")];
    // Each becomes a CPU in this order, in which a walk goes as well: the idle tasks come last, so that the others
    // have been passed when their polls end.
    puppets.iter().for_each(|puppet| puppet.does(|| run(async {}.task("first"))));
    let idle = puppets[2]
        .does(|| -> Vec<_> { (0..IDLE).map(|_| Box::pin(pending::<()>().task("idle"))).collect() });
    let working = StopOnDrop::default();
    let (done_polling, done_ending) = (working.flag(), working.flag());
    let polling = puppets[0].begins(move || {
        let mut task = steps("monotone, one task", 100);
        while !done_polling.load(SeqCst) {
            step(1, &mut task);
        }
    });
    let ending = puppets[1].begins(move || {
        while !done_ending.load(SeqCst) {
            run(async { spin(100) }.task("monotone, many tasks"));
        }
    });
    let mut before = session.snapshot();
    let until = support::process_cpu_ns() + ms(3000);
    while support::process_cpu_ns() < until {
        let after = session.snapshot();
        check_monotone(&before, &after);
        check_sums(&after);
        before = after;
    }
    drop(working);
    polling.recv().unwrap();
    ending.recv().unwrap();
    assert_eq!(row(&before, "idle").tasks_live, idle.len() as u64);
    check_monotone(&before, &session.stop());
}

/// A PMU whose hook, on one thread, is held up between a task's last instruction and its switch.
///
/// This makes sure of a moment that otherwise comes by chance: a thread that is preempted there.
struct HeldUp;

static HOLD_THREAD: AtomicU64 = AtomicU64::new(0);

static HELD: AtomicBool = AtomicBool::new(false);

impl Pmu for HeldUp {
    const NAME: &'static str = "held-up";
    type Data = CpuTimeData;
    type CpuData = ();
    type Count = ();

    fn sched_in(&self, _: Switch<'_, Self>) {}

    fn sched_out(&self, switch: Switch<'_, Self>) {
        let thread = u64::from(support::thread_number());
        if switch.edge == Edge::Turn && HOLD_THREAD.load(SeqCst) == thread {
            HELD.store(true, SeqCst);
            while HOLD_THREAD.load(SeqCst) == thread {
                thread::yield_now();
            }
            HELD.store(false, SeqCst);
        }
    }

    fn read(&self, _: &CpuTimeData) {}
}

/// A snapshot at the moment at which the task's time has been charged, but it has not been switched out.
#[test]
fn a_snapshot_in_the_middle_of_a_switch_counts_once() {
    let _alone = alone();
    // In this order, so that the one is held up after the other has counted.
    cpu_time();
    let held_up = System::global().register(HeldUp).unwrap();
    let session = Session::start().unwrap();
    let poll = LongPoll::begin("held up");
    let _held_up = held_up.attach_task(&poll.task, Inherit::No).unwrap();
    poll.clock().wait_for(40);
    HOLD_THREAD.store(u64::from(poll.puppet.number), SeqCst);
    poll.end.store(true, SeqCst);
    wait_until("the switch is under way", || HELD.load(SeqCst));
    let (snapshot, now) = at(poll.clock(), || session.snapshot());
    HOLD_THREAD.store(0, SeqCst);
    poll.ended.recv().unwrap();
    drop(session);
    poll.puppet.ends();
    let used = (ms(40), now.1 - poll.begins.0);
    check_between("held up", row(&snapshot, "held up").cpu_ns, used);
    check_between("tasks_cpu_ns", snapshot.tasks_cpu_ns, used);
    let thread = snapshot.threads.iter().find(|thread| thread.name == "held up").unwrap();
    check_between("the thread's time in tasks", thread.tasks_cpu_ns, used);
}
