//! CPU time by the clock during a session, told apart as samples can be.

use std::collections::HashMap;

/// CPU time by the clock, during a session.
#[derive(Debug, Default)]
pub(crate) struct Clocked {
    /// Of the tasks of each spawn path, by the path's number.
    pub(crate) paths_ns: HashMap<u32, u64>,
    /// Of each thread that lives, outside of tasks. `None`: it is no worker, and all its time is its own.
    pub(crate) threads_ns: HashMap<u32, Option<u64>>,
    /// Of all threads that have ended, outside of tasks.
    pub(crate) ended_ns: u64,
}
