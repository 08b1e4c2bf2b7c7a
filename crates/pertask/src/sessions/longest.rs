//! The longest polls of a session, kept where an epoch ends during it.

use super::rows::Rows;
use crate::pmus::cpu_time::CpuTimeCount;
use crate::pmus::cpu_time::longest;
use pertask_core::TaskId;
use std::collections::HashMap;

/// The longest polls since a session began.
#[derive(Clone, Debug, Default)]
pub(crate) struct LongestPolls {
    /// The epoch with which the session began.
    first: u64,
    /// By spawn path, and by task of those that lived when the last epoch ended.
    paths_ns: HashMap<u32, u64>,
    tasks_ns: HashMap<TaskId, u64>,
}

impl LongestPolls {
    /// None so far: the session begins with the latest epoch.
    pub(crate) fn none() -> Self {
        Self { first: longest::epoch(), ..Self::default() }
    }

    /// Adds the polls of the latest epochs. Of tasks that have ended it keeps what their path had.
    pub(crate) fn add(&mut self, rows: &Rows<CpuTimeCount>) {
        let since = |count: &CpuTimeCount| count.lengths.since(self.first);
        for (path, row) in &rows.paths {
            let longest_ns = self.paths_ns.entry(*path).or_default();
            *longest_ns = since(&row.count).max(*longest_ns);
        }
        let with_old = |(task, row): (&TaskId, &super::rows::LiveTask<CpuTimeCount>)| {
            let old_ns = self.tasks_ns.get(task).copied().unwrap_or(0);
            (*task, since(&row.count).max(old_ns))
        };
        let tasks = rows.tasks.iter().map(with_old).filter(|(_, longest_ns)| *longest_ns > 0);
        self.tasks_ns = tasks.collect();
    }

    pub(crate) fn of_path(&self, path: u32) -> u64 {
        self.paths_ns.get(&path).copied().unwrap_or(0)
    }

    pub(crate) fn of_task(&self, task: TaskId) -> u64 {
        self.tasks_ns.get(&task).copied().unwrap_or(0)
    }
}
