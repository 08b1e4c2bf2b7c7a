//! A future that is a task: switched in at each poll, on whatever thread polls it.

use super::run::{fork, run_as};
use crate::pmus::wake::{self, NotingWaker};
use pertask_core::{Cpu, OwnedTask, Task};
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Makes a task of any future.
pub trait TaskExt: Future + Sized {
    /// Makes this future a task of that name. Its spawn site is where this is called, its parent the task that runs
    /// here now.
    ///
    /// A name is a kind of task (`"GET /users"`), not one task: all tasks of one name and site share a row in reports,
    /// and there is room for [`MAX_SITES`](pertask_core::MAX_SITES) of them.
    ///
    /// ```
    /// use pertask::TaskExt;
    ///
    /// let answer = async { 42 }.task("deep thought");
    /// assert_eq!(futures::executor::block_on(answer), 42);
    /// ```
    #[track_caller]
    fn task(self, name: impl AsRef<str>) -> Tracked<Self> {
        Tracked::new(self, Some(name.as_ref()), Location::caller())
    }

    /// Makes this future a task that is known by its spawn site alone.
    #[track_caller]
    fn task_here(self) -> Tracked<Self> {
        Tracked::new(self, None, Location::caller())
    }
}

impl<F: Future> TaskExt for F {}

/// A future that is a task. Made by [`TaskExt::task`].
///
/// The task begins when the wrapper is made, and ends when the future is ready or dropped. The future's own destructor
/// runs as part of the task.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct Tracked<F> {
    /// `None` when the task has ended.
    task: Option<OwnedTask>,
    /// The waker that it is polled with while somebody measures its waits.
    waker: Option<Arc<NotingWaker>>,
    /// INVARIANT: pinned when the wrapper is; dropped once, by the wrapper's `drop`.
    future: ManuallyDrop<F>,
}

/// Where debug information says that the code below is.
#[cfg(feature = "profiler")]
pub(crate) const FILE: &str = file!();

/// How the names of the functions begin that poll or drop a task's future.
#[cfg(feature = "profiler")]
pub(crate) const FUNCTIONS: &str = concat!("<", module_path!(), "::Tracked<");

impl<F> Tracked<F> {
    pub(crate) fn new(future: F, name: Option<&str>, location: &'static Location<'static>) -> Self {
        let task = fork(name, location);
        #[cfg(all(tokio_unstable, feature = "tokio"))]
        crate::tasks::tokio::hooks::made(task.id());
        Self { task: Some(task), waker: None, future: ManuallyDrop::new(future) }
    }

    /// The task, to attach events to. `None` when it has ended.
    #[must_use]
    pub fn handle(&self) -> Option<&Arc<Task>> {
        self.task.as_ref().map(OwnedTask::handle_ref)
    }
}

impl<F: Future> Future for Tracked<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `future` is not moved, here or elsewhere, once the wrapper is pinned; the rest is not pinned.
        let (task, waker, future) = unsafe {
            let this = self.get_unchecked_mut();
            (&mut this.task, &mut this.waker, Pin::new_unchecked(&mut *this.future))
        };
        // Polled on after its end.
        let Some(running) = task else { return future.poll(context) };
        #[cfg(all(tokio_unstable, feature = "tokio"))]
        crate::tasks::tokio::hooks::polled(running.id());
        let poll = match noting_waker(running, context, waker) {
            None => run_as(running, || future.poll(context)),
            Some(waker) => run_as(running, || future.poll(&mut Context::from_waker(&waker))),
        };
        if poll.is_ready() {
            *task = None;
        }
        poll
    }
}

impl<F> Drop for Tracked<F> {
    fn drop(&mut self) {
        let Self { task, future, .. } = self;
        // SAFETY: dropped here and nowhere else, in place.
        let mut drop = || unsafe { ManuallyDrop::drop(future) };
        let Some(task) = task else { return drop() };
        Cpu::with(|cpu| cpu.run_aside(task, drop));
    }
}

/// A waker to poll the task with instead of the context's, while somebody measures how long it waits for its polls.
#[inline(always)]
fn noting_waker(
    task: &OwnedTask,
    context: &Context<'_>,
    own: &mut Option<Arc<NotingWaker>>,
) -> Option<Waker> {
    if !wake::is_wanted() {
        return None;
    }
    wake::noting(task.handle_ref(), context.waker(), own)
}
