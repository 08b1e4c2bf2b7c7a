//! What a worker does in a poll that blocks it: it computes, is blocked, or has no CPU.

use super::support::{alone, loudly};
use super::{caught, caught_by, has_stack, options};
use pertask::watch::{Watch, WatchOptions};
use pertask::{BlockedRow, BlockedState};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

#[test]
fn a_poll_that_sleeps_is_blocked_in_its_call() {
    let _alone = alone();
    let row = caught("sleeps", has_stack, |over| {
        while !over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(200));
        }
    });
    assert_eq!(row.state, BlockedState::Blocked, "{row:#?}");
    assert_eq!(row.call.as_deref(), Some("clock_nanosleep"), "{row:#?}");
    assert!(row.cpu_ns < row.max_ns / 2, "{row:#?}");
}

#[test]
fn a_poll_that_computes_is_told_as_computing() {
    let _alone = alone();
    // On a busy machine a poll may have no CPU for most of the time. Then the next one is tried.
    for _ in 0..500 {
        let had_cpu = Cell::new(false);
        // As it is first seen. What it does later is not what it was caught at.
        let first_seen = |row: &BlockedRow| {
            had_cpu.set(row.cpu_ns * 10 >= row.max_ns * 9);
            true
        };
        let without_stacks = WatchOptions { most_stacks_a_second: 0, ..options() };
        let watch = Watch::start(without_stacks).unwrap();
        let (row, _) = caught_by(watch, "computes", first_seen, compute);
        if had_cpu.get() {
            assert_eq!((row.state, row.call), (BlockedState::Computing, None));
            return;
        }
    }
    loudly("NOT TESTED: this machine has no CPU for a poll of five milliseconds");
}

#[test]
fn a_poll_without_a_cpu_is_told_as_not_scheduled() {
    let _alone = alone();
    let done = AtomicBool::new(false);
    let is_told = thread::scope(|scope| {
        // Also if an assertion fails.
        let _at_the_end = AtTheEnd(&done);
        scope.spawn(|| {
            stay_on_one_cpu();
            while !done.load(Ordering::Relaxed) {
                black_box(0);
            }
        });
        (0..100).any(|_| starves())
    });
    if !is_told {
        loudly("NOT TESTED: this machine leaves each poll its CPU for five milliseconds");
    }
}

/// Catches a poll that wants a CPU. Returns whether it had none until then, and has checked what is told of it.
fn starves() -> bool {
    let had_none = Cell::new(false);
    let first_seen = |row: &BlockedRow| {
        had_none.set(row.cpu_ns * 10 <= row.max_ns);
        true
    };
    let row = caught("starves", first_seen, |over| {
        stay_on_one_cpu();
        leave_the_cpu_to_others();
        // It has just come to this CPU, and may have it for some milliseconds.
        thread::yield_now();
        compute(over);
    });
    if had_none.get() {
        assert_eq!(
            (row.state, row.call.as_deref()),
            (BlockedState::NotScheduled, None),
            "{row:#?}"
        );
    }
    had_none.get()
}

struct AtTheEnd<'a>(&'a AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[inline(never)]
fn compute(over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        black_box((0..1_000_u64).map(black_box).sum::<u64>());
    }
}

/// Binds the calling thread to the first CPU that it may use.
fn stay_on_one_cpu() {
    // SAFETY: the kernel fills the set, of which zero is a value, and reads another one.
    unsafe {
        let mut all: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&all), &raw mut all), 0);
        let first = (0..1024).find(|cpu| libc::CPU_ISSET(*cpu, &all)).unwrap();
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(first, &mut one);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&one), &raw const one), 0);
    }
}

/// Lets the calling thread run only where no other thread wants the CPU, or nearly so.
fn leave_the_cpu_to_others() {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel only reads the priority.
    assert_eq!(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const priority) }, 0);
}
