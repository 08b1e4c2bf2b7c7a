//! The clocks: CPU time of threads and of the process, and wall time.
//!
//! The kernel's clocks ([`posix`]) are exact, but each reading is a system call. That is too much for each switch of tasks. So
//! at switches a thread tells its CPU time by the processor's counter ([`on_cpu`]), as long as a detector says that the thread
//! has kept its CPU. Which counter and which detector work here is found by trying ([`choice`]).

mod arch;
mod choice;
mod counter;
mod on_cpu;
mod posix;

pub(crate) use choice::Choice;
pub(crate) use on_cpu::OnCpuClock;
#[cfg(feature = "sampler")]
pub(crate) use posix::{boot_ns, clock_of_thread, monotonic_ns};
pub(crate) use posix::{cpu_ns_of_thread, process_cpu_ns, thread_cpu_ns, tick_hz};

/// CPU time and wall time of one thread at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) cpu_ns: u64,
    pub(crate) wall_ns: u64,
}

impl Reading {
    pub(crate) fn since(self, start: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(start.cpu_ns),
            wall_ns: self.wall_ns.saturating_sub(start.wall_ns),
        }
    }
}
