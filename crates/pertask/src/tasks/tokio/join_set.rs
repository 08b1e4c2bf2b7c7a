//! tokio's `JoinSet`, for tracked tasks.

use super::blocking_task;
use crate::tasks::tracked::TaskExt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, LocalSet};

/// A [`tokio::task::JoinSet`] whose tasks are tracked.
///
/// This type replaces the spawn functions. Everything else (`join_next`, `abort_all`, `len`, …) is tokio's own, by `Deref`.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// let mut set = pertask::tokio::JoinSet::new();
/// for n in 0..4 {
///     set.spawn(async move { n * n });
/// }
/// assert_eq!(set.into_inner().join_all().await.into_iter().sum::<i32>(), 14);
/// # });
/// ```
#[derive(Debug)]
pub struct JoinSet<T>(tokio::task::JoinSet<T>);

impl<T> JoinSet<T> {
    /// Makes an empty set.
    #[must_use]
    pub fn new() -> Self {
        Self(tokio::task::JoinSet::new())
    }

    /// Returns tokio's own set, for methods that take it by value.
    #[must_use]
    pub fn into_inner(self) -> tokio::task::JoinSet<T> {
        self.0
    }
}

impl<T: 'static> JoinSet<T> {
    /// Spawns a future as a tracked task, like [`tokio::task::JoinSet::spawn`].
    #[track_caller]
    pub fn spawn<F>(&mut self, task: F) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
        T: Send,
    {
        self.0.spawn(task.task_here())
    }

    /// Spawns a future as a tracked task on a runtime, like [`tokio::task::JoinSet::spawn_on`].
    #[track_caller]
    pub fn spawn_on<F>(&mut self, task: F, handle: &Handle) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
        T: Send,
    {
        self.0.spawn_on(task.task_here(), handle)
    }

    /// Spawns a `!Send` future as a tracked task, like [`tokio::task::JoinSet::spawn_local`].
    #[track_caller]
    pub fn spawn_local<F>(&mut self, task: F) -> AbortHandle
    where
        F: Future<Output = T> + 'static,
    {
        self.0.spawn_local(task.task_here())
    }

    /// Spawns a `!Send` future as a tracked task on a `LocalSet`, like [`tokio::task::JoinSet::spawn_local_on`].
    #[track_caller]
    pub fn spawn_local_on<F>(&mut self, task: F, local_set: &LocalSet) -> AbortHandle
    where
        F: Future<Output = T> + 'static,
    {
        self.0.spawn_local_on(task.task_here(), local_set)
    }

    /// Runs a blocking closure as a tracked task, like [`tokio::task::JoinSet::spawn_blocking`].
    #[track_caller]
    pub fn spawn_blocking<F>(&mut self, f: F) -> AbortHandle
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send,
    {
        self.0.spawn_blocking(blocking_task(f))
    }

    /// Runs a blocking closure as a tracked task on a runtime, like [`tokio::task::JoinSet::spawn_blocking_on`].
    #[track_caller]
    pub fn spawn_blocking_on<F>(&mut self, f: F, handle: &Handle) -> AbortHandle
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send,
    {
        self.0.spawn_blocking_on(blocking_task(f), handle)
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for JoinSet<T> {
    type Target = tokio::task::JoinSet<T>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T> DerefMut for JoinSet<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}
