//! tokio's spawn functions, with tokio's own return types, for tasks that sessions see.
//!
//! Each function makes a task of its argument. Reports show the task by the place of the call. To give the task a name, name the
//! future and pass it to tokio itself: `tokio::spawn(future.task("name"))`. Both ways need stable Rust and no `tokio_unstable`.
//!
//! A program built with `--cfg tokio_unstable` can also track all tasks of a runtime, including those that libraries spawn: see
//! `track_runtime` and `hooks`, which exist only in such a build. What tokio's own `spawn_blocking` runs is no task for them, because
//! tokio (1.54.1) calls only the hook for its end: use [`spawn_blocking`] from here.

#[cfg(tokio_unstable)]
#[allow(unsafe_code)]
pub mod hooks;
mod join_set;

#[cfg(tokio_unstable)]
pub use hooks::track_runtime;
pub use join_set::JoinSet;

use crate::tasks::{job::Job, tracked::TaskExt};
use std::future::Future;
use std::panic::Location;
use tokio::task::JoinHandle;

/// Spawns a future as a tracked task, like [`tokio::spawn`].
///
/// # Panics
/// Panics outside a tokio runtime, like tokio's function.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// let answer = pertask::tokio::spawn(async { 42 });
/// assert_eq!(answer.await.unwrap(), 42);
/// # });
/// ```
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.task_here())
}

/// Spawns a `!Send` future as a tracked task, like [`tokio::task::spawn_local`].
///
/// # Panics
/// Panics outside a `LocalSet`, like tokio's function.
#[track_caller]
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio::task::spawn_local(future.task_here())
}

/// Runs a blocking closure as a tracked task of one poll, like [`tokio::task::spawn_blocking`].
///
/// # Panics
/// Panics outside a tokio runtime, like tokio's function.
#[track_caller]
pub fn spawn_blocking<F, R>(f: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    tokio::task::spawn_blocking(blocking_task(f))
}

/// Makes a task of a closure. The task begins here, and ends when the closure has run or is dropped.
#[track_caller]
fn blocking_task<F, R>(f: F) -> impl FnOnce() -> R
where
    F: FnOnce() -> R,
{
    let mut job = Job::at(None, Location::caller());
    move || job.run(f)
}
