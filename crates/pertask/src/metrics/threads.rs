//! The CPU time outside tasks, by the kind of thread.

use super::shown::Shown;
use crate::report::{Report, ThreadReport};
use std::collections::HashMap;

/// The CPU time outside tasks: of the threads that run tasks, and of all others.
///
/// A thread becomes a worker when it first runs a task, and reports then count all of its time as a worker's. Here, what it had
/// used before stays with the other threads, or that counter would fall.
#[derive(Debug, Default)]
pub(super) struct ThreadTimes {
    pub(super) workers_ns: Shown,
    pub(super) others_ns: Shown,
    /// How many threads of each kind are alive.
    pub(super) workers: usize,
    pub(super) others: usize,
    /// What each live thread that had run no task had used at the last report.
    before_ns: HashMap<u32, u64>,
    /// What workers had used before they were workers.
    moved_ns: u64,
}

impl ThreadTimes {
    pub(super) fn update(&mut self, report: &Report) {
        let live = || report.threads.iter().filter_map(|it| Some((it, it.tid?)));
        let (workers, others): (Vec<_>, Vec<_>) = live().partition(|(thread, _)| thread.worker);
        self.moved_ns += workers.iter().map(|(it, tid)| self.used_before(it, *tid)).sum::<u64>();
        self.before_ns = others.iter().map(|(thread, tid)| (*tid, thread.cpu_ns)).collect();
        (self.workers, self.others) = (workers.len(), others.len());
        self.workers_ns.raise(report.workers_cpu_ns.saturating_sub(self.moved_ns));
        self.others_ns.raise(report.other_cpu_ns + self.moved_ns);
    }

    /// What a worker had used when it was last seen as another thread. A thread that has used less has only the same number.
    fn used_before(&self, worker: &ThreadReport, tid: u32) -> u64 {
        let before_ns = self.before_ns.get(&tid).filter(|before_ns| **before_ns <= worker.cpu_ns);
        before_ns.copied().unwrap_or(0)
    }
}
