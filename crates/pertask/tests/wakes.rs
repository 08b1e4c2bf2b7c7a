//! How long tasks wait between being woken and being polled: measured for those who ask, and invisible to the others.

mod support;

use pertask::{Inherit, Report, SessionOptions, TaskExt, WakeReport};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use support::alone;

/// Counts how often an executor is woken.
#[derive(Default)]
struct Executor(AtomicU32);

impl Wake for Executor {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn measuring() -> SessionOptions {
    SessionOptions { wake_latency: true, ..SessionOptions::default() }
}

fn waits<'r>(report: &'r Report, name: &str) -> &'r WakeReport {
    support::row(report, name).wakes.as_ref().expect("it was measured")
}

/// Lets so much time pass, on the CPU.
fn pass(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// A task whose last waker the test holds, and its executor.
struct Watched<F> {
    future: Pin<Box<F>>,
    last: Arc<std::sync::Mutex<Option<Waker>>>,
    executor: Arc<Executor>,
}

fn watched(name: &str) -> Watched<pertask::Tracked<impl Future<Output = ()> + use<>>> {
    let last = Arc::new(std::sync::Mutex::new(None));
    let hands = Arc::clone(&last);
    let future = poll_fn(move |context| {
        *hands.lock().unwrap() = Some(context.waker().clone());
        Poll::Pending
    });
    Watched { future: Box::pin(future.task(name)), last, executor: Arc::default() }
}

impl<F: Future> Watched<F> {
    fn poll(&mut self) {
        let waker = Waker::from(Arc::clone(&self.executor));
        assert!(self.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }

    fn waker(&self) -> Waker {
        self.last.lock().unwrap().clone().expect("it was polled")
    }

    fn woken(&self) -> u32 {
        self.executor.0.load(SeqCst)
    }
}

#[test]
fn the_first_wake_before_a_poll_counts() {
    let _turn = alone();
    let session = measuring().start().unwrap();
    let mut task = watched("waits");
    // Its first poll answers no wake.
    task.poll();
    let begun = Instant::now();
    task.waker().wake();
    pass(Duration::from_millis(4));
    task.waker().wake_by_ref();
    task.poll();
    let longest_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap();
    // Nor does a poll that nobody asked for.
    task.poll();
    let report = session.stop();
    let waits = waits(&report, "waits");
    assert_eq!((waits.count, task.woken()), (1, 2), "{waits:?}");
    let max_ns = waits.max_ns.unwrap();
    assert!(max_ns >= 4_000_000 && max_ns <= longest_ns * 5 / 4 + 1, "{max_ns} of {longest_ns}");
    assert_eq!(waits.histogram.len(), 1);
}

#[test]
fn a_task_that_wakes_itself_waits_for_its_turn() {
    let _turn = alone();
    let session = measuring().start().unwrap();
    support::run(
        async {
            for _ in 0..10 {
                support::yield_once().await;
            }
        }
        .task("yields"),
    );
    let report = session.stop();
    let waits = waits(&report, "yields");
    assert_eq!(waits.count, 10);
    assert!(waits.p50_ns <= waits.p90_ns && waits.p99_ns <= waits.max_ns, "{waits:?}");
    let counted: u64 = waits.histogram.iter().map(|bucket| bucket.count).sum();
    assert_eq!(counted, 10);
}

#[test]
fn futures_are_polled_with_the_executors_own_waker_unless_somebody_measures() {
    let _turn = alone();
    let executor = Waker::from(Arc::new(Executor::default()));
    let seen = std::cell::RefCell::new(None);
    let mut task = pin!(
        poll_fn(|context| {
            *seen.borrow_mut() = Some(context.waker().clone());
            Poll::<()>::Pending
        })
        .task("looks")
    );
    let mut is_executors = || {
        let _ = task.as_mut().poll(&mut Context::from_waker(&executor));
        seen.borrow_mut().take().unwrap().will_wake(&executor)
    };
    assert!(is_executors());
    let others = measuring().start_on([], Inherit::No).unwrap();
    assert!(is_executors(), "only other tasks are measured");
    drop(others);
    let session = measuring().start().unwrap();
    assert!(!is_executors());
    drop(session);
    assert!(is_executors());
}

#[test]
fn a_task_keeps_its_waker_from_poll_to_poll() {
    let _turn = alone();
    let _session = measuring().start().unwrap();
    let mut task = watched("keeps");
    task.poll();
    let first = task.waker();
    task.poll();
    assert!(task.waker().will_wake(&first), "futures that keep a list of wakers would grow");
    // Another executor is another waker.
    task.executor = Arc::default();
    task.poll();
    assert!(!task.waker().will_wake(&first));
    task.waker().wake();
    assert_eq!(task.woken(), 1);
}

#[test]
fn a_waker_outlives_the_session_and_the_task() {
    let _turn = alone();
    let session = measuring().start().unwrap();
    let mut task = watched("ends");
    task.poll();
    let waker = task.waker();
    drop(session);
    waker.wake_by_ref();
    assert_eq!(task.woken(), 1);
    let executor = Arc::clone(&task.executor);
    drop(task);
    waker.wake();
    assert_eq!(executor.0.load(SeqCst), 2);
}

#[test]
fn a_report_without_waits_does_not_have_them() {
    let _turn = alone();
    let session = SessionOptions::default().start().unwrap();
    support::run(support::yield_once().task("not measured"));
    assert_eq!(support::row(&session.stop(), "not measured").wakes, None);
}

#[test]
fn waits_under_load_are_those_of_the_runtime() {
    let _turn = alone();
    let session = measuring().start().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let local = tokio::task::LocalSet::new();
        // Two tasks on one thread: each waits while the other has its turn of 2 ms.
        let turns = || async {
            for _ in 0..20 {
                pass(Duration::from_millis(2));
                tokio::task::yield_now().await;
            }
        };
        for _ in 0..2 {
            local.spawn_local(turns().task("turns"));
        }
        local.await;
    });
    let report = session.stop();
    let waits = waits(&report, "turns");
    assert_eq!(waits.count, 40);
    // One has its first turn alone, and the last waits for nobody.
    let long: u64 = waits
        .histogram
        .iter()
        .filter(|bucket| bucket.most_ns >= Some(2_000_000))
        .map(|bucket| bucket.count)
        .sum();
    assert!(long >= 18, "{waits:?}");
}
