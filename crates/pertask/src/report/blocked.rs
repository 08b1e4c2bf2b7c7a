//! Polls that blocked their worker, as rows of a report: plain data.

use super::SpawnSite;

/// The polls that lasted longer than a threshold, and so kept every other task of their worker waiting.
///
/// `Watch` (feature `sampler`) catches them while they last.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct BlockedReport {
    /// A poll of this length or longer is counted.
    pub threshold_ns: u64,
    /// The number of such polls, those under way included.
    pub polls: u64,
    /// Wall time of these polls, up to now of those under way.
    pub total_ns: u64,
    /// One row for the polls of a site that were blocked in the same way at the same place, the longest poll first.
    pub rows: Vec<BlockedRow>,
    /// Polls that are in no row, because the bounded table had no room, or because the poll was over before its task was known.
    pub polls_without_row: u64,
    /// Polls whose stack is not known: the poll was over too soon, or stacks are taken no more often.
    pub polls_without_stack: u64,
    /// What people should know of figures and stacks that are missing.
    pub remarks: Vec<String>,
}

/// Polls of one site that were blocked in the same way at the same place.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct BlockedRow {
    /// The tasks' site. Its fields are the object's own in JSON.
    #[cfg_attr(feature = "json", serde(flatten))]
    pub site: SpawnSite,
    /// What the worker did for most of the poll, up to when it was caught.
    pub state: BlockedState,
    /// The system call in which the worker was blocked, or `None` if it was in none when it was caught.
    pub call: Option<String>,
    /// The number of polls.
    pub polls: u64,
    /// How many of them are under way.
    pub under_way: u64,
    /// Wall time of these polls, up to now of those under way.
    pub total_ns: u64,
    /// Wall time of the longest of them.
    pub max_ns: u64,
    /// Whether the times of some polls are too short, because nobody saw their end.
    pub at_least: bool,
    /// CPU time in these polls.
    pub cpu_ns: u64,
    /// The number of the task whose poll was the longest.
    pub task: u64,
    /// The kernel's id of the worker of that poll.
    pub tid: u32,
    /// The labels that this task had when it was caught.
    pub labels: Vec<BlockedLabel>,
    /// The frame of the stack that is the program's own: the innermost that is neither of the standard library nor of libc. `None` if
    /// there is none, or where functions have no names.
    pub place: Option<StackFrame>,
    /// The stack of that worker when it was caught, from the innermost frame to the outermost of the task. Empty if it is not known.
    pub stack: Vec<StackFrame>,
    /// Whether the stack is known as far as that.
    pub stack_complete: bool,
}

/// What a worker does in a poll that blocks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "json", serde(rename_all = "snake_case"))]
pub enum BlockedState {
    /// It computes.
    Computing,
    /// It is blocked in the kernel, as in a system call that sleeps.
    Blocked,
    /// It could run, and others have the CPU.
    NotScheduled,
}

/// A label of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct BlockedLabel {
    /// The label's key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// A frame of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct StackFrame {
    /// The address in the process. Functions that were inlined at one address share it.
    pub address: u64,
    /// The function, or `None` if it has no name here.
    pub function: Option<String>,
    /// The source file, if it is known.
    pub file: Option<String>,
    /// The line in that file, if it is known.
    pub line: Option<u32>,
}
