//! Whether anybody wants to know what threads allocate: the one word that the allocator loads at each call.

use super::place;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The number of the epoch in which threads count, or 0 while they do not. No number comes twice.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// How many want threads to count, and the number of the last epoch.
static WANTED: Mutex<(usize, u64)> = Mutex::new((0, 0));

/// The epoch, or 0 while nobody wants threads to count.
#[inline(always)]
pub(super) fn now() -> u64 {
    // Relaxed: a thread that has heard of the beginning, or of the end, in any way that orders memory finds the new number.
    EPOCH.load(Ordering::Relaxed)
}

/// While a value of this type lives, threads count what they allocate and free.
///
/// INVARIANT: whoever wants counts by task has attached an event before, and detaches it afterwards: then each poll that begins
/// while threads count is seen, and a thread that is found to run no task has not begun one unseen.
#[derive(Debug)]
pub(crate) struct Counting(());

impl Counting {
    pub(crate) fn begin() -> Self {
        let mut wanted = WANTED.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.0 == 0 {
            wanted.1 += 1;
            // Relaxed: see `now`.
            EPOCH.store(wanted.1, Ordering::Relaxed);
        }
        wanted.0 += 1;
        Self(())
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let mut wanted = WANTED.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.0 -= 1;
        if wanted.0 == 0 {
            // Relaxed: see `now`.
            EPOCH.store(0, Ordering::Relaxed);
        }
    }
}

/// Whether the program's memory comes from an allocator that counts, found by allocating.
pub(crate) fn is_possible() -> bool {
    let _counting = Counting::begin();
    drop(black_box(Box::new(0_u8)));
    place::is_asked_for()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_while_anybody_wants_it_and_each_time_is_another_epoch() {
        assert_eq!(now(), 0);
        let first = Counting::begin();
        let epoch = now();
        assert_ne!(epoch, 0);
        let second = Counting::begin();
        drop(first);
        assert_eq!(now(), epoch, "one goes on");
        drop(second);
        assert_eq!(now(), 0);
        let _third = Counting::begin();
        assert!(now() > epoch);
    }
}
