//! The global allocator that counts, around the one that the program would have without it.
//!
//! It may be called at any moment of a thread: under any lock, before the thread's first line and in its last destructor, in the
//! core's own code, and in a child after `fork`. So it calls the allocator that it wraps, and beside that loads the epoch, and while
//! threads count finds the thread's meter (`place.rs`) and adds to it; and an allocation that is sampled (`sampling.rs`) has its stack written
//! down. None of that allocates, locks, waits or panics.

use super::meter::Meter;
use super::{Memory, epoch, place};
use std::alloc::{GlobalAlloc, Layout};

/// A global allocator that lets sessions count what tasks allocate and free.
///
/// It takes all memory from the allocator that it wraps: [`System`](std::alloc::System), jemalloc, mimalloc or any other. While no
/// session with [`SessionOptions::memory`](crate::SessionOptions::memory) runs, it costs a load and a branch.
///
/// ```
/// use pertask::{SessionOptions, TaskExt};
///
/// #[global_allocator]
/// static ALLOC: pertask::Alloc<std::alloc::System> = pertask::Alloc::new(std::alloc::System);
///
/// # fn main() -> Result<(), pertask::Error> {
/// let session = SessionOptions { memory: true, ..SessionOptions::default() }.start()?;
/// let page = async { Vec::<u8>::with_capacity(4096) };
/// let page = futures::executor::block_on(page.task("render"));
/// let report = session.stop();
///
/// let memory = report.sites[0].memory.expect("the allocator counts");
/// assert!(memory.allocated_bytes >= 4096 && memory.freed_bytes < 4096);
/// # drop(page);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Alloc<A>(A);

impl<A> Alloc<A> {
    /// Wraps an allocator.
    #[must_use]
    pub const fn new(inner: A) -> Self {
        Self(inner)
    }
}

/// Lets the calling thread count if anybody wants to know.
#[inline(always)]
fn count(call: impl FnOnce(&Meter)) {
    let epoch = epoch::now();
    if epoch != 0 {
        call(place::meter(epoch, Memory::meter_of_worker));
    }
}

#[inline(always)]
fn count_allocation(meter: &Meter, bytes: usize) {
    let _is_reached = meter.count_allocation(bytes);
    #[cfg(feature = "sampler")]
    if _is_reached {
        super::sampling::reached(meter, bytes);
    }
}

/// Counts an allocation, unless it was refused.
#[inline(always)]
fn allocated(memory: *mut u8, layout: Layout) -> *mut u8 {
    count(|meter| {
        if !memory.is_null() {
            count_allocation(meter, layout.size());
        }
    });
    memory
}

// SAFETY: each call goes to the inner allocator once, with the caller's arguments, and returns what that returns, so its contract is
// kept because the inner one keeps it. What is done beside it does not touch the memory, does not unwind, and does not allocate, so it
// does not call this allocator again.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Alloc<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is that of the inner allocator.
        allocated(unsafe { self.0.alloc(layout) }, layout)
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is that of the inner allocator.
        allocated(unsafe { self.0.alloc_zeroed(layout) }, layout)
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(|meter| meter.count_free(layout.size()));
        // SAFETY: the caller's contract is that of the inner allocator, which allocated the memory.
        unsafe { self.0.dealloc(memory, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's contract is that of the inner allocator, which allocated the memory.
        let moved = unsafe { self.0.realloc(memory, layout, new_size) };
        count(|meter| {
            if !moved.is_null() {
                meter.count_free(layout.size());
                count_allocation(meter, new_size);
            }
        });
        moved
    }
}
