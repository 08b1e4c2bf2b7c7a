//! How to sample: plain data.

use super::mechanism::Mechanism;
#[cfg(doc)]
use crate::Session;

/// How to sample.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SamplerOptions {
    /// Samples for each second of CPU time of a thread: 1 to 5,000.
    pub frequency_hz: u32,
    /// What is to interrupt the threads. `None`: the best that works. Not looked at while another session samples already.
    pub mechanism: Option<Mechanism>,
    /// Memory for the samples of one thread that have not been collected yet: for one, at least. Not looked at while another
    /// session samples already, and for threads that have been sampled before.
    pub ring_bytes: usize,
    /// Memory for the samples of the session. Those that find none left are counted.
    pub memory_bytes: usize,
    /// Whether to [record](crate::CallStack::record) scopes meanwhile. They are in the samples, too, if somebody else does.
    pub scopes: bool,
    /// Whether to measure the CPU time of tasks meanwhile, as a [`Session`] does, and give the samples of
    /// the tasks of one spawn path together what those had. Otherwise each sample stands for what its thread has used since
    /// its last one; then time in the kernel, which perf's ways do not see, counts for whatever the thread does next.
    pub clocked: bool,
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
        }
    }
}

impl SamplerOptions {
    /// The highest rate.
    pub const HIGHEST_HZ: u32 = 5_000;

    /// The default with another rate. (The default is no divisor of usual ticks and timers, so as not to keep in step.)
    #[must_use]
    pub fn with_frequency(frequency_hz: u32) -> Self {
        Self { frequency_hz, ..Self::default() }
    }
}
