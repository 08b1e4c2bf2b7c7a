//! The clocks: CPU time of threads and of the process, wall time, and what each costs.
//!
//! The truth is the kernel's ([`posix`]), at a system call a reading. At each switch of tasks that would be too much, so
//! there a thread tells its CPU time by the processor's counter ([`on_cpu`]) for as long as a detector says that it has
//! kept its CPU. Which counter and which detector is found by trying ([`choice`]).

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

/// Both times, of one thread at one moment.
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
