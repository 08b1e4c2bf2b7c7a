//! Heaps: the process's own allocator has a lock that is not to be taken twice, and all threads want it all the time.

use crate::harness::{Random, rounds, start, stop, torture};
use pertask::TaskExt;
use std::alloc::{GlobalAlloc, Layout, System as Heap};
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Takes a lock for each call: a handler that allocated would wait for its own thread, for ever.
struct Locking {
    /// The thread that holds it, or 0.
    owner: AtomicU32,
}

/// Around it, the allocator by which allocations are sampled.
#[global_allocator]
static HEAP: pertask::Alloc<Locking> = pertask::Alloc::new(Locking { owner: AtomicU32::new(0) });

impl Locking {
    fn locked<R>(&self, f: impl FnOnce() -> R) -> R {
        thread_local! {
            static MARK: u8 = const { 0 };
        }
        // A number of the thread's without a system call.
        let me = MARK.with(|mark| std::ptr::from_ref(mark).addr() as u32) | 1;
        while self.owner.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_err() {
            spin_loop();
            thread::yield_now();
        }
        let result = f();
        self.owner.store(0, Ordering::Release);
        result
    }
}

/// Whether calls take the lock: only in this file's scenarios, as a fork may leave it locked.
static LOCKS: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Locking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !LOCKS.load(Ordering::Relaxed) {
            // SAFETY: the caller's word.
            return unsafe { Heap.alloc(layout) };
        }
        // SAFETY: the caller's word.
        self.locked(|| unsafe { Heap.alloc(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !LOCKS.load(Ordering::Relaxed) {
            // SAFETY: the caller's word.
            return unsafe { Heap.dealloc(pointer, layout) };
        }
        // SAFETY: the caller's word.
        self.locked(|| unsafe { Heap.dealloc(pointer, layout) });
    }
}

/// Does something in a task, so that its allocations are sampled.
fn in_a_task(f: impl FnOnce()) {
    futures::executor::block_on(async { f() }.task("storm"));
}

/// Allocates, grows, shrinks and frees, and checks that what was written is still there.
fn storm(seed: u64, calls: usize) {
    let mut random = Random(seed);
    let mut kept: Vec<Vec<u8>> = (0..64).map(|_| Vec::new()).collect();
    for round in 0..calls {
        let at = random.below(kept.len());
        let size = match random.below(100) {
            0 => 1 + random.below(1 << 20),
            1..10 => 1 + random.below(1 << 14),
            _ => 1 + random.below(300),
        };
        let block = &mut kept[at];
        assert!(block.first() == block.last(), "somebody has written into our memory");
        match random.below(3) {
            0 => *block = Vec::with_capacity(size),
            1 => block.clear(),
            _ => {}
        }
        block.resize(size, 0);
        let mark = round as u8;
        (block[0], block[size - 1]) = (mark, mark);
        black_box(&block);
    }
}

#[test]
fn allocation_storms_with_a_lock() {
    torture(|mechanism| {
        LOCKS.store(true, Ordering::Relaxed);
        let Some(sampler) = start(mechanism) else { return };
        thread::scope(|scope| {
            for seed in 1..=4 {
                scope.spawn(move || in_a_task(|| storm(seed * 7919, rounds(4_000))));
            }
        });
        let allocations = stop(sampler).allocations;
        assert!(allocations.iter().any(|it| it.seen > 0), "{allocations:#?}");
    });
}

#[test]
fn allocation_storms_without() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        thread::scope(|scope| {
            for seed in 1..=4 {
                scope.spawn(move || in_a_task(|| storm(seed * 104_729, rounds(8_000))));
            }
        });
        let allocations = stop(sampler).allocations;
        assert!(allocations.iter().any(|it| it.seen > 0), "{allocations:#?}");
    });
}
