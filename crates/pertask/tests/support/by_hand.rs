//! Tasks that a test polls by hand, and the truth about their lives.
//!
//! Each truth is two stopwatches: one begins after the library's reading and ends before it, the other begins before and ends
//! after. Whatever else the machine does, what was measured lies between them. Both clocks tell a second to a thousandth.

use pertask::{TaskExt, Tracked};
use std::{
    future::{Future, poll_fn},
    ops::AddAssign,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

/// At least and at most this time has passed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Between {
    pub least: Duration,
    pub most: Duration,
}

impl AddAssign for Between {
    fn add_assign(&mut self, other: Self) {
        self.least += other.least;
        self.most += other.most;
    }
}

impl Between {
    #[track_caller]
    pub fn assert_has(self, ns: u64, what: &str) {
        let (least, most) = (self.least.as_nanos() as f64, self.most.as_nanos() as f64);
        let clocks_differ = 1_000.0 + most / 1_000.0;
        let allowed = least - clocks_differ..=most + clocks_differ;
        assert!(allowed.contains(&(ns as f64)), "{what}: {ns} ns is not {self:?}");
    }
}

/// A moment that lies between these two.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub after: Instant,
    pub before: Instant,
}

impl Moment {
    pub fn of<R>(f: impl FnOnce() -> R) -> (R, Self) {
        let after = Instant::now();
        let result = f();
        (result, Self { after, before: Instant::now() })
    }

    pub fn to(self, later: Self) -> Between {
        Between { least: later.after - self.before, most: later.before - self.after }
    }
}

type Work = Box<dyn FnOnce() + Send>;

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

/// A task that the test polls by hand. Its polls begin and end at known moments, and do what the test wants.
pub struct ByHand {
    pub task: Tracked<Pin<Box<dyn Future<Output = ()> + Send>>>,
    pub made: Moment,
    hands: Arc<Hands>,
    executor: Waker,
}

#[derive(Default)]
struct Hands {
    waker: Mutex<Option<Waker>>,
    /// What the next poll does.
    work: Mutex<Option<Work>>,
    inside: Mutex<Option<(Instant, Instant)>>,
}

pub fn by_hand(name: &str) -> ByHand {
    labelled(name, &[])
}

/// A task that has these labels from its beginning.
pub fn labelled(name: &str, labels: &[(&str, &str)]) -> ByHand {
    let hands = Arc::<Hands>::default();
    let held = Arc::clone(&hands);
    let future = poll_fn(move |context: &mut Context<'_>| {
        let begun = Instant::now();
        *held.waker.lock().unwrap() = Some(context.waker().clone());
        if let Some(work) = held.work.lock().unwrap().take() {
            work();
        }
        *held.inside.lock().unwrap() = Some((begun, Instant::now()));
        Poll::<()>::Pending
    });
    let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
    let (task, made) = Moment::of(|| match labels {
        [] => future.task(name),
        labels => future.task(name).labels(labels.iter().copied()),
    });
    ByHand { task, made, hands, executor: Waker::from(Arc::new(Nobody)) }
}

impl ByHand {
    /// Polls once. Returns when the poll began, and when it ended.
    pub fn poll(&mut self, work: impl FnOnce() + Send + 'static) -> (Moment, Moment) {
        *self.hands.work.lock().unwrap() = Some(Box::new(work));
        let after = Instant::now();
        let mut context = Context::from_waker(&self.executor);
        assert!(Pin::new(&mut self.task).poll(&mut context).is_pending());
        let before = Instant::now();
        let (begun, ended) = self.hands.inside.lock().unwrap().take().unwrap();
        (Moment { after, before: begun }, Moment { after: ended, before })
    }

    pub fn wake(&self) -> Moment {
        Moment::of(|| self.hands.waker.lock().unwrap().as_ref().unwrap().wake_by_ref()).1
    }

    /// Gives the task these labels in addition. Returns when.
    pub fn relabel(self, labels: &[(&str, &str)]) -> (Self, Moment) {
        let (task, changed) = Moment::of(|| self.task.labels(labels.iter().copied()));
        (Self { task, ..self }, changed)
    }
}

pub fn sleep() {
    std::thread::sleep(Duration::from_millis(20));
}

pub fn spin() {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(20) {
        std::hint::spin_loop();
    }
}
