//! What tasks allocate and free, to the byte: the test's own allocator below pertask's counts as well.

mod support;

use corosensei::{Coroutine, CoroutineResult};
use pertask::core::Cpu;
use pertask::{Inherit, MemoryCount, Report, Session, SessionOptions, TaskExt, TreeReport};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
    fence,
};
use std::task::Poll;
use std::thread;
use support::{Puppet, alone, poll_once, row, run, wait_until, yield_once};

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

#[test]
fn a_task_has_what_it_allocates_and_frees_to_the_byte() {
    let _alone = alone();
    let session = begin();
    let mut kept = None;
    let work = async {
        kept = Some(block(1_000));
        yield_once().await;
        drop((block(20), block(300)));
        // Zeroed memory has a call of its own.
        drop(black_box(vec![0_u64; 512]));
    };
    run(work.task("exact"));
    let report = session.stop();
    assert_eq!(memory_of(&report, "exact"), count((5_416, 4), (4_416, 3)));
    check_sums(&report);
    drop(kept);
}

#[test]
fn a_reallocation_frees_the_old_size_and_allocates_the_new() {
    let _alone = alone();
    let session = begin();
    let work = async {
        let mut bytes = block(100);
        bytes.resize(100, 7);
        bytes.reserve_exact(900);
        bytes.shrink_to(300);
    };
    run(work.task("realloc"));
    assert_eq!(memory_of(&session.stop(), "realloc"), count((1_400, 3), (1_400, 3)));
}

#[test]
fn what_one_task_allocates_and_another_frees_stands_with_each() {
    let _alone = alone();
    let session = begin();
    let handed = RefCell::new(None);
    run(async { *handed.borrow_mut() = Some(block(777)) }.task("giver"));
    run(async { drop(handed.borrow_mut().take()) }.task("taker"));
    let report = session.stop();
    assert_eq!(memory_of(&report, "giver"), count((777, 1), (0, 0)));
    assert_eq!(memory_of(&report, "taker"), count((0, 0), (777, 1)));
}

/// The inner tasks' memory is theirs, and the tree adds it to that of the outer one.
#[test]
fn nested_tasks_have_their_own_and_the_tree_has_both() {
    let _alone = alone();
    let session = begin();
    let outer = async {
        drop(block(10));
        let inner = pin!(async { drop(block(200)) }.task("inner of memory"));
        inner.await;
        drop(block(3_000));
    };
    run(outer.task("outer of memory"));
    let report = session.stop();
    // What the outer task allocates to make the inner one is the outer task's: so this is a lower bound.
    let (outer, inner) =
        (memory_of(&report, "outer of memory"), memory_of(&report, "inner of memory"));
    assert_eq!(inner, count((200, 1), (200, 1)));
    assert!(outer.allocated_bytes >= 3_010 && outer.allocations >= 2, "{outer:?}");
    let path = |name: &str| {
        let is_it = |path: &&TreeReport| path.site.name.as_deref() == Some(name);
        report.tree.iter().find(is_it).unwrap()
    };
    let [outer_path, inner_path] = ["outer of memory", "inner of memory"].map(path);
    assert_eq!(inner_path.parent, Some(outer_path.id));
    assert_eq!((outer_path.memory, inner_path.memory), (Some(outer), Some(inner)));
    assert_eq!(outer_path.inclusive_memory, Some(sum([outer, inner])));
    check_sums(&report);
}

#[test]
fn what_a_future_drops_is_its_tasks() {
    let _alone = alone();
    let session = begin();
    let held = block(4_096);
    {
        let mut future = pin!(
            async move {
                let _held = held;
                std::future::pending::<()>().await;
            }
            .task("dropped")
        );
        assert!(poll_once(future.as_mut()).is_pending());
    }
    assert_eq!(memory_of(&session.stop(), "dropped"), count((0, 0), (4_096, 1)));
}

#[test]
fn a_poll_under_way_is_read_to_the_byte() {
    let _alone = alone();
    let early = begin();
    let poll = MidPoll::begin("mid poll", || block(1 << 20), || block(5_000));
    let report = early.snapshot();
    let so_far = count((1 << 20, 1), (0, 0));
    assert_eq!(memory_of(&report, "mid poll"), so_far);
    assert_eq!(report.tasks.iter().find_map(|it| it.memory), Some(so_far));
    let outside = report.memory.as_ref().unwrap().workers.allocated_bytes;
    assert!(outside < 1 << 20, "it is in a task: {report:#?}");
    check_sums(&report);
    // A session that begins now counts from now on.
    let late = begin();
    assert_eq!(memory_of(&late.snapshot(), "mid poll"), NOTHING);
    poll.end();
    assert_eq!(memory_of(&late.stop(), "mid poll"), count((5_000, 1), (0, 0)));
    let report = early.stop();
    assert_eq!(memory_of(&report, "mid poll"), count(((1 << 20) + 5_000, 2), (0, 0)));
    check_sums(&report);
}

/// A thread polls as fast as it can while another takes snapshots. Nothing is counted twice, nor outside tasks. What a snapshot may
/// lack is the poll that ends at this very moment, if the kernel takes the CPU from its thread just then. The next one has it.
#[test]
fn snapshots_while_a_task_runs_have_each_poll_once() {
    const BYTES: usize = 64;
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    static DONE: AtomicU64 = AtomicU64::new(0);
    let _alone = alone();
    let (go_on, stop) = (AtomicBool::new(true), support::StopOnDrop::default());
    let session = begin();
    let polling = |stopped: &AtomicBool| {
        let allocates = poll_fn(|_| {
            BEGUN.fetch_add(1, SeqCst);
            fence(SeqCst);
            drop(block(BYTES));
            DONE.fetch_add(1, SeqCst);
            Poll::<()>::Pending
        });
        let mut task = pin!(allocates.task("polled fast"));
        while go_on.load(Relaxed) && !stopped.load(Relaxed) {
            assert!(poll_once(task.as_mut()).is_pending());
        }
    };
    thread::scope(|scope| {
        let stopped = stop.flag();
        let stop = stop;
        scope.spawn(move || polling(&stopped));
        wait_until("the task runs", || DONE.load(SeqCst) > 0);
        let outside = |report: &Report| report.memory.as_ref().unwrap().workers.allocated_bytes;
        let first = outside(&session.snapshot());
        for _ in 0..500 {
            let done = DONE.load(SeqCst);
            let report = session.snapshot();
            fence(SeqCst);
            let begun = BEGUN.load(SeqCst);
            let memory = memory_of(&report, "polled fast");
            let done = done - 1;
            assert!((done..=begun).contains(&memory.allocations), "{memory:?}: {done} {begun}");
            assert!((done..=begun).contains(&memory.frees), "{memory:?}: {done} {begun}");
            check_sums(&report);
            let beyond = outside(&report).saturating_sub(first);
            assert!(beyond <= 2 * BYTES as u64, "{beyond} bytes of tasks are outside of them");
        }
        go_on.store(false, Relaxed);
        drop(stop);
    });
    let polls = DONE.load(SeqCst);
    let bytes = polls * BYTES as u64;
    assert_eq!(memory_of(&session.stop(), "polled fast"), count((bytes, polls), (bytes, polls)));
}

/// No session ran when the poll began, so no hook has seen it.
#[test]
fn a_session_begins_in_the_middle_of_a_poll() {
    let _alone = alone();
    let poll = MidPoll::begin("adopted", || block(100), || block(5_000));
    let session = begin();
    let before = session.snapshot();
    assert_eq!(memory_of(&before, "adopted"), NOTHING);
    let workers = before.memory.as_ref().unwrap().workers;
    poll.end();
    let report = session.stop();
    assert_eq!(memory_of(&report, "adopted"), count((5_000, 1), (0, 0)));
    let workers_now = report.memory.as_ref().unwrap().workers;
    assert!(workers_now.allocated_bytes - workers.allocated_bytes < 5_000, "{report:#?}");
    check_sums(&report);
}

#[test]
fn a_thread_that_counted_as_no_worker_becomes_one() {
    let _alone = alone();
    let puppet = Puppet::new("becomes a worker");
    let first = begin();
    puppet.does(|| drop(block(1 << 20)));
    let report = first.stop();
    let memory = report.memory.unwrap();
    assert!(memory.other.allocated_bytes >= 1 << 20 && memory.workers.allocated_bytes < 1 << 20);
    // The poll begins while nobody counts, and the session finds it under way.
    let end: &AtomicBool = Box::leak(Box::default());
    let reached: &AtomicBool = Box::leak(Box::default());
    let ended = puppet.begins(move || {
        let work = async {
            reached.store(true, SeqCst);
            while !end.load(SeqCst) {
                thread::yield_now();
            }
            drop(block(1 << 21));
        };
        run(work.task("now a worker"));
        drop(block(1 << 22));
    });
    wait_until("a poll is under way", || reached.load(SeqCst));
    let second = begin();
    end.store(true, SeqCst);
    ended.recv().unwrap();
    let report = second.stop();
    assert_eq!(memory_of(&report, "now a worker"), count((1 << 21, 1), (1 << 21, 1)));
    let memory = report.memory.unwrap();
    assert!(memory.workers.allocated_bytes >= 1 << 22, "{memory:#?}");
    assert!(memory.other.allocated_bytes < 1 << 20, "{memory:#?}");
    puppet.ends();
}

#[test]
fn a_session_on_some_tasks_counts_these_and_their_descendants() {
    let _alone = alone();
    let family = |name: &'static str| {
        async {
            drop(block(1_000));
            run(async { drop(block(20_000)) }.task("a child"));
        }
        .task(name)
    };
    let (chosen, with_children, other) =
        (family("chosen"), family("with children"), family("not chosen"));
    let alone_session = counting().start_on([chosen.handle().unwrap()], Inherit::No).unwrap();
    let family_session =
        counting().start_on([with_children.handle().unwrap()], Inherit::Children).unwrap();
    [chosen, with_children, other].into_iter().for_each(run);
    let (report, families) = (alone_session.stop(), family_session.stop());
    assert_eq!(report.sites.len(), 1);
    let own = memory_of(&report, "chosen");
    // What a task allocates to make its child is its own.
    assert!((1_000..20_000).contains(&own.allocated_bytes), "{own:?}");
    let all = memory_of(&families, "with children");
    assert!((21_000..40_000).contains(&all.allocated_bytes), "{all:?}");
    check_sums(&report);
    check_sums(&families);
    let workers = report.memory.unwrap().workers.allocated_bytes;
    assert!(workers >= 20_000 + 42_000, "what others allocate is outside: {workers}");
}

#[test]
fn a_task_that_moves_between_threads_has_the_sum() {
    let _alone = alone();
    let session = begin();
    let mut task = Box::pin(
        async {
            loop {
                drop(block(1_000));
                yield_once().await;
            }
        }
        .task("moved between threads"),
    );
    for _ in 0..5 {
        let moved = thread::spawn(move || {
            assert!(poll_once(task.as_mut()).is_pending());
            task
        });
        task = moved.join().unwrap();
    }
    let report = session.stop();
    assert_eq!(memory_of(&report, "moved between threads"), count((5_000, 5), (5_000, 5)));
}

/// Threads that come and go, workers and others, one after the other and many at once.
#[test]
fn the_counts_of_threads_that_have_ended_are_kept() {
    let _alone = alone();
    let session = begin();
    let before = session.snapshot().memory.unwrap();
    let other = || drop(block(1 << 16));
    let worker = || {
        run(async { drop(block(1 << 10)) }.task("of ended threads"));
        drop(block(1 << 17));
    };
    for _ in 0..40 {
        thread::spawn(other).join().unwrap();
        thread::spawn(worker).join().unwrap();
    }
    let go = AtomicBool::new(false);
    thread::scope(|scope| {
        let wait_and = |work: fn()| {
            while !go.load(Relaxed) {
                thread::yield_now();
            }
            work();
        };
        for _ in 0..20 {
            scope.spawn(move || wait_and(|| drop(block(1 << 16))));
        }
        go.store(true, Relaxed);
    });
    let report = session.stop();
    check_sums(&report);
    assert_eq!(memory_of(&report, "of ended threads"), count((40 << 10, 40), (40 << 10, 40)));
    let memory = report.memory.unwrap();
    let of_others = memory.other.allocated_bytes - before.other.allocated_bytes;
    let of_workers = memory.workers.allocated_bytes - before.workers.allocated_bytes;
    assert!((60 << 16..100 << 16).contains(&of_others), "{memory:#?}");
    assert!((40 << 17..60 << 17).contains(&of_workers), "{memory:#?}");
}

/// The allocator is called in a thread's last moments, after the thread has given its CPU back, and once more as a worker.
#[test]
fn a_threads_last_destructors_may_allocate() {
    struct Late(RefCell<Vec<Vec<u8>>>);
    impl Drop for Late {
        fn drop(&mut self) {
            self.0.borrow_mut().push(block(1 << 18));
            run(async { drop(block(1 << 9)) }.task("in a destructor"));
            self.0.borrow_mut().push(block(1 << 18));
        }
    }
    thread_local! {
        static LATE: Late = const { Late(RefCell::new(Vec::new())) };
    }
    let _alone = alone();
    let session = begin();
    for _ in 0..3 {
        let last = || {
            // Made first, dropped last.
            LATE.with(|late| late.0.borrow_mut().push(block(1)));
            run(async { drop(block(1 << 8)) }.task("before the end"));
        };
        thread::spawn(last).join().unwrap();
    }
    let report = session.stop();
    check_sums(&report);
    assert_eq!(memory_of(&report, "before the end"), count((3 << 8, 3), (3 << 8, 3)));
    assert_eq!(memory_of(&report, "in a destructor"), count((3 << 9, 3), (3 << 9, 3)));
    let memory = report.memory.unwrap();
    let outside = memory.workers.allocated_bytes + memory.other.allocated_bytes;
    assert!(outside >= 6 << 18, "{memory:#?}");
}

/// Against the allocator below, which counts for itself.
#[test]
fn the_process_has_what_all_threads_have_asked_for() {
    let _alone = alone();
    let outer = Truth::now();
    let session = begin();
    let inner = Truth::now();
    let puppet = Puppet::new("beside");
    for round in 0..200 {
        puppet.does(move || drop(block(1_000 + round)));
        run(async { drop(block(333)) }.task("part"));
        drop(block(50));
    }
    puppet.ends();
    let inner_end = Truth::now();
    let report = session.stop();
    let outer_end = Truth::now();
    check_sums(&report);
    let all = report.memory.unwrap().process;
    let between = |least: u64, all: u64, most: u64| {
        assert!((least..=most).contains(&all), "{all} is not between {least} and {most}");
    };
    between(
        inner_end.allocated_bytes - inner.allocated_bytes,
        all.allocated_bytes,
        outer_end.allocated_bytes - outer.allocated_bytes,
    );
    between(
        inner_end.allocations - inner.allocations,
        all.allocations,
        outer_end.allocations - outer.allocations,
    );
}

#[test]
fn nothing_is_counted_while_no_session_asks() {
    let _alone = alone();
    let mut task = pin!(
        poll_fn(|_| {
            drop(block(1 << 12));
            Poll::<()>::Pending
        })
        .task("between")
    );
    let mut poll = || assert!(poll_once(task.as_mut()).is_pending());
    let session = begin();
    poll();
    let first = session.stop();
    assert_eq!(memory_of(&first, "between"), count((1 << 12, 1), (1 << 12, 1)));
    poll();
    let plain = Session::start().unwrap();
    poll();
    let report = plain.stop();
    assert_eq!((&report.memory, &report.memory_source), (&None, &None));
    assert!(row(&report, "between").memory.is_none());
    assert!(report.tasks.iter().all(|task| task.memory.is_none()));
    assert!(report.tree.iter().all(|it| it.memory.is_none() && it.inclusive_memory.is_none()));
    let session = begin();
    assert_eq!(memory_of(&session.stop(), "between"), NOTHING);
}

#[test]
fn of_two_sessions_one_goes_on_when_the_other_ends() {
    let _alone = alone();
    let first = begin();
    let work = || run(async { drop(block(64)) }.task("in both"));
    work();
    let second = begin();
    work();
    assert_eq!(memory_of(&first.stop(), "in both"), count((128, 2), (128, 2)));
    work();
    assert_eq!(memory_of(&second.stop(), "in both"), count((128, 2), (128, 2)));
}

#[test]
fn a_switch_allocates_nothing() {
    let _alone = alone();
    let session = begin();
    let mut task = pin!(std::future::pending::<()>().task("idle"));
    assert!(poll_once(task.as_mut()).is_pending());
    let before = CALLS.get();
    for _ in 0..1_000 {
        assert!(poll_once(task.as_mut()).is_pending());
    }
    assert_eq!(CALLS.get(), before);
    drop(session);
}

/// Polls that do not end in the order in which they began, as those of suspended coroutines.
#[test]
fn memory_of_which_the_task_is_not_known_is_told_apart() {
    let _alone = alone();
    let polls = |name: &'static str, bytes: usize| {
        Coroutine::new(move |yielder: &corosensei::Yielder<(), ()>, ()| {
            let work = async {
                drop(block(bytes));
                yielder.suspend(());
                drop(block(bytes));
            };
            run(work.task(name));
        })
    };
    let (mut first, mut second) =
        (polls("first to begin", 1_000), polls("second to begin", 30_000));
    let session = begin();
    assert!(matches!(first.resume(()), CoroutineResult::Yield(())));
    assert!(matches!(second.resume(()), CoroutineResult::Yield(())));
    assert!(matches!(first.resume(()), CoroutineResult::Return(())));
    assert!(matches!(second.resume(()), CoroutineResult::Return(())));
    let report = session.stop();
    assert_eq!(report.lost.polls_out_of_order, 1, "{:?}", report.lost);
    check_sums(&report);
    let memory = report.memory.as_ref().unwrap();
    assert!(memory.unknown.allocated_bytes >= 31_000, "{memory:#?}");
    let certain = memory_of(&report, "first to begin").allocated_bytes;
    assert!((1_000..30_000).contains(&certain), "{report:#?}");
}

/// The child of a process that counts goes on counting, in its own memory.
#[test]
fn a_forked_child_allocates_and_ends() {
    let _alone = alone();
    let session = begin();
    run(async { drop(block(128)) }.task("around a fork"));
    let child = async {
        drop(block(256));
        // SAFETY: what the child does is allowed in a child of threads: glibc keeps its heap usable.
        #[allow(unsafe_code, reason = "a fork")]
        let child = unsafe { libc::fork() };
        if child == 0 {
            let kept: Vec<_> = (1..1_000).map(block).collect();
            Cpu::with(|cpu| drop(cpu.current()));
            drop(kept);
            // SAFETY: ends the child.
            #[allow(unsafe_code, reason = "the end of the child")]
            unsafe {
                libc::_exit(0)
            }
        }
        drop(block(512));
        child
    };
    let child = run(child.task("around a fork, too"));
    let mut status = -1;
    // SAFETY: the status is ours.
    #[allow(unsafe_code, reason = "waits for the child")]
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0));
    let report = session.stop();
    assert_eq!(memory_of(&report, "around a fork, too"), count((768, 2), (768, 2)));
    check_sums(&report);
}

#[test]
fn tasks_of_a_runtime_with_several_workers() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).build().unwrap();
    let session = begin();
    async fn rounds() {
        for _ in 0..4 {
            drop(block(100));
            yield_once().await;
        }
    }
    let spawned: Vec<_> = (0..250).map(|_| runtime.spawn(rounds().task("on workers"))).collect();
    run(rounds().task("here"));
    runtime.block_on(async {
        for task in spawned {
            task.await.unwrap();
        }
    });
    drop(runtime);
    let report = session.stop();
    assert_eq!(memory_of(&report, "on workers"), count((100_000, 1_000), (100_000, 1_000)));
    assert_eq!(memory_of(&report, "here"), count((400, 4), (400, 4)));
    check_sums(&report);
}
