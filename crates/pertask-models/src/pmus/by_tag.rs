//! A table with room for one tag. Its cells are written and read as those of the real one.

use crate::sync::{AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct ByTag<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for ByTag<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> ByTag<N> {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    pub(super) fn make_all_room(&self) {}

    pub(super) fn of(&self, _: u32) -> Option<&[AtomicU64; N]> {
        Some(&self.0)
    }

    pub(super) fn of_place(&self, _: usize) -> [u64; N] {
        // Relaxed: figures.
        std::array::from_fn(|amount| self.0[amount].load(Ordering::Relaxed))
    }
}

pub(super) fn add(amount: &AtomicU64, more: u64) {
    // Relaxed: readers see the old or the new value.
    amount.store(amount.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

pub(super) fn add_shared(amount: &AtomicU64, more: u64) {
    // Relaxed: readers see the old or the new value.
    amount.fetch_add(more, Ordering::Relaxed);
}
