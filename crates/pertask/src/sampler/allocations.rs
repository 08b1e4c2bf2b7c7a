//! Where tasks allocate: each allocation that is sampled becomes a record in the ring of its thread.
//!
//! The allocator calls this, so it allocates nothing and takes no lock.

use super::handler::ALLOCATION;
use super::own_thread::OwnRecord;
use crate::pmus::memory::sampling::Sampled;
use pertask_core::Cpu;
use std::sync::atomic::{AtomicU64, Ordering};

/// The samples that are lost, because there was no room in their thread's ring, the stack was not known, or the thread is not sampled.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Begins to sample allocations. Somebody counts memory as long as the result lives.
pub(super) fn begin() -> Sampled {
    Sampled::begin(take)
}

/// How many samples have been lost since the program began.
pub(super) fn dropped() -> u64 {
    // Relaxed: a figure.
    DROPPED.load(Ordering::Relaxed)
}

fn take(bytes: u64) {
    // Threads that run no tasks are not sampled.
    if Cpu::record_here().is_none() {
        return;
    }
    let written = match OwnRecord::of_worker() {
        Some(own) => own.write_sample(ALLOCATION, bytes),
        None => None,
    };
    if written.is_none() {
        // Relaxed: a figure.
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}
