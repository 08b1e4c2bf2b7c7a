//! When the collector looks for threads again: it costs time in proportion to them.

use std::time::{Duration, Instant};

/// How much longer than a search for threads the wait for the next is, at least.
const REST: u32 = 50;

/// And at most, if there are as many threads as there were: one may have ended and another begun.
const LONGEST_REST: u32 = 100;

/// What is waited for a multiple of, if a search took less.
const LEAST: Duration = Duration::from_micros(200);

/// When threads are sought again.
#[derive(Clone, Copy)]
pub(super) struct NextSearch {
    earliest: Instant,
    latest: Instant,
    /// How many threads there were at the last.
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
