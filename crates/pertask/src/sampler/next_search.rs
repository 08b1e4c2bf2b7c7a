//! When the collector looks for threads again. A search takes time in proportion to their number.

use std::time::{Duration, Instant};

/// The least wait for the next search, in multiples of the time that the last one took.
const REST: u32 = 50;

/// The longest wait, if the number of threads has not changed: one may have ended and another begun.
const LONGEST_REST: u32 = 100;

/// A search that took less counts as if it had taken this long.
const LEAST: Duration = Duration::from_micros(200);

/// When the collector looks for threads again.
#[derive(Clone, Copy)]
pub(super) struct NextSearch {
    earliest: Instant,
    latest: Instant,
    /// The number of threads at the last search.
    threads: u64,
}

impl NextSearch {
    pub(super) fn after(start: Instant, took: Duration, threads: u64) -> Self {
        let rest = took.max(LEAST);
        Self { earliest: start + rest * REST, latest: start + rest * LONGEST_REST, threads }
    }

    pub(super) fn is_due(&self, now: Instant, threads: u64) -> bool {
        now >= self.latest || now >= self.earliest && threads != self.threads
    }
}
