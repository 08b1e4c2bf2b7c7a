//! CPU time by the clock during a session, divided in the same way as samples can be.

use std::collections::HashMap;

/// CPU time by the clock during a session.
#[derive(Debug, Default)]
pub(crate) struct Clocked {
    /// The CPU time of the tasks of each spawn path, by the path's number.
    pub(crate) paths_ns: HashMap<u32, u64>,
    /// The CPU time of each live thread outside tasks, or `None` for a thread that is no worker: all its time is outside tasks.
    pub(crate) threads_ns: HashMap<u32, Option<u64>>,
    /// The CPU time outside tasks of all threads that have ended.
    pub(crate) ended_ns: u64,
}
