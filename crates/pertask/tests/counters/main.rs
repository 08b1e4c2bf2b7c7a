//! Perf events per task: what a task does is counted for that task, whatever the machine offers to count with.

#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

mod events;
mod hardware;
mod polls;
mod refused;

use pertask::{Counter, CounterEvent, CounterSource, Counters, Event, Inherit, Tracked};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

fn events(names: &[&str]) -> Vec<CounterEvent> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// A future that runs `turn` at each poll, and is never ready.
struct Turns<F>(F);

impl<F: FnMut() + Unpin> Future for Turns<F> {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        (self.0)();
        Poll::Pending
    }
}

/// Touches fresh pages: each is a fault.
fn touch_pages(pages: usize) {
    let length = pages * 4096;
    // SAFETY: a new private mapping, at an address of the kernel's choice.
    let memory = unsafe {
        let memory = libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(memory, libc::MAP_FAILED);
        // Huge pages would make one fault of many.
        libc::madvise(memory, length, libc::MADV_NOHUGEPAGE);
        memory.cast::<u8>()
    };
    for page in 0..pages {
        // SAFETY: within the mapping.
        unsafe { memory.add(page * 4096).write_volatile(1) };
    }
    // SAFETY: mapped above, not used any more.
    unsafe { libc::munmap(memory.cast(), length) };
}

/// Waits for a time that is still to come: whatever else runs, that is a switch.
fn leave_the_cpu() {
    std::thread::sleep(Duration::from_millis(1));
}

fn attach<F>(counters: &Counters, task: &Tracked<F>) -> Event<pertask::CountersPmu> {
    counters.handle().attach_task(task.handle().unwrap(), Inherit::No).unwrap()
}

fn value<'a>(values: &'a [Counter], event: &str) -> &'a Counter {
    values.iter().find(|counter| counter.event == event).unwrap()
}

fn source<'a>(sources: &'a [CounterSource], event: &str) -> &'a CounterSource {
    sources.iter().find(|source| source.event == event).unwrap()
}

/// Executes four instructions for each of `turns`, and some to get there.
#[inline(never)]
fn instructions(turns: u64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: counts a register down.
    unsafe {
        std::arch::asm!("2:", "nop", "nop", "dec {0}", "jnz 2b", inout(reg) turns => _, options(nomem, nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: counts a register down.
    unsafe {
        std::arch::asm!("2:", "nop", "nop", "subs {0}, {0}, #1", "b.ne 2b", inout(reg) turns => _, options(nomem, nostack));
    }
}
