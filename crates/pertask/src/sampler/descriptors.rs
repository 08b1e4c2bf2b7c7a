//! How many file descriptors perf events may take: they are the program's, which needs them for its connections.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

/// The part of the free descriptors that the sampler takes at most is one in so many.
const SHARE: u64 = 4;

/// The number of descriptors that events have.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// The most descriptors that the sampler may have, as there were free ones when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) most: u64,
    /// The most descriptors that the process may have (`ulimit -n`).
    pub(super) limit: u64,
}

/// The right to one descriptor, until it is dropped.
#[derive(Debug)]
pub(super) struct Lease(());

impl Budget {
    /// A quarter of the descriptors that are free now.
    pub(super) fn now() -> Self {
        let limit = limit();
        // Relaxed: a number that orders nothing.
        let used = in_use().saturating_sub(TAKEN.load(Ordering::Relaxed));
        Self { most: limit.saturating_sub(used) / SHARE, limit }
    }

    /// Takes the right to a descriptor, or returns `None` if the sampler has as many as it may have.
    pub(super) fn take(self) -> Option<Lease> {
        let more = |taken: u64| (taken < self.most).then_some(taken + 1);
        // Relaxed: a number that orders nothing.
        let taken = TAKEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Lease(()))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Relaxed: a number that orders nothing.
        TAKEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The most descriptors that the process may have.
#[allow(unsafe_code)]
pub(super) fn limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`, into memory of this function's own.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur
}

/// The number of descriptors that the process has, or 0 where that cannot be found out.
fn in_use() -> u64 {
    const FOLDER: &str = "/proc/self/fd";
    // Kernels from 6.2 on give the number as the folder's size, which is cheaper than a list.
    let told = fs::metadata(FOLDER).map_or(0, |folder| folder.len());
    if told > 0 {
        return told;
    }
    fs::read_dir(FOLDER).map_or(0, |list| list.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again_and_no_more_is_given() {
        let budget = Budget { most: TAKEN.load(Ordering::Relaxed) + 2, limit: 1_000 };
        let [first, _second] = [budget.take(), budget.take()].map(Option::unwrap);
        assert!(budget.take().is_none());
        drop(first);
        assert!(budget.take().is_some());
    }

    #[test]
    fn it_is_a_quarter_of_the_free_ones_at_most() {
        let Budget { most, limit } = Budget::now();
        assert!(most > 0 && most <= limit / 4, "{most} of {limit}");
        let files: Vec<_> = (0..20).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(in_use() >= 20, "{} and {}", in_use(), files.len());
    }
}
