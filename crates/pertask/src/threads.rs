//! The process's threads and their CPU time, from the kernel.

use crate::clock;

/// All threads of the process at one moment.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    pub(crate) live: Vec<Thread>,
    /// CPU time of the process at that moment, threads that have ended included.
    pub(crate) process_cpu_ns: u64,
    /// How much CPU time the process used while the list was made: the figures cannot be compared more closely.
    pub(crate) uncertain_ns: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) number: u32,
    pub(crate) cpu_ns: u64,
}

impl Threads {
    pub(crate) fn read() -> Self {
        let before_ns = clock::process_cpu_ns();
        let live: Vec<_> = numbers()
            .into_iter()
            .filter_map(|number| Some(Thread { number, cpu_ns: clock::cpu_ns_of_thread(number)? }))
            .collect();
        let after_ns = clock::process_cpu_ns();
        let uncertain_ns = after_ns.saturating_sub(before_ns);
        Self { live, process_cpu_ns: before_ns + uncertain_ns / 2, uncertain_ns }
    }

    /// CPU time of the threads that had ended by then.
    pub(crate) fn ended_cpu_ns(&self) -> i128 {
        let live: u64 = self.live.iter().map(|thread| thread.cpu_ns).sum();
        i128::from(self.process_cpu_ns) - i128::from(live)
    }

    pub(crate) fn cpu_ns_of(&self, number: u32) -> Option<u64> {
        self.live.iter().find(|thread| thread.number == number).map(|thread| thread.cpu_ns)
    }
}

/// A thread's name, as the kernel knows it.
pub(crate) fn name(number: u32) -> String {
    let comm = std::fs::read(format!("/proc/self/task/{number}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&comm).trim_end_matches('\n').to_owned()
}

fn numbers() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}
