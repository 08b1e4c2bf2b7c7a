//! Nothing grows: tasks that come and go, with events that stay and events that come and go, leave the memory in use as
//! it was.
//!
//! One test alone, so that all that is freed is freed by its thread.

#![cfg(not(any(pertask_loom, pertask_shuttle)))]

mod common;

use common::{Turns, assert_nothing_left, site, system_with};
use pertask_core::{Cpu, Inherit, OwnedTask, PmuHandle, Site};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

struct Weighing;

thread_local! {
    /// Bytes that this thread has allocated, less those that it has freed.
    static IN_USE: Cell<isize> = const { Cell::new(0) };
}

fn weigh(bytes: isize) {
    // A thread that ends may free after its storage is gone.
    let _ = IN_USE.try_with(|in_use| in_use.set(in_use.get() + bytes));
}

// SAFETY: all is done by the system's allocator; the sum does not allocate.
unsafe impl GlobalAlloc for Weighing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        weigh(layout.size().cast_signed());
        // SAFETY: the caller's.
        unsafe { std::alloc::System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        weigh(-layout.size().cast_signed());
        // SAFETY: the caller's.
        unsafe { std::alloc::System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static WEIGHING: Weighing = Weighing;

/// What a program does all day.
fn day(turns: PmuHandle<Turns>, cpu: &Cpu, site: &'static Site, root: &mut OwnedTask) {
    let mut child = cpu.run(root, || cpu.fork(site));
    let grandchild = cpu.run(&mut child, || cpu.fork(site));
    let events = [
        turns.attach_task(&child.handle(), Inherit::Children).unwrap(),
        turns.attach_task(&root.handle(), Inherit::Children).unwrap(),
        turns.attach_task(&root.handle(), Inherit::No).unwrap(),
        turns.attach_global().unwrap(),
    ];
    cpu.run(root, || {
        cpu.switch_in(grandchild).unwrap();
        drop(cpu.current());
        drop(cpu.fork(site));
        drop(cpu.switch_out());
    });
    assert_eq!(events[0].read(), 0);
    turns.snapshot(|_| {});
    drop(child);
    drop(events);
}

/// The memory in use after some days.
fn after_days(days: usize, mut day: impl FnMut()) -> isize {
    (0..days).for_each(|_| day());
    pertask_core::rcu::barrier().unwrap();
    IN_USE.get()
}

#[test]
fn days_leave_no_memory_behind() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let site = site(system, "day");
    let mut root = cpu.fork(site);
    let stays = [
        turns.attach_task(&root.handle(), Inherit::Children).unwrap(),
        turns.attach_global().unwrap(),
    ];
    let mut day = || day(turns, &cpu, site, &mut root);
    let settled = after_days(200, &mut day);
    // What a CPU keeps at hand goes up and down by some tens of objects.
    let slack = 64 * turns.cache().object_bytes().cast_signed();
    let later = after_days(2000, &mut day);
    assert!((later - settled).abs() <= slack, "{settled} bytes, and {later} ten times later");
    drop((root, stays, cpu));
    assert_nothing_left(turns);
}
