//! What tasks allocate and free, to the byte: the test's own allocator around pertask's counts as well.

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
static ALLOC: Truth = Truth(pertask::Alloc::new(System));

/// An allocator around pertask's, which counts what all threads ask of it: when they ask, and once more when they have the answer.
///
/// Whatever pertask has counted at a moment lies between what has been answered by then and what has been asked for by then.
struct Truth(pertask::Alloc<System>);

struct Numbers([AtomicU64; 4]);

static ASKED: Numbers = Numbers::new();
static ANSWERED: Numbers = Numbers::new();

thread_local! {
    /// The calls of this thread.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

impl Numbers {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 4])
    }

    fn add(&self, bytes: [Option<usize>; 2]) {
        for (numbers, bytes) in self.0.chunks_exact(2).zip(bytes) {
            if let Some(bytes) = bytes {
                numbers[0].fetch_add(bytes as u64, SeqCst);
                numbers[1].fetch_add(1, SeqCst);
            }
        }
    }

    fn now(&self) -> MemoryCount {
        let [allocated_bytes, allocations, freed_bytes, frees] =
            self.0.each_ref().map(|number| number.load(SeqCst));
        MemoryCount { allocated_bytes, allocations, freed_bytes, frees }
    }
}

/// The allocator does something that allocates and frees so many bytes, each once, if any.
fn counted(
    allocated: Option<usize>,
    freed: Option<usize>,
    call: impl FnOnce() -> *mut u8,
) -> *mut u8 {
    CALLS.set(CALLS.get() + 1);
    ASKED.add([allocated, freed]);
    let memory = call();
    ANSWERED.add([allocated, freed]);
    memory
}

// SAFETY: all memory is the inner allocator's, for which the caller's contract holds as it stands.
#[allow(unsafe_code, reason = "an allocator")]
unsafe impl GlobalAlloc for Truth {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        counted(Some(layout.size()), None, || unsafe { self.0.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        counted(Some(layout.size()), None, || unsafe { self.0.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        counted(None, Some(layout.size()), || {
            // SAFETY: the caller's contract.
            unsafe { self.0.dealloc(memory, layout) };
            std::ptr::null_mut()
        });
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let (new, old) = (Some(new_size), Some(layout.size()));
        // SAFETY: the caller's contract.
        counted(new, old, || unsafe { self.0.realloc(memory, layout, new_size) })
    }
}

/// A session that counts, each of whose reports is compared with the truth.
struct Metered {
    session: Session,
    /// The least and the most that had been counted when it began.
    began: [MemoryCount; 2],
}

impl Metered {
    fn of(start: impl FnOnce() -> Session) -> Self {
        let least = ANSWERED.now();
        let session = start();
        Self { session, began: [least, ASKED.now()] }
    }

    #[track_caller]
    fn snapshot(&self) -> Report {
        self.snapshot_without(NOTHING)
    }

    /// A snapshot that may lack so much, because a poll ends at this very moment.
    #[track_caller]
    fn snapshot_without(&self, lacking: MemoryCount) -> Report {
        let least = ANSWERED.now();
        let report = self.session.snapshot();
        check(&report, self.began, [least, ASKED.now()], lacking);
        report
    }

    #[track_caller]
    fn stop(self) -> Report {
        let least = ANSWERED.now();
        let report = self.session.stop();
        check(&report, self.began, [least, ASKED.now()], NOTHING);
        report
    }
}

fn counting() -> SessionOptions {
    SessionOptions { memory: true, ..SessionOptions::default() }
}

fn begin() -> Metered {
    Metered::of(|| counting().start().unwrap())
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

/// The parts add up: the sites to the tasks, the tree to the tasks, and all parts to the process. And the process has what its threads
/// have asked the allocator for since the session began.
#[track_caller]
fn check(report: &Report, began: [MemoryCount; 2], ended: [MemoryCount; 2], lacking: MemoryCount) {
    let process = report.memory.as_ref().expect("it is counted");
    assert_eq!(sum(report.sites.iter().filter_map(|site| site.memory)), process.tasks);
    assert_eq!(sum(report.tree.iter().filter_map(|path| path.memory)), process.tasks);
    let roots = report.tree.iter().filter(|path| path.parent.is_none());
    assert_eq!(sum(roots.filter_map(|path| path.inclusive_memory)), process.tasks);
    let parts = [process.tasks, process.unknown, process.workers, process.other];
    assert_eq!(sum(parts), process.process);
    let numbers = |it: MemoryCount| [it.allocated_bytes, it.allocations, it.freed_bytes, it.frees];
    let known = numbers(process.process);
    let [least_began, most_began] = [began[0], sum([began[1], lacking])].map(numbers);
    let [least_ended, most_ended] = ended.map(numbers);
    for (at, what) in ["bytes allocated", "allocations", "bytes freed", "frees"].iter().enumerate()
    {
        let least = least_ended[at].saturating_sub(most_began[at]);
        let within = least..=most_ended[at] - least_began[at];
        assert!(within.contains(&known[at]), "{what}: {within:?} is the truth of {process:#?}");
    }
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
