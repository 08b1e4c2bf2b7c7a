//! All threads of the process at one moment, with their CPU time. Each is found once: as a thread, or in the ledger.

use crate::os::{clock, threads::numbers};
use crate::pmus::cpu_time::ledger::Entries;
use std::collections::BTreeSet;

/// All threads of the process at one moment.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    pub(crate) live: Vec<Thread>,
    /// The process's CPU time at that moment, including threads that have ended.
    pub(crate) process_cpu_ns: u64,
    /// The CPU time that the process used while the list was made. Figures cannot be compared more closely than this.
    pub(crate) uncertain_ns: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) number: u32,
    pub(crate) cpu_ns: u64,
    /// Whether the thread has an entry in the ledger, as a worker that ended. Then `cpu_ns` is what it has used since.
    pub(crate) entered: bool,
}

impl Threads {
    /// Lists the threads. The caller holds the ledger's lock, so no worker ends meanwhile.
    ///
    /// `workers` are threads that are known to exist.
    pub(crate) fn read(ledger: &Entries, workers: impl Iterator<Item = u32>) -> Self {
        let before_ns = clock::process_cpu_ns();
        // While threads end, the kernel's list may skip others, so this reads it twice.
        let numbers: BTreeSet<u32> =
            numbers().into_iter().chain(numbers()).chain(workers).collect();
        let live: Vec<_> =
            numbers.into_iter().filter_map(|number| Thread::read(number, ledger)).collect();
        let after_ns = clock::process_cpu_ns();
        let uncertain_ns = after_ns.saturating_sub(before_ns);
        Self { live, process_cpu_ns: before_ns + uncertain_ns / 2, uncertain_ns }
    }

    /// The CPU time of threads that had ended by then, or had an entry in the ledger.
    pub(crate) fn ended_cpu_ns(&self) -> i128 {
        let live: u64 = self.live.iter().map(|thread| thread.cpu_ns).sum();
        i128::from(self.process_cpu_ns) - i128::from(live)
    }

    /// Finds a thread of another list in this one. A thread that has made its entry in the ledger since is not the same.
    pub(crate) fn find(&self, thread: &Thread) -> Option<&Thread> {
        let same =
            |other: &&Thread| (other.number, other.entered) == (thread.number, thread.entered);
        self.live.iter().find(same)
    }
}

impl Thread {
    /// Reads a thread's CPU time. Returns `None` if the thread has ended.
    fn read(number: u32, ledger: &Entries) -> Option<Self> {
        let cpu_ns = clock::cpu_ns_of_thread(number)?;
        Some(match ledger.entered_ns(number, cpu_ns) {
            Some(entered_ns) => {
                Self { number, cpu_ns: cpu_ns.saturating_sub(entered_ns), entered: true }
            }
            None => Self { number, cpu_ns, entered: false },
        })
    }
}
