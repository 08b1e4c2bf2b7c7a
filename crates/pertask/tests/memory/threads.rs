//! Threads that come and go, become workers, or fork.

use crate::support::{Puppet, alone, run, wait_for_child, wait_until};
use crate::{begin, block, count, memory_of};
use pertask::TaskExt;
use pertask::core::Cpu;
use std::cell::RefCell;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
};
use std::thread;

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
    assert_eq!(memory_of(&report, "before the end"), count((3 << 8, 3), (3 << 8, 3)));
    assert_eq!(memory_of(&report, "in a destructor"), count((3 << 9, 3), (3 << 9, 3)));
    let memory = report.memory.unwrap();
    let outside = memory.workers.allocated_bytes + memory.other.allocated_bytes;
    assert!(outside >= 6 << 18, "{memory:#?}");
}

/// What a worker, a thread that is none and tasks ask for, and give back: the report says how much of it there was in all, and the
/// truth agrees.
#[test]
fn the_process_has_what_all_threads_have_asked_for() {
    let _alone = alone();
    let session = begin();
    let puppet = Puppet::new("beside");
    let (mut kept, mut rounds) = (block(1), 0);
    for round in 0..200 {
        puppet.does(move || drop(block(1_000 + round)));
        run(async { drop(block(333)) }.task("part"));
        // Freed in the next round.
        drop(std::mem::replace(&mut kept, block(50)));
        rounds += 1;
    }
    puppet.ends();
    let report = session.stop();
    drop(kept);
    let all = report.memory.unwrap().process;
    let known = (0..rounds).map(|round| 1_000 + round + 333 + 50).sum::<u64>();
    assert!(all.allocated_bytes >= known && all.allocations >= 3 * rounds, "{all:?}");
    assert!(all.freed_bytes >= known - 50 && all.frees >= 3 * rounds, "{all:?}");
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
    assert_eq!(wait_for_child(child), 0);
    let report = session.stop();
    assert_eq!(memory_of(&report, "around a fork, too"), count((768, 2), (768, 2)));
}
