//! What a session's window is: it counts what happens between its start and its end, and nothing else.
//!
//! Where a poll lies across an edge of the window, the test reads the polling thread's CPU clock just before and just
//! after the edge. What is measured must lie between the two: no tolerance is needed, whatever the machine does.

#[path = "../support/mod.rs"]
mod support;

mod chosen;
mod disorder;
mod labels;
mod several;
mod snapshots;
mod window;

use pertask::{LabelExt, Report, Task, TaskExt, Tracked};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver};
use support::{
    Puppet, ThreadClock, check_between, poll_once, row, run, spin, thread_cpu_ns, thread_row,
    yield_once,
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

impl LongPoll {
    /// Returns when the poll is under way.
    fn begin(name: &'static str) -> Self {
        Self::begin_labeled(name, &[])
    }

    /// The same with labels.
    fn begin_labeled(name: &'static str, labels: &'static [(&'static str, &'static str)]) -> Self {
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
            let inside = run(future.labels(labels.iter().copied()).task(name));
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

/// The thread's CPU time at the end of what the future does, and after the poll.
type PollEnds = (u64, u64);

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
    check_between(name, row(report, name).usage.cpu_ns, used);
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
    let sites: u64 = report.sites.iter().map(|site| site.usage.cpu_ns).sum();
    assert_eq!(sites, report.tasks_cpu_ns);
    let sorted = report.sites.is_sorted_by(|a, b| a.usage.cpu_ns >= b.usage.cpu_ns);
    assert!(sorted, "most CPU time first: {:#?}", report.sites);
}
