//! What the core holds for each task, in bytes: by itself, with a PMU attached, and when that has been detached.
//!
//! A program of its own, because counting makes the allocator slower.

use pertask_bench::{Crowd, Row};
use std::alloc::{GlobalAlloc, Layout, System as Heap};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const TASKS: usize = 100_000;

#[global_allocator]
static HEAP: Counting = Counting(AtomicUsize::new(0));

fn main() {
    let mut crowd = Crowd::with_capacity(TASKS);
    let before = HEAP.each();
    crowd.fill();
    let alone = HEAP.each();
    let event = crowd.attach();
    let attached = HEAP.each();
    detach(event);
    let detached = HEAP.each();

    Row::print("memory of a task, bytes", alone - before);
    Row::print("memory of its data, attached, bytes", attached - alone);
    Row::print("memory of its data, detached, bytes", detached - alone);
    #[cfg(feature = "retain")]
    {
        crowd.retain();
        detach(crowd.attach());
        Row::print("memory of its data, detached, data retained, bytes", HEAP.each() - alone);
    }
}

fn detach(event: pertask_core::Event<pertask_bench::Turns>) {
    drop(event);
    pertask_core::rcu::barrier().expect("RCU's barrier");
}

/// The system's allocator, which counts the bytes in use.
struct Counting(AtomicUsize);

impl Counting {
    /// The bytes in use, for each task.
    fn each(&self) -> f64 {
        self.0.load(Relaxed) as f64 / TASKS as f64
    }
}

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promises are the same.
        unsafe { Heap.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.0.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises are the same.
        unsafe { Heap.dealloc(pointer, layout) }
    }
}
