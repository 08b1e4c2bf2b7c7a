//! The sampler: whose time it sees, that it sees all of it, where, and that it leaves the process as it was.
//!
//! How many samples some time gives is up to the machine: where others want the CPUs, a thread waits for its turn, and few ticks
//! of a timer's meet it. So nothing here asks what should have happened within a time. A thread's CPU time is that of its own
//! clock; what a share is judged by is a number of samples, and where those are too few, more are taken: [`sample_enough`].

#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

mod fibers;
mod limits;
mod reach;
mod shares;
mod signals;
mod stacks;

use pertask::sampler::{Mechanism, RawProfile, RawSample, Sampler, SamplerOptions};
use std::alloc::{GlobalAlloc, Layout, System as Heap};
use std::cell::Cell;
use std::hint::black_box;
use support::{loudly, ms, thread_cpu_ns};

/// Counts each thread's calls.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's word.
        unsafe { Heap.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's word.
        unsafe { Heap.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

fn gettid() -> u32 {
    // SAFETY: no arguments, no memory.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// Uses the CPU, mostly in user mode. Returns how much it has used, in nanoseconds.
#[inline(never)]
fn spin(milliseconds: u64) -> u64 {
    let start = thread_cpu_ns();
    loop {
        let used = thread_cpu_ns() - start;
        if used >= ms(milliseconds) {
            return used;
        }
        for round in 0..20_000 {
            black_box(round);
        }
    }
}

/// As `spin`, with a name to be looked for in stacks.
#[inline(never)]
fn outermost(milliseconds: u64) {
    deeper(milliseconds, 20);
    black_box(());
}

#[inline(never)]
fn deeper(milliseconds: u64, levels: u32) {
    if levels == 0 {
        spin(milliseconds);
    } else {
        deeper(milliseconds, levels - 1);
    }
    black_box(());
}

fn options(mechanism: Mechanism) -> SamplerOptions {
    let mut options = SamplerOptions::with_frequency(997);
    options.mechanism = Some(mechanism);
    options
}

/// Starts by that mechanism, or says that it cannot.
fn start(mechanism: Mechanism) -> Option<Sampler> {
    start_with(options(mechanism))
}

fn start_with(options: SamplerOptions) -> Option<Sampler> {
    let mechanism = options.mechanism;
    match Sampler::start(options) {
        Ok(sampler) => Some(sampler),
        Err(refused) => {
            loudly(&format!("NOT TESTED with {mechanism:?}: {refused}"));
            None
        }
    }
}

/// Has `work` done in a session of its own, twice as much each time, until so many samples are as `met` counts them. `None`
/// where that mechanism cannot.
#[track_caller]
fn sample_enough<T>(
    mechanism: Mechanism,
    enough: usize,
    work: impl Fn(u64) -> T,
    met: impl Fn(&RawProfile, &T) -> usize,
) -> Option<(RawProfile, T)> {
    sample_enough_with(&options(mechanism), enough, work, met)
}

/// As many samples, or as many lost ones, as it takes: a virtual machine's timer comes more seldom than it was asked to when the
/// machine takes the CPU away. Beside other programs, a thread may even keep in step with the tick, to which POSIX timers are blind:
/// where they have met too little of so much work, that is said.
fn sample_enough_with<T>(
    options: &SamplerOptions,
    enough: usize,
    work: impl Fn(u64) -> T,
    met: impl Fn(&RawProfile, &T) -> usize,
) -> Option<(RawProfile, T)> {
    let mut some = false;
    for times in [1, 2, 4, 8, 16, 32] {
        let sampler = start_with(options.clone())?;
        let worked = work(times);
        let profile = sampler.stop();
        if met(&profile, &worked) >= enough {
            return Some((profile, worked));
        }
        some |= !profile.samples.is_empty();
    }
    if options.mechanism == Some(Mechanism::Timer) && some {
        loudly(&format!(
            "NOT TESTED with timers: their ticks met less than {enough} of so much work"
        ));
        return None;
    }
    panic!("not {enough} of so much work: {options:?}");
}

fn cpu_ns<'a>(samples: impl IntoIterator<Item = &'a RawSample>) -> u64 {
    samples.into_iter().map(|sample| sample.cpu_ns).sum()
}

/// The time of a thread outside tasks that is known to be in the kernel by the interruptions that are missing.
fn kernel_ns(profile: &RawProfile, thread: u32) -> u64 {
    let own = profile.unmet.iter().filter(|unmet| unmet.kernel && unmet.thread == Some(thread));
    own.map(|unmet| unmet.cpu_ns).sum()
}

/// Time that interruptions miss in threads that have ended by the end of the session: the clock does not know them one by one.
fn kernel_of_ended_ns(profile: &RawProfile) -> u64 {
    let ended = profile.unmet.iter().filter(|unmet| unmet.kernel && unmet.thread.is_none());
    ended.filter(|unmet| unmet.path.is_none()).map(|unmet| unmet.cpu_ns).sum()
}

fn of_thread(profile: &RawProfile, thread: u32) -> impl Iterator<Item = &RawSample> {
    profile.samples.iter().filter(move |sample| sample.thread == thread)
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}
