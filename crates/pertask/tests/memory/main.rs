//! What tasks allocate and free, to the byte: the test's own allocator below pertask's counts as well.

#[path = "../support/mod.rs"]
mod support;

mod tasks;
mod threads;
mod window;

use pertask::{MemoryCount, Report, Session, SessionOptions, TaskExt};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use support::{Puppet, row, run, wait_until};

#[global_allocator]
static ALLOC: pertask::Alloc<Truth> = pertask::Alloc::new(Truth);

/// The allocator below, which knows what all threads have asked of it.
struct Truth;

static ALLOCATED: AtomicU64 = AtomicU64::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The calls of this thread.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

impl Truth {
    fn count(bytes: usize) {
        ALLOCATED.fetch_add(bytes as u64, SeqCst);
        ALLOCATIONS.fetch_add(1, SeqCst);
        CALLS.set(CALLS.get() + 1);
    }

    fn now() -> MemoryCount {
        MemoryCount {
            allocated_bytes: ALLOCATED.load(SeqCst),
            allocations: ALLOCATIONS.load(SeqCst),
            ..MemoryCount::default()
        }
    }
}

// SAFETY: all memory is the system's.
#[allow(unsafe_code, reason = "an allocator")]
unsafe impl GlobalAlloc for Truth {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        Self::count(new_size);
        // SAFETY: the caller's contract.
        unsafe { System.realloc(memory, layout, new_size) }
    }
}

fn counting() -> SessionOptions {
    SessionOptions { memory: true, ..SessionOptions::default() }
}

fn begin() -> Session {
    counting().start().unwrap()
}

/// One allocation of so many bytes.
fn block(bytes: usize) -> Vec<u8> {
    black_box(Vec::with_capacity(bytes))
}

const fn count(
    (allocated_bytes, allocations): (u64, u64),
    (freed_bytes, frees): (u64, u64),
) -> MemoryCount {
    MemoryCount { allocated_bytes, allocations, freed_bytes, frees }
}

const NOTHING: MemoryCount = count((0, 0), (0, 0));

#[track_caller]
fn memory_of(report: &Report, name: &str) -> MemoryCount {
    row(report, name).memory.expect("it is counted")
}

fn sum(counts: impl IntoIterator<Item = MemoryCount>) -> MemoryCount {
    counts.into_iter().fold(NOTHING, |a, b| {
        count(
            (a.allocated_bytes + b.allocated_bytes, a.allocations + b.allocations),
            (a.freed_bytes + b.freed_bytes, a.frees + b.frees),
        )
    })
}

/// The parts add up: the sites to the tasks, the tree to the tasks, and all parts to the process.
#[track_caller]
fn check_sums(report: &Report) {
    let process = report.memory.as_ref().expect("it is counted");
    assert_eq!(sum(report.sites.iter().filter_map(|site| site.memory)), process.tasks);
    assert_eq!(sum(report.tree.iter().filter_map(|path| path.memory)), process.tasks);
    let roots = report.tree.iter().filter(|path| path.parent.is_none());
    assert_eq!(sum(roots.filter_map(|path| path.inclusive_memory)), process.tasks);
    let parts = [process.tasks, process.unknown, process.workers, process.other];
    assert_eq!(sum(parts), process.process);
}

/// A thread in the middle of a poll that has done `before`. It does `after` when it is told to end.
struct MidPoll {
    puppet: Puppet,
    end: &'static AtomicBool,
    ended: std::sync::mpsc::Receiver<()>,
}

impl MidPoll {
    fn begin(name: &'static str, before: fn() -> Vec<u8>, after: fn() -> Vec<u8>) -> Self {
        let puppet = Puppet::new(name);
        let reached: &AtomicBool = Box::leak(Box::default());
        let end: &AtomicBool = Box::leak(Box::default());
        let ended = puppet.begins(move || {
            let work = async {
                let first = before();
                reached.store(true, SeqCst);
                while !end.load(SeqCst) {
                    thread::yield_now();
                }
                std::mem::forget((first, after()));
            };
            run(work.task(name));
        });
        wait_until("a poll is under way", || reached.load(SeqCst));
        Self { puppet, end, ended }
    }

    fn end(self) {
        self.end.store(true, SeqCst);
        self.ended.recv().unwrap();
        self.puppet.ends();
    }
}
