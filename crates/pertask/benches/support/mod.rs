//! What benches share: variants measured in turn, rows, the machine, and the heap counted.

#![allow(dead_code, reason = "no bench uses all")]

use std::alloc::{GlobalAlloc, Layout, System as Heap};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The median time of each variant, measured in turn.
pub fn all_in_turn(rounds: usize, variants: &[Box<dyn Fn() -> Duration + '_>]) -> Vec<Duration> {
    let mut times = vec![Vec::with_capacity(rounds); variants.len()];
    for round in 0..=rounds {
        for (variant, times) in variants.iter().zip(&mut times) {
            let time = variant();
            // The first round warms up.
            if round > 0 {
                times.push(time);
            }
        }
    }
    times.iter_mut().for_each(|times| times.sort_unstable());
    times.iter().map(|times| times[rounds / 2]).collect()
}

/// The same, of a fixed number.
pub fn in_turn<const N: usize>(
    rounds: usize,
    variants: [&dyn Fn() -> Duration; N],
) -> [Duration; N] {
    variants.iter().for_each(|variant| {
        black_box(variant());
    });
    medians(rounds, || variants.map(|variant| variant()))
}

pub fn medians<const N: usize>(
    rounds: usize,
    mut round: impl FnMut() -> [Duration; N],
) -> [Duration; N] {
    let times: Vec<_> = (0..rounds).map(|_| round()).collect();
    std::array::from_fn(|variant| {
        let mut of_variant: Vec<_> = times.iter().map(|round| round[variant]).collect();
        of_variant.sort_unstable();
        of_variant[rounds / 2]
    })
}

pub fn heading(text: &str) {
    println!("\n{text}");
}

pub fn row(what: &str, value: f64, bare: Option<f64>) {
    let against = bare.map_or(String::new(), |bare| {
        format!("   {:+.1}, {:.2} times bare", value - bare, value / bare)
    });
    println!("{what:<32} {value:>8.1}{against}");
}

pub fn machine() {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown CPU");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{model}, {cpus} CPUs, Linux {}", kernel.trim());
    println!("pertask {}, tokio {}", env!("CARGO_PKG_VERSION"), locked_version("tokio"));
}

/// A dependency's version, from the lock file.
pub fn locked_version(name: &str) -> &'static str {
    let lock = include_str!("../../../../Cargo.lock");
    let package = lock.split(&format!("name = \"{name}\"\nversion = \"")).nth(1);
    package.and_then(|rest| rest.split('"').next()).unwrap_or("unknown")
}

/// The system's allocator, with the bytes in use counted.
pub struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

impl Counting {
    /// Bytes in use.
    pub fn bytes() -> usize {
        BYTES.load(Ordering::Relaxed)
    }
}

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { Heap.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { Heap.dealloc(pointer, layout) }
    }
}
