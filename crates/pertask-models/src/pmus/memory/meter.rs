//! A meter of one thread. Its cells are written and read as those of the real one, which is made before the program begins; loom's cannot be.

use crate::sync::{AtomicU64, Ordering};

#[derive(Debug)]
pub(super) struct Meter {
    allocated_bytes: AtomicU64,
    chosen: AtomicU64,
}

/// What was counted, of which the sampling reads this.
pub(super) struct Count {
    pub(super) allocated_bytes: u64,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self { allocated_bytes: AtomicU64::new(0), chosen: AtomicU64::new(0) }
    }

    pub(super) fn read(&self) -> Count {
        // Relaxed: a figure.
        Count { allocated_bytes: self.allocated_bytes.load(Ordering::Relaxed) }
    }

    pub(super) fn count_allocation(&self, bytes: u64) -> bool {
        // Relaxed, all: only this thread writes the first, and the second is a figure.
        let sum = self.allocated_bytes.load(Ordering::Relaxed) + bytes;
        self.allocated_bytes.store(sum, Ordering::Relaxed);
        sum >= self.chosen.load(Ordering::Relaxed)
    }

    pub(super) fn chosen(&self) -> u64 {
        // Relaxed: a figure.
        self.chosen.load(Ordering::Relaxed)
    }

    pub(super) fn choose(&self, before: u64, next: u64) {
        let (now, failed) = (Ordering::Relaxed, Ordering::Relaxed);
        // Relaxed, both: a figure.
        let _ = self.chosen.compare_exchange(before, next, now, failed);
    }

    pub(super) fn choose_anew(&self) {
        // Relaxed: a figure.
        self.chosen.store(0, Ordering::Relaxed);
    }
}
