//! Where threads count what they allocate and free: numbers that only grow, written by one thread at a time and read by any.

use super::count::MemoryCount;
use bytemuck::Zeroable;
use std::sync::atomic::{AtomicU64, Ordering};

/// The four numbers of a [`MemoryCount`], written by one thread at a time.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Sums {
    allocated_bytes: AtomicU64,
    allocations: AtomicU64,
    freed_bytes: AtomicU64,
    frees: AtomicU64,
}

// SAFETY: all fields are integers, for which zero is a value.
#[allow(unsafe_code)]
unsafe impl Zeroable for Sums {}

/// A place where threads count: a cache line of its own, so that no two threads write to one.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Meter {
    sums: Sums,
    /// The byte, by `allocated_bytes`, whose allocation is sampled (`sampling.rs`); 0 if none was chosen yet.
    chosen: AtomicU64,
    /// Whether several threads count here.
    is_shared: bool,
}

impl Sums {
    const fn new() -> Self {
        Self {
            allocated_bytes: AtomicU64::new(0),
            allocations: AtomicU64::new(0),
            freed_bytes: AtomicU64::new(0),
            frees: AtomicU64::new(0),
        }
    }

    #[inline(always)]
    pub(super) fn read(&self) -> MemoryCount {
        // Relaxed: each number is right by itself.
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        MemoryCount {
            allocated_bytes: read(&self.allocated_bytes),
            allocations: read(&self.allocations),
            freed_bytes: read(&self.freed_bytes),
            frees: read(&self.frees),
        }
    }

    #[inline(always)]
    pub(super) fn add(&self, more: MemoryCount) {
        add(&self.allocated_bytes, more.allocated_bytes);
        add(&self.allocations, more.allocations);
        add(&self.freed_bytes, more.freed_bytes);
        add(&self.frees, more.frees);
    }

    #[inline(always)]
    pub(super) fn set(&self, count: MemoryCount) {
        // Relaxed: the caller orders the four for those who read them.
        self.allocated_bytes.store(count.allocated_bytes, Ordering::Relaxed);
        self.allocations.store(count.allocations, Ordering::Relaxed);
        self.freed_bytes.store(count.freed_bytes, Ordering::Relaxed);
        self.frees.store(count.frees, Ordering::Relaxed);
    }
}

impl Meter {
    /// A meter of one thread at a time.
    pub(super) const fn new() -> Self {
        Self { sums: Sums::new(), chosen: AtomicU64::new(0), is_shared: false }
    }

    /// A meter of several threads, which is slower.
    pub(super) const fn shared() -> Self {
        Self { sums: Sums::new(), chosen: AtomicU64::new(u64::MAX), is_shared: true }
    }

    #[inline(always)]
    pub(super) fn read(&self) -> MemoryCount {
        self.sums.read()
    }

    /// Returns whether the chosen byte is reached.
    #[inline(always)]
    pub(super) fn count_allocation(&self, bytes: usize) -> bool {
        self.count([&self.sums.allocated_bytes, &self.sums.allocations], bytes);
        // Relaxed, both: the thread that counts has written the first, and the second is a figure.
        self.sums.allocated_bytes.load(Ordering::Relaxed) >= self.chosen.load(Ordering::Relaxed)
    }

    #[cfg(feature = "sampler")]
    pub(super) fn chosen(&self) -> u64 {
        // Relaxed: a figure.
        self.chosen.load(Ordering::Relaxed)
    }

    /// Chooses the next byte, unless somebody has chosen since it was `before`.
    #[cfg(feature = "sampler")]
    pub(super) fn choose(&self, before: u64, next: u64) {
        let (now, failed) = (Ordering::Relaxed, Ordering::Relaxed);
        // Relaxed, both: a figure. If another thread asks for a new choice meanwhile, the next allocation finds that.
        let _ = self.chosen.compare_exchange(before, next, now, failed);
    }

    /// Has the next allocation choose a byte.
    #[cfg(feature = "sampler")]
    pub(super) fn choose_anew(&self) {
        // Relaxed: a figure, which the meter's thread finds soon.
        self.chosen.store(0, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn count_free(&self, bytes: usize) {
        self.count([&self.sums.freed_bytes, &self.sums.frees], bytes);
    }

    #[inline(always)]
    fn count(&self, [sum, calls]: [&AtomicU64; 2], bytes: usize) {
        if self.is_shared {
            // Relaxed: figures, which order nothing else.
            sum.fetch_add(bytes as u64, Ordering::Relaxed);
            calls.fetch_add(1, Ordering::Relaxed);
            return;
        }
        add(sum, bytes as u64);
        add(calls, 1);
    }
}

/// Adds to a number that one thread writes at a time. Readers see the old or the new value.
#[inline(always)]
fn add(number: &AtomicU64, amount: u64) {
    // Relaxed: whatever hands the number from one thread to the next orders their writes: the executor that moves a task, the
    // system's lock under which a CPU changes hands, the C library that gives a thread the stack of one that has ended.
    number.store(number.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}
