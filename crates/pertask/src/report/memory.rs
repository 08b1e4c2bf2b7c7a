//! What the process has allocated and freed, divided as its CPU time is.

use crate::pmus::memory::count::MemoryCount;

/// What the process allocated and freed during a session.
///
/// `tasks`, `unknown`, `workers` and `other` add up to `process`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct ProcessMemory {
    /// All threads of the process.
    pub process: MemoryCount,
    /// Inside tasks: the sum of the sites.
    pub tasks: MemoryCount,
    /// Inside tasks, but it is not known in which, because polls ended in another order than they began, or on another thread.
    pub unknown: MemoryCount,
    /// The threads that run tasks, outside any task. In a session on some tasks, this includes all other tasks.
    pub workers: MemoryCount,
    /// The threads that ran no task, and each worker before its first task and in its last moments.
    pub other: MemoryCount,
}
