//! A future that is a task: each poll switches the task in, on whatever thread polls it.

use super::accounts::{self, Held};
use super::label_set::Labels;
use super::run::{fork, run_as};
use crate::pmus::waker::{self, Lent, NotingWaker};
use pertask_core::{Cpu, OwnedTask, Task};
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Makes any future a task.
pub trait TaskExt: Future + Sized {
    /// Makes this future a task with that name.
    ///
    /// The task's spawn site is the place of this call. Its parent is the task that makes the call, if one runs here.
    ///
    /// A name is a kind of task (`"GET /users"`), not one task. All tasks with the same name and site share a row in
    /// reports, and the process can have [`MAX_SITES`](pertask_core::MAX_SITES) such rows.
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

    /// Makes this future a task without a name.
    ///
    /// Reports show the task by its spawn site, the place of this call.
    #[track_caller]
    fn task_here(self) -> Tracked<Self> {
        Tracked::new(self, None, Location::caller())
    }
}

impl<F: Future> TaskExt for F {}

/// A future that is a task, made by [`TaskExt::task`].
///
/// The task begins when the wrapper is made, and ends when the future is ready or dropped. The future's own destructor
/// runs as part of the task. The wrapper is as unwind-safe as the future.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct Tracked<F> {
    /// `None` once the task has ended.
    task: Option<OwnedTask>,
    /// The account of the task's labels, which lives until the task has ended.
    account: Option<Held>,
    /// The waker that the future is polled with while a session wants to know of wakes.
    waker: Option<Arc<NotingWaker>>,
    /// INVARIANT: pinned when the wrapper is; dropped once, by the wrapper's `drop`.
    future: ManuallyDrop<F>,
}

// All fields but the future are whole after a panic, whatever panicked:
// - The future, in a poll: the run ends as it unwinds, so the task is switched out and charged. The task lives until the
//   wrapper is dropped, and can be polled again.
// - The executor's waker, as it is cloned or compared: `waker` is `None`, or as it was.
// - A PMU's hook, as the task ends: the core finishes the end all the same, and `task` is `None`.
// A `&Tracked` gives out no more than the `Arc<Task>`, which other threads use while the task runs. So it is whole at any moment.
impl<F: UnwindSafe> UnwindSafe for Tracked<F> {}
impl<F: RefUnwindSafe> RefUnwindSafe for Tracked<F> {}

/// The source file of the code below, as debug information names it.
#[cfg(feature = "symbols")]
pub(crate) const FILE: &str = file!();

/// How the names of the wrapper's functions begin, as debug information has them.
#[cfg(feature = "symbols")]
pub(crate) const FUNCTIONS: &str = concat!("<", module_path!(), "::Tracked<");

impl<F> Tracked<F> {
    pub(crate) fn new(future: F, name: Option<&str>, location: &'static Location<'static>) -> Self {
        let (task, account) = fork(name, location);
        #[cfg(all(tokio_unstable, feature = "tokio"))]
        crate::tasks::tokio::hooks::made(task.id());
        Self { task: Some(task), account, waker: None, future: ManuallyDrop::new(future) }
    }

    /// Gives the task these labels from now on, in addition to those that it has.
    ///
    /// For a key that the task has already, the new value holds. [`LabelExt::labels`](crate::LabelExt::labels) labels futures that are no task yet.
    pub fn labels<K: AsRef<str>, V: AsRef<str>>(
        mut self,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        if let Some(task) = self.handle() {
            self.account = accounts::add(task, &Labels::new(labels));
        }
        self
    }

    /// The task, to which events can be attached, or `None` once it has ended.
    #[must_use]
    pub fn handle(&self) -> Option<&Arc<Task>> {
        self.task.as_ref().map(OwnedTask::handle_ref)
    }
}

impl<F: Future> Future for Tracked<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: once the wrapper is pinned, `future` is moved neither here nor elsewhere; the other fields are not pinned.
        let (task, waker, future) = unsafe {
            let this = self.get_unchecked_mut();
            (&mut this.task, &mut this.waker, Pin::new_unchecked(&mut *this.future))
        };
        // The executor polls the future after it was ready.
        let Some(running) = task else { return future.poll(context) };
        #[cfg(all(tokio_unstable, feature = "tokio"))]
        crate::tasks::tokio::hooks::polled(running.id());
        let lent = noting_waker(running, context, waker);
        let ours = lent.as_deref().unwrap_or(context.waker());
        // The future is polled here alone, so that it can be inlined into the run. A context has nothing but its waker on stable Rust.
        let poll = run_as(running, || future.poll(&mut Context::from_waker(ours)));
        if let Some(waker) = lent {
            waker.end_poll(poll.is_pending());
        }
        if poll.is_ready() {
            *task = None;
        }
        poll
    }
}

impl<F> Drop for Tracked<F> {
    fn drop(&mut self) {
        let Self { task, future, waker, .. } = self;
        waker::end_wait(waker.as_ref());
        // SAFETY: the future is dropped here, in place, and nowhere else.
        let mut drop = || unsafe { ManuallyDrop::drop(future) };
        let Some(task) = task else { return drop() };
        Cpu::with(|cpu| cpu.run_aside(task, drop));
    }
}

/// The waker to poll the task with in place of the context's, while a session wants to know of wakes.
#[inline(always)]
fn noting_waker<'a>(
    task: &OwnedTask,
    context: &Context<'_>,
    own: &'a mut Option<Arc<NotingWaker>>,
) -> Option<Lent<'a>> {
    if !waker::is_wanted() {
        return None;
    }
    waker::noting(task.handle_ref(), context.waker(), own)
}
