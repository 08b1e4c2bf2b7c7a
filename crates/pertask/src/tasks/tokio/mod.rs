//! Tasks on tokio: its own spawn functions, with its own return types, for tasks that are seen.
//!
//! Each makes a task of what it is given, known by the place of the call. To give it a name, name the future and hand
//! it to tokio itself: `tokio::spawn(future.task("name"))`. Both need stable Rust and no `tokio_unstable`.
//!
//! A program built with `--cfg tokio_unstable` can have every task of a runtime seen, also those that libraries
//! spawn: see `hooks` and `track_runtime`, which exist only in such a build.

#[cfg(tokio_unstable)]
#[allow(unsafe_code)]
pub mod hooks;
mod join_set;

#[cfg(tokio_unstable)]
pub use hooks::track_runtime;
pub use join_set::JoinSet;

use crate::tasks::{run, tracked::TaskExt};
use std::future::Future;
use std::panic::Location;
use tokio::task::JoinHandle;

/// [`tokio::spawn`], of a task that is seen.
///
/// # Panics
/// Outside a tokio runtime, as tokio's.
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

/// [`tokio::task::spawn_local`], of a task that is seen.
///
/// # Panics
/// Outside a `LocalSet`, as tokio's.
#[track_caller]
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio::task::spawn_local(future.task_here())
}

/// [`tokio::task::spawn_blocking`], of a closure that is seen as a task of one poll.
///
/// # Panics
/// Outside a tokio runtime, as tokio's.
#[track_caller]
pub fn spawn_blocking<F, R>(f: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    tokio::task::spawn_blocking(blocking_task(f))
}

/// The closure as a task, which begins here and ends when the closure has run or is dropped.
#[track_caller]
fn blocking_task<F, R>(f: F) -> impl FnOnce() -> R
where
    F: FnOnce() -> R,
{
    let mut task = run::fork(None, Location::caller());
    move || run::run_as(&mut task, f)
}
