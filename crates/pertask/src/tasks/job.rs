//! Tasks of code that is no future: a closure, or the rounds of a loop, on any thread.

use super::accounts::{self, Held};
use super::label_set::Labels;
use super::run::{fork, run_as};
use super::standing;
use pertask_core::{OwnedTask, Task};
use std::panic::Location;
use std::sync::Arc;

/// Runs a closure as a task of its own, on the calling thread.
///
/// The task's spawn site is the place of this call, and its parent is the task that makes the call, if one runs here. Each call
/// makes a new task, which counts one poll. For what runs again and again there is [`Job`].
///
/// ```
/// let session = pertask::Session::start()?;
/// let sum = pertask::run("sum", || std::hint::black_box((0..100_000).sum::<u64>()));
/// assert_eq!(session.stop().sites[0].site.name.as_deref(), Some("sum"));
/// # assert!(sum > 0);
/// # Ok::<(), pertask::Error>(())
/// ```
///
/// # Panics
/// If the closure panics.
#[track_caller]
pub fn run<R>(name: impl AsRef<str>, f: impl FnOnce() -> R) -> R {
    Job::new(name).run(f)
}

/// A task that is no future: whatever is called by its [`run`](Self::run) is part of it.
///
/// Each run counts as a poll. The task lives until the job is dropped, and may move between threads meanwhile.
///
/// ```
/// let session = pertask::Session::start()?;
/// let worker = std::thread::spawn(|| {
///     let mut compaction = pertask::Job::new("compaction");
///     for _ in 0..3 {
///         compaction.run(|| std::hint::black_box((0..10_000).sum::<u64>()));
///     }
/// });
/// worker.join().unwrap();
/// let compaction = &session.stop().sites[0];
/// assert_eq!((compaction.tasks_started, compaction.usage.polls), (1, 3));
/// # Ok::<(), pertask::Error>(())
/// ```
#[derive(Debug)]
pub struct Job {
    task: OwnedTask,
    /// The account of the task's labels, which lives until the task has ended.
    account: Option<Held>,
}

impl Job {
    /// Makes a task with that name.
    ///
    /// Its spawn site is the place of this call. Its parent is the task that makes the call, if one runs here.
    #[track_caller]
    #[must_use = "the task ends when this is dropped"]
    pub fn new(name: impl AsRef<str>) -> Self {
        Self::at(Some(name.as_ref()), Location::caller())
    }

    /// Makes a task with that spawn site.
    pub(super) fn at(name: Option<&str>, location: &'static Location<'static>) -> Self {
        let (task, account) = fork(name, location);
        Self { task, account }
    }

    /// Gives the task these labels from now on, in addition to those that it has.
    ///
    /// For a key that the task has already, the new value holds.
    #[must_use = "the task ends when this is dropped"]
    pub fn labels<K: AsRef<str>, V: AsRef<str>>(
        mut self,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.account = accounts::add(self.task.handle_ref(), &Labels::new(labels));
        self
    }

    /// Runs a closure as this task, on the calling thread.
    ///
    /// # Panics
    /// If the closure panics. The job can be run again.
    pub fn run<R>(&mut self, f: impl FnOnce() -> R) -> R {
        standing::note_run(self.task.handle_ref().site());
        run_as(&mut self.task, f)
    }

    /// The task, to which events can be attached.
    #[must_use]
    pub fn handle(&self) -> &Arc<Task> {
        self.task.handle_ref()
    }
}
