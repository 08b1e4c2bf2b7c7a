//! How a process is recorded.

/// The options of a [`Recorder`](crate::Recorder). Numbers that are too small or too large become the nearest that is possible.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordOptions {
    /// The samples for each second of CPU time, from 1 to [`HIGHEST_HZ`](Self::HIGHEST_HZ). The default is 199, so that samples do not keep
    /// step with what happens a hundred times a second.
    pub frequency_hz: u32,
    /// The bytes of a thread's stack that each sample has, at most 65,528. Frames beyond it are missing. The default is 32 KiB: tonic (0.14) needs 24.
    pub stack_bytes: u32,
    /// The bytes of each CPU's ring. If the kernel does not allow that much locked memory, a smaller one is used. The default is 8 MiB.
    pub ring_bytes: usize,
}

impl RecordOptions {
    /// The highest frequency.
    pub const HIGHEST_HZ: u32 = 10_000;
    /// The largest part of a stack that the kernel writes.
    const LARGEST_STACK: u32 = 65_528;
    const LARGEST_RING: usize = 64 << 20;

    /// Returns the default with another frequency.
    #[must_use]
    pub fn with_frequency(frequency_hz: u32) -> Self {
        Self { frequency_hz, ..Self::default() }
    }

    pub(crate) fn bounded(&self) -> Self {
        Self {
            frequency_hz: self.frequency_hz.clamp(1, Self::HIGHEST_HZ),
            // The kernel wants a multiple of eight.
            stack_bytes: self.stack_bytes.clamp(1_024, Self::LARGEST_STACK) / 8 * 8,
            ring_bytes: self.ring_bytes.min(Self::LARGEST_RING),
        }
    }

    pub(crate) fn period_ns(&self) -> u64 {
        1_000_000_000 / u64::from(self.frequency_hz.max(1))
    }
}

impl Default for RecordOptions {
    fn default() -> Self {
        Self { frequency_hz: 199, stack_bytes: 32 << 10, ring_bytes: 8 << 20 }
    }
}
