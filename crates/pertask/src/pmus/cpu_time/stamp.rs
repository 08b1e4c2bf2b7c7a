//! A reading of both clocks, for one stint.

use crate::os::clock::Reading;
use std::sync::atomic::{AtomicU64, Ordering};

/// A reading of both clocks, valid for one stint: the time between two switches of a CPU.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    /// The CPU's count of switches during the stint, plus one; 0 for no stint.
    pub(super) stint: AtomicU64,
    cpu_ns: AtomicU64,
    pub(super) wall_ns: AtomicU64,
}

impl Stamp {
    pub(super) fn set(&self, stint: u64, reading: Reading) {
        self.set_times(reading);
        self.begin(stint);
    }

    #[inline(always)]
    pub(super) fn set_times(&self, reading: Reading) {
        // Relaxed: the Release in `begin` orders both.
        self.cpu_ns.store(reading.cpu_ns, Ordering::Relaxed);
        self.wall_ns.store(reading.wall_ns, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn begin(&self, stint: u64) {
        // Release: pairs with the Acquire in `get`. A reader has read the times of a stint if it finds the stint's number, and
        // the stint still runs after it has read them.
        self.stint.store(stint, Ordering::Release);
    }

    #[inline(always)]
    pub(super) fn get(&self, stint: u64) -> Option<Reading> {
        // Acquire: pairs with the Release in `begin`.
        (self.stint.load(Ordering::Acquire) == stint).then(|| Reading {
            cpu_ns: self.cpu_ns.load(Ordering::Relaxed),
            wall_ns: self.wall_ns.load(Ordering::Relaxed),
        })
    }
}
