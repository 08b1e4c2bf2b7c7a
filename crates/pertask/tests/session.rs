//! What a session's window is: it counts what happens between its start and its end, and nothing else.
//!
//! Where a poll lies across an edge of the window, the test reads the polling thread's CPU clock just before and just
//! after the edge. What is measured must lie between the two: no tolerance is needed, whatever the machine does.

mod support;

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc::{self, Receiver},
    },
    thread,
};

use pertask::{
    CpuTime, CpuTimeData, Inherit, Report, Session, SessionOptions, SiteReport, Task, TaskExt,
    Tracked,
    core::{Edge, Pmu, Switch, System, rcu},
};
use support::{
    Puppet, StopOnDrop, ThreadClock, Truth, alone, check_between, check_ns, cpu_time, ms,
    poll_once, row, run, spin, thread_cpu_ns, thread_row, wait_until, yield_once,
};

/// A future of many polls, each of which spins.
fn steps(name: &str, milliseconds: u64) -> Pin<Box<Tracked<impl Future<Output = ()> + use<>>>> {
    let work = async move {
        loop {
            spin(milliseconds);
            yield_once().await;
        }
    };
    Box::pin(work.task(name))
}

fn step<F: Future>(times: u64, future: &mut Pin<Box<F>>) {
    for _ in 0..times {
        assert!(poll_once(future.as_mut()).is_pending());
    }
}

/// A thread in the middle of one long poll of a task, which ends when it is told to.
struct LongPoll {
    puppet: Puppet,
    task: Arc<Task>,
    end: Arc<AtomicBool>,
    ended: Receiver<PollEnds>,
    /// The thread's CPU time before the poll, and at the beginning of what the future does.
    begins: (u64, u64),
}

/// The thread's CPU time at the end of what the future does, and after the poll.
type PollEnds = (u64, u64);

impl LongPoll {
    /// Returns when the poll is under way.
    fn begin(name: &'static str) -> Self {
        let puppet = Puppet::new(name);
        let end = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&end);
        let (tell, told) = mpsc::channel();
        let ended = puppet.begins(move || {
            let before = thread_cpu_ns();
            let future = async move {
                let task = support::current_task().unwrap();
                tell.send((task, (before, thread_cpu_ns()))).unwrap();
                while !until.load(SeqCst) {
                    spin(1);
                }
                thread_cpu_ns()
            };
            let inside = run(future.task(name));
            (inside, thread_cpu_ns())
        });
        let (task, begins) = told.recv().unwrap();
        Self { puppet, task, end, ended, begins }
    }

    fn clock(&self) -> ThreadClock {
        self.puppet.clock
    }

    fn end(&self) -> PollEnds {
        self.end.store(true, SeqCst);
        self.ended.recv().unwrap()
    }
}

/// What a thread used between two moments that took some time themselves, each a reading before and one after: at
/// least, at most.
fn between(start: (u64, u64), end: (u64, u64)) -> (u64, u64) {
    (end.0.saturating_sub(start.1), end.1 - start.0)
}

/// Does something, and reads a thread's CPU clock before and after.
fn at<R>(clock: ThreadClock, f: impl FnOnce() -> R) -> (R, (u64, u64)) {
    let before = clock.cpu_ns();
    let result = f();
    (result, (before, clock.cpu_ns()))
}

/// Asserts that the task's row and its thread's row tell what it used.
#[track_caller]
fn check_long_poll(report: &Report, poll: &LongPoll, name: &str, used: (u64, u64)) {
    check_between(name, row(report, name).cpu_ns, used);
    let thread = thread_row(report, poll.puppet.number);
    assert!(thread.worker, "{thread:?}");
    check_between("the thread's time in tasks", thread.tasks_cpu_ns, used);
    // All that the thread did: nothing of it is the worker's own but what may fall beside an edge.
    let outside = thread.cpu_ns.saturating_sub(thread.tasks_cpu_ns);
    let edges = used.1 - used.0;
    assert!(outside <= edges + support::glue_ns(0), "{outside} ns outside tasks: {thread:?}");
    check_sums(report);
}

/// Sites add up to the tasks' total, whatever else happens.
#[track_caller]
fn check_sums(report: &Report) {
    let sites: u64 = report.sites.iter().map(|site| site.cpu_ns).sum();
    assert_eq!(sites, report.tasks_cpu_ns);
    let sorted = report.sites.is_sorted_by(|a, b| a.cpu_ns >= b.cpu_ns);
    assert!(sorted, "most CPU time first: {:#?}", report.sites);
}

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

/// Attached to the one task, in the middle of its poll.
#[test]
fn a_session_on_a_task_in_the_middle_of_its_poll() {
    let _alone = alone();
    let poll = LongPoll::begin("chosen");
    let other = LongPoll::begin("not chosen");
    let (session, start) =
        at(poll.clock(), || Session::start_on([&poll.task], Inherit::No).unwrap());
    poll.clock().wait_for(40);
    let (snapshot, now) = at(poll.clock(), || session.snapshot());
    check_between("chosen", row(&snapshot, "chosen").cpu_ns, between(start, now));
    let end = poll.end();
    other.end();
    let report = session.stop();
    check_between("chosen", row(&report, "chosen").cpu_ns, between(start, end));
    assert_eq!((report.sites.len(), report.tasks_cpu_ns), (1, report.sites[0].cpu_ns));
    poll.puppet.ends();
    other.puppet.ends();
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

/// A parent that has a child, which has a child, each of which spins; another task does as well.
fn family(truth: &Truth, name: &'static str) -> Tracked<impl Future<Output = ()> + Send + use<>> {
    let truth = truth.clone();
    let parent = async move {
        truth.spin(4);
        yield_once().await;
        let child = async move {
            spin(8);
            // Ended, and one that is alive at the end of the session.
            async { spin(16) }.task("family grandchild").await;
        };
        child.task("family child").await;
        truth.spin(4);
    };
    parent.task(name)
}

#[test]
fn a_session_on_tasks_without_their_children() {
    let _alone = alone();
    let (mut first, mut second) = (steps("one of two", 5), steps("two of two", 7));
    let mut unrelated = steps("of no interest", 5);
    let parent_truth = Truth::default();
    let parent = family(&parent_truth, "family without");
    let handles = [first.handle(), second.handle(), parent.handle()].map(|h| h.unwrap().clone());
    let session = Session::start_on(&handles, Inherit::No).unwrap();
    step(2, &mut first);
    step(3, &mut second);
    step(4, &mut unrelated);
    run(parent);
    let report = session.stop();
    step(1, &mut first);

    let mut names: Vec<_> = report.sites.iter().filter_map(|site| site.name.as_deref()).collect();
    names.sort_unstable();
    assert_eq!(names, ["family without", "one of two", "two of two"]);
    assert_eq!((row(&report, "one of two").polls, row(&report, "two of two").polls), (2, 3));
    check_ns("first", row(&report, "one of two").cpu_ns, ms(10));
    check_ns("second", row(&report, "two of two").cpu_ns, ms(21));
    check_ns("parent", row(&report, "family without").cpu_ns, parent_truth.cpu_ns());
    assert_eq!(row(&report, "family without").polls, 2);
    check_sums(&report);
}

#[test]
fn a_session_on_a_task_and_its_descendants() {
    let _alone = alone();
    let mut unrelated = steps("of no interest either", 5);
    let truth = Truth::default();
    let parent = family(&truth, "family with");
    let session = Session::start_on([parent.handle().unwrap()], Inherit::Children).unwrap();
    step(2, &mut unrelated);
    run(parent);
    run(async { spin(5) }.task("of no interest, later"));
    let report = session.stop();
    check_ns("the family", report.tasks_cpu_ns, truth.cpu_ns() + ms(8 + 16));
    assert_eq!(report.sites.iter().map(|site| site.polls).sum::<u64>(), 2 + 1 + 1);
    let of_the_family = |site: &SiteReport| site.name.as_deref().unwrap().starts_with("family");
    assert!(report.sites.iter().all(of_the_family), "{report:#?}");
    check_sums(&report);
}

/// Whose child is chosen as well is not counted for that twice.
#[test]
fn a_session_on_a_task_and_on_its_child() {
    let _alone = alone();
    let mut parent = Box::pin(
        async {
            let child = async {
                yield_once().await;
                spin(20);
            };
            child.task("chosen child").await;
            spin(10);
        }
        .task("chosen parent"),
    );
    let parent_task = Arc::clone(parent.handle().unwrap());
    // Before the child is made, so that the child inherits the parent's event.
    let on_parent = Session::start_on([&parent_task], Inherit::Children).unwrap();
    step(1, &mut parent);
    let child_task = support::live_tasks("chosen child").pop().unwrap();
    let on_both = Session::start_on([&parent_task, &child_task], Inherit::Children).unwrap();
    assert!(poll_once(parent.as_mut()).is_ready());
    check_ns("on the parent", on_parent.stop().tasks_cpu_ns, ms(30));
    check_ns("on both", on_both.stop().tasks_cpu_ns, ms(30));
}

#[test]
fn a_session_on_a_task_that_has_ended_leaves_it_out() {
    let _alone = alone();
    let ended = async {}.task("ended");
    let ended_task = Arc::clone(ended.handle().unwrap());
    run(ended);
    let mut alive = steps("alive", 5);
    let session =
        Session::start_on([&ended_task, alive.handle().unwrap()], Inherit::Children).unwrap();
    step(1, &mut alive);
    let report = session.stop();
    assert_eq!(report.sites.len(), 1, "{:#?}", report.sites);
    check_ns("alive", row(&report, "alive").cpu_ns, ms(5));
}

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
