//! The options of a sampling session, as plain data.

use super::mechanism::Mechanism;
#[cfg(doc)]
use crate::Session;

/// The options of a sampling session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SamplerOptions {
    /// The number of samples for each second of CPU time of a thread, from 1 to 5,000.
    pub frequency_hz: u32,
    /// The mechanism that interrupts the threads, or `None` for the best for the rate that works.
    ///
    /// With `None`, POSIX timers sample single threads that the mechanism cannot reach, because they block its signal or there is no
    /// file descriptor for them. If you name a mechanism, such threads are not sampled.
    ///
    /// The sampler ignores this while another session samples.
    pub mechanism: Option<Mechanism>,
    /// The memory for samples of one thread that the collector has not read yet, in bytes.
    ///
    /// The sampler allocates room for at least one sample. It ignores this while another session samples, and for threads that
    /// were sampled before.
    pub ring_bytes: usize,
    /// The memory for the samples of the session, in bytes.
    ///
    /// Samples for which there is no memory left are counted.
    pub memory_bytes: usize,
    /// Whether the session [records](crate::CallStack::record) scopes.
    ///
    /// Samples also have scopes if another part of the program records them.
    pub scopes: bool,
    /// Whether to measure the CPU time of tasks by the clock, as a [`Session`] does.
    ///
    /// If so, the samples of a spawn path's tasks share the CPU time that those tasks had. If not, each sample stands for what
    /// its thread has used since the thread's last sample, and time in the kernel in which no samples are taken stands with its
    /// thread, in no task.
    pub clocked: bool,
    /// Whether to see where tasks wait, and who wakes them.
    ///
    /// By default this is off. If it is on, the lives of tasks are measured as with [`SessionOptions::life`](crate::SessionOptions::life),
    /// and so is their CPU time by the clock. The waits of a spawn path share the time that its tasks waited.
    pub waits: bool,
    /// Whether to see where tasks allocate memory.
    ///
    /// By default this is off. If it is on, what tasks allocate is counted as with
    /// [`SessionOptions::memory`](crate::SessionOptions::memory), which needs [`Alloc`](crate::Alloc), and their CPU time is measured by
    /// the clock. About one allocation for each 512 KiB is seen, on threads that run tasks. Those of a spawn path share what its tasks have
    /// allocated.
    pub allocations: bool,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            frequency_hz: 199,
            mechanism: None,
            ring_bytes: 64 << 10,
            memory_bytes: 256 << 20,
            scopes: true,
            clocked: true,
            waits: false,
            allocations: false,
        }
    }
}

impl SamplerOptions {
    /// The highest rate, in samples for each second of a thread's CPU time.
    pub const HIGHEST_HZ: u32 = 5_000;

    /// The default options with another rate.
    ///
    /// The default rate, 199 Hz, divides no usual tick or timer, so that samples do not keep in step with one.
    #[must_use]
    pub fn with_frequency(frequency_hz: u32) -> Self {
        Self { frequency_hz, ..Self::default() }
    }
}
