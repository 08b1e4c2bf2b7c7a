//! A poll that blocks its worker, as the watch has caught it.

use super::names::Names;
use crate::report::{BlockedState, SpawnSite, StackFrame};
use crate::tasks::label_set::Labels;
use pertask_core::{Site, TaskId};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A poll that blocks its worker: of which task, for how long, and where.
///
/// It displays as one line: `GET /report blocked its worker for 12.1 ms, blocked in clock_nanosleep at src/report.rs:40`.
#[derive(Clone)]
pub struct BlockingPoll {
    pub(super) facts: Arc<Facts>,
    pub(super) times: PollTimes,
    pub(super) ended: bool,
    pub(super) names: Arc<Names>,
}

/// What is known of a poll when it is caught.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) task: TaskId,
    pub(super) site: &'static Site,
    pub(super) labels: Labels,
    pub(super) thread: u32,
    pub(super) state: BlockedState,
    pub(super) call: Option<String>,
    /// The addresses of the stack, or none if it is not known.
    pub(super) stack: Vec<u64>,
    pub(super) stack_complete: bool,
    /// The functions of the stack, by where they begin: rows are told apart by them.
    pub(super) functions: Box<[u64]>,
}

/// How long a poll lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PollTimes {
    pub(super) wall_ns: u64,
    pub(super) cpu_ns: u64,
    /// Whether the poll may have lasted longer.
    pub(super) at_least: bool,
}

impl BlockingPoll {
    /// The task.
    #[must_use]
    pub fn task(&self) -> TaskId {
        self.facts.task
    }

    /// The task's name and spawn site.
    #[must_use]
    pub fn site(&self) -> SpawnSite {
        SpawnSite::of(self.facts.site)
    }

    /// The labels that the task had when the poll was caught.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.facts.labels
    }

    /// The kernel's id of the worker.
    #[must_use]
    pub fn tid(&self) -> u32 {
        self.facts.thread
    }

    /// How long the poll has lasted: so far, or in all if it [has ended](Self::has_ended).
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.times.wall_ns)
    }

    /// The CPU time that it has used.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.times.cpu_ns)
    }

    /// What the worker did for most of the time, up to when the poll was caught.
    #[must_use]
    pub fn state(&self) -> BlockedState {
        self.facts.state
    }

    /// The system call in which the worker was blocked.
    #[must_use]
    pub fn call(&self) -> Option<&str> {
        self.facts.call.as_deref()
    }

    /// Whether the poll has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The addresses of the worker's stack when the poll was caught: where it was, and then where each caller continues. Empty if
    /// the stack is not known.
    #[must_use]
    pub fn addresses(&self) -> &[u64] {
        &self.facts.stack
    }

    /// The functions of the stack, from the innermost to the outermost of the task.
    ///
    /// With the feature `symbols` they have names. To find the names of new addresses takes some time, of the order of 100 ms with
    /// full debug information, during which the watch does not look.
    #[must_use]
    pub fn frames(&self) -> Vec<StackFrame> {
        self.names.frames(&self.facts.stack).0
    }

    /// The innermost of these functions that is neither of the standard library nor of libc.
    ///
    /// It takes as long as [`frames`](Self::frames).
    #[must_use]
    pub fn place(&self) -> Option<StackFrame> {
        self.names.frames(&self.facts.stack).1
    }
}

impl fmt::Display for BlockingPoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SpawnSite { name, file, line } = self.site();
        match name {
            Some(name) => write!(f, "{name}")?,
            None => write!(f, "the task of {file}:{line}")?,
        }
        let verb = if self.ended { "blocked" } else { "blocks" };
        let ms = self.times.wall_ns as f64 / 1e6;
        write!(f, " {verb} its worker for {ms:.1} ms")?;
        match (self.facts.state, &self.facts.call) {
            (BlockedState::Computing, _) => f.write_str(", computing")?,
            (BlockedState::Blocked, Some(call)) => write!(f, ", blocked in {call}")?,
            (BlockedState::Blocked, None) => f.write_str(", blocked")?,
            (BlockedState::NotScheduled, _) => f.write_str(", without a CPU")?,
        }
        let Some(place) = self.place() else { return Ok(()) };
        match (place.function, place.file, place.line) {
            (_, Some(file), Some(line)) => write!(f, " at {file}:{line}"),
            (Some(function), ..) => write!(f, " in {function}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for BlockingPoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { facts, times, ended, .. } = self;
        f.debug_struct("BlockingPoll")
            .field("facts", facts)
            .field("times", times)
            .field("ended", ended)
            .finish_non_exhaustive()
    }
}
