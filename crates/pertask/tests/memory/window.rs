//! What sessions have of polls that lie across their edges, or run while they read.

use crate::support::{StopOnDrop, alone, poll_once, row, run, wait_until};
use crate::{Metered, MidPoll, NOTHING, begin, block, count, counting, memory_of};
use pertask::{Inherit, Report, Session, TaskExt};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
    fence,
};
use std::task::Poll;
use std::thread;

#[test]
fn a_poll_under_way_is_read_to_the_byte() {
    let _alone = alone();
    let early = begin();
    let poll = MidPoll::begin("mid poll", || block(1 << 20), || block(5_000));
    let report = early.snapshot();
    let so_far = count((1 << 20, 1), (0, 0));
    assert_eq!(memory_of(&report, "mid poll"), so_far);
    assert_eq!(report.tasks.iter().find_map(|it| it.memory), Some(so_far));
    let outside = report.memory.as_ref().unwrap().workers.allocated_bytes;
    assert!(outside < 1 << 20, "it is in a task: {report:#?}");
    // A session that begins now counts from now on.
    let late = begin();
    assert_eq!(memory_of(&late.snapshot(), "mid poll"), NOTHING);
    poll.end();
    assert_eq!(memory_of(&late.stop(), "mid poll"), count((5_000, 1), (0, 0)));
    let report = early.stop();
    assert_eq!(memory_of(&report, "mid poll"), count(((1 << 20) + 5_000, 2), (0, 0)));
}

/// A thread polls as fast as it can while another takes snapshots. Nothing is counted twice, nor outside tasks. What a snapshot may
/// lack is the poll that ends at this very moment, if the kernel takes the CPU from its thread just then. The next one has it.
#[test]
fn snapshots_while_a_task_runs_have_each_poll_once() {
    const BYTES: usize = 64;
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    static DONE: AtomicU64 = AtomicU64::new(0);
    let _alone = alone();
    let (go_on, stop) = (AtomicBool::new(true), StopOnDrop::default());
    let session = begin();
    let poll = count((BYTES as u64, 1), (BYTES as u64, 1));
    let polling = |stopped: &AtomicBool| {
        let allocates = poll_fn(|_| {
            BEGUN.fetch_add(1, SeqCst);
            fence(SeqCst);
            drop(block(BYTES));
            DONE.fetch_add(1, SeqCst);
            Poll::<()>::Pending
        });
        let mut task = pin!(allocates.task("polled fast"));
        while go_on.load(Relaxed) && !stopped.load(Relaxed) {
            assert!(poll_once(task.as_mut()).is_pending());
        }
    };
    thread::scope(|scope| {
        let stopped = stop.flag();
        let stop = stop;
        scope.spawn(move || polling(&stopped));
        wait_until("the task runs", || DONE.load(SeqCst) > 0);
        let outside = |report: &Report| report.memory.as_ref().unwrap().workers.allocated_bytes;
        let first = outside(&session.snapshot_without(poll));
        for _ in 0..500 {
            let done = DONE.load(SeqCst);
            let report = session.snapshot_without(poll);
            fence(SeqCst);
            let begun = BEGUN.load(SeqCst);
            let memory = memory_of(&report, "polled fast");
            let done = done - 1;
            assert!((done..=begun).contains(&memory.allocations), "{memory:?}: {done} {begun}");
            assert!((done..=begun).contains(&memory.frees), "{memory:?}: {done} {begun}");
            let beyond = outside(&report).saturating_sub(first);
            assert!(beyond <= 2 * BYTES as u64, "{beyond} bytes of tasks are outside of them");
        }
        go_on.store(false, Relaxed);
        drop(stop);
    });
    let polls = DONE.load(SeqCst);
    let bytes = polls * BYTES as u64;
    assert_eq!(memory_of(&session.stop(), "polled fast"), count((bytes, polls), (bytes, polls)));
}

/// No session ran when the poll began, so no hook has seen it.
#[test]
fn a_session_begins_in_the_middle_of_a_poll() {
    let _alone = alone();
    let poll = MidPoll::begin("adopted", || block(100), || block(5_000));
    let session = begin();
    let before = session.snapshot();
    assert_eq!(memory_of(&before, "adopted"), NOTHING);
    let workers = before.memory.as_ref().unwrap().workers;
    poll.end();
    let report = session.stop();
    assert_eq!(memory_of(&report, "adopted"), count((5_000, 1), (0, 0)));
    let workers_now = report.memory.as_ref().unwrap().workers;
    assert!(workers_now.allocated_bytes - workers.allocated_bytes < 5_000, "{report:#?}");
}

#[test]
fn a_session_on_some_tasks_counts_these_and_their_descendants() {
    let _alone = alone();
    let family = |name: &'static str| {
        async {
            drop(block(1_000));
            run(async { drop(block(20_000)) }.task("a child"));
        }
        .task(name)
    };
    let (chosen, with_children, other) =
        (family("chosen"), family("with children"), family("not chosen"));
    let on = |handle, inherit| Metered::of(|| counting().start_on([handle], inherit).unwrap());
    let alone_session = on(chosen.handle().unwrap(), Inherit::No);
    let family_session = on(with_children.handle().unwrap(), Inherit::Children);
    [chosen, with_children, other].into_iter().for_each(run);
    let (report, families) = (alone_session.stop(), family_session.stop());
    assert_eq!(report.sites.len(), 1);
    let own = memory_of(&report, "chosen");
    // What a task allocates to make its child is its own.
    assert!((1_000..20_000).contains(&own.allocated_bytes), "{own:?}");
    let all = memory_of(&families, "with children");
    assert!((21_000..40_000).contains(&all.allocated_bytes), "{all:?}");
    let workers = report.memory.unwrap().workers.allocated_bytes;
    assert!(workers >= 20_000 + 42_000, "what others allocate is outside: {workers}");
}

#[test]
fn nothing_is_counted_while_no_session_asks() {
    let _alone = alone();
    let mut task = pin!(
        poll_fn(|_| {
            drop(block(1 << 12));
            Poll::<()>::Pending
        })
        .task("between")
    );
    let mut poll = || assert!(poll_once(task.as_mut()).is_pending());
    let session = begin();
    poll();
    let first = session.stop();
    assert_eq!(memory_of(&first, "between"), count((1 << 12, 1), (1 << 12, 1)));
    poll();
    let plain = Session::start().unwrap();
    poll();
    let report = plain.stop();
    assert_eq!((&report.memory, &report.memory_source), (&None, &None));
    assert!(row(&report, "between").memory.is_none());
    assert!(report.tasks.iter().all(|task| task.memory.is_none()));
    assert!(report.tree.iter().all(|it| it.memory.is_none() && it.inclusive_memory.is_none()));
    let session = begin();
    assert_eq!(memory_of(&session.stop(), "between"), NOTHING);
}

#[test]
fn of_two_sessions_one_goes_on_when_the_other_ends() {
    let _alone = alone();
    let first = begin();
    let work = || run(async { drop(block(64)) }.task("in both"));
    work();
    let second = begin();
    work();
    assert_eq!(memory_of(&first.stop(), "in both"), count((128, 2), (128, 2)));
    work();
    assert_eq!(memory_of(&second.stop(), "in both"), count((128, 2), (128, 2)));
}
