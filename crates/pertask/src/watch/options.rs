//! The options of a watch.

use std::time::Duration;

/// Which polls a watch catches, and how much it keeps of them.
///
/// ```
/// use pertask::watch::WatchOptions;
/// use std::time::Duration;
///
/// let options = WatchOptions { threshold: Duration::from_millis(50), ..WatchOptions::default() };
/// assert_eq!(options.most_rows, 256);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// A poll that lasts this long is caught. The default is 10 ms, and less than 1 ms counts as 1 ms.
    ///
    /// The watch looks at all workers twice in this time.
    pub threshold: Duration,
    /// The most different rows that are kept. The default is 256.
    ///
    /// A poll beyond them is counted.
    pub most_rows: usize,
    /// The most polls in a second whose stacks are taken. The default is 64.
    ///
    /// Half of them are for polls that are unlike those of that second so far: of another site, or blocked in another way. Of a poll
    /// beyond them the duration and the CPU time are known.
    pub most_stacks_a_second: u32,
    /// The most polls in a second of which the program is told: see [`Watch::start_with`](super::Watch::start_with). The default is 16,
    /// of which half are for polls that are unlike the others.
    pub most_told_a_second: u32,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            threshold: Duration::from_millis(10),
            most_rows: 256,
            most_stacks_a_second: 64,
            most_told_a_second: 16,
        }
    }
}

impl WatchOptions {
    /// The threshold in use, in nanoseconds.
    pub(super) fn threshold_ns(&self) -> u64 {
        const LEAST_NS: u64 = 1_000_000;
        u64::try_from(self.threshold.as_nanos()).unwrap_or(u64::MAX).max(LEAST_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_not_too_short() {
        let of = |threshold| WatchOptions { threshold, ..WatchOptions::default() }.threshold_ns();
        assert_eq!(of(Duration::ZERO), 1_000_000);
        assert_eq!(of(Duration::from_millis(7)), 7_000_000);
        assert_eq!(of(Duration::MAX), u64::MAX);
    }
}
