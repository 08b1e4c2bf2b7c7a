//! What sampling costs: throughput at usual rates, one sample, memory; and how many stacks come out whole.
//!
//! ```text
//! cargo bench -p pertask --features profiler --bench sampling
//! ```
//!
//! The variants of a row are measured in turn, round by round, in CPU time of the whole process: with the kernel's share, and
//! that of the collector's thread. Medians. Nothing here fails: a figure is for reading.

mod support;

use pertask::TaskExt;
use pertask::sampler::{RawProfile, Sampler, SamplerOptions};
use std::hint::black_box;
use std::time::Duration;
use support::{Counting, heading, in_turn, machine, medians, timed};
use tokio::runtime::Runtime;

#[global_allocator]
static HEAP: Counting = Counting;

/// A round of work: so many requests, of two polls each, of so many steps each poll. The long ones take as long as one of the
/// demo's does on average, the short ones show what is paid for each task and poll.
#[derive(Clone, Copy)]
struct Load {
    requests: u64,
    steps: u64,
}
const LONG: Load = Load { requests: 800, steps: 800_000 };
const SHORT: Load = Load { requests: 16_000, steps: 40_000 };
/// Steps of the work whose samples are timed.
const STEPS: u64 = 40_000;
/// Calls between a task's poll and the function that works.
const DEPTH: u32 = 40;

fn main() {
    machine();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let sampler = Sampler::start(SamplerOptions::with_frequency(999));
    let profile = match sampler {
        Ok(sampler) => {
            requests(&runtime, SHORT);
            sampler.stop()
        }
        Err(refused) => return println!("NOT MEASURED: {refused}"),
    };
    println!("{}", profile.mechanism);
    throughput(&runtime);
    one_sample();
    handler(&runtime);
    stacks(&runtime);
    memory(&runtime);
    symbols(&profile);
}

/// A round of requests, sampled or not.
fn throughput(runtime: &Runtime) {
    for (what, load) in [("1 ms", LONG), ("50 µs", SHORT)] {
        heading(&format!(
            "a round of requests of {what}, CPU time against that without sampling (twice, to show the noise)"
        ));
        let bare = || cpu_timed(|| requests(runtime, load));
        let sampled = |frequency_hz| {
            let _sampler = Sampler::start(SamplerOptions::with_frequency(frequency_hz)).ok();
            cpu_timed(|| requests(runtime, load))
        };
        let variants: [&dyn Fn() -> Duration; 6] =
            [&bare, &bare, &|| sampled(1), &|| sampled(99), &|| sampled(999), &|| sampled(5_000)];
        let times = in_turn(11, variants);
        let names = ["not sampled", "not sampled, again", "1 Hz", "99 Hz", "999 Hz", "5,000 Hz"];
        for (name, time) in names.into_iter().zip(times) {
            let ratio = 100.0 * (time.as_secs_f64() / times[0].as_secs_f64() - 1.0);
            println!("{name:<32} {:>8.1} ms   {ratio:+.2} %", time.as_secs_f64() * 1e3);
        }
    }
}

/// What a sample costs its thread: the kernel's interrupt and signal, and the handler.
fn one_sample() {
    heading("one sample, microseconds: interrupt, signal and handler");
    for depth in [1, 10, DEPTH, 100] {
        let work = || {
            deep(depth, &mut || {
                (0..400).for_each(|_| {
                    black_box(work(STEPS));
                });
            });
        };
        let mut samples = Vec::new();
        let [bare, sampled] = medians(15, || {
            let bare = cpu_timed(work);
            let sampler = Sampler::start(SamplerOptions::with_frequency(5_000)).ok();
            let sampled = cpu_timed(work);
            samples.push(sampler.map_or(0, |sampler| sampler.stop().samples.len()));
            [bare, sampled]
        });
        samples.sort_unstable();
        let count = samples[samples.len() / 2].max(1);
        let each = (sampled.as_secs_f64() - bare.as_secs_f64()) / count as f64;
        println!("{:<32} {:>8.2}", format!("{depth} calls deep"), each * 1e6);
    }
}

/// The handler alone, by the stack's depth. The caches are as the work leaves them.
fn handler(runtime: &Runtime) {
    heading("the handler alone, microseconds: median, and one in ten takes longer than");
    let mut profile = sampled(runtime, 999);
    for _ in 0..4 {
        profile.samples.extend(sampled(runtime, 999).samples);
    }
    for (from, to) in [(1, 20), (20, 40), (40, 60), (60, 128)] {
        let deep = profile.samples.iter().filter(|it| (from..to).contains(&it.stack.len()));
        let mut took: Vec<_> = deep.map(|sample| sample.handler_ns).collect();
        took.sort_unstable();
        let Some(median) = took.get(took.len() / 2) else { continue };
        let [median, slow] = [*median, took[took.len() * 9 / 10]].map(|ns| f64::from(ns) / 1e3);
        let name = format!("{from} to {} frames, {} samples", to - 1, took.len());
        println!("{name:<32} {median:>8.2} {slow:>8.2}");
    }
}

fn stacks(runtime: &Runtime) {
    heading("stacks that reach their root");
    let profile = sampled(runtime, 5_000);
    let whole = profile.samples.len() as u64 - profile.lost.incomplete_stacks;
    let percent = 100.0 * whole as f64 / profile.samples.len().max(1) as f64;
    println!("{percent:.2} % of {} samples; {:?}", profile.samples.len(), profile.lost);
}

fn memory(runtime: &Runtime) {
    heading("memory, bytes");
    let before = Counting::bytes();
    let profile = sampled(runtime, 5_000);
    let after = Counting::bytes();
    let each = after.saturating_sub(before) as f64 / profile.samples.len().max(1) as f64;
    println!("{:<32} {each:>8.0}", "for each sample of a session");
    println!("{:<32} {:>8}", "at most, by default", SamplerOptions::default().memory_bytes);
    println!("{:<32} {:>8}", "a thread's ring, by default", SamplerOptions::default().ring_bytes);
}

fn symbols(profile: &RawProfile) {
    heading("names for a profile, milliseconds");
    let mut functions = 0;
    let took = timed(|| functions = profile.resolve().functions.len());
    let name = format!("{} samples, {functions} functions", profile.samples.len());
    println!("{name:<32} {:>8.1}", took.as_secs_f64() * 1e3);
}

/// The process's CPU time meanwhile.
fn cpu_timed(work: impl FnOnce()) -> Duration {
    let now = || {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel writes one timespec, which is ours.
        unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
        Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
    };
    let start = now();
    work();
    now() - start
}

fn sampled(runtime: &Runtime, frequency_hz: u32) -> RawProfile {
    let sampler = Sampler::start(SamplerOptions::with_frequency(frequency_hz));
    requests(runtime, SHORT);
    sampler.expect("it has started before").stop()
}

fn requests(runtime: &Runtime, load: Load) {
    runtime.block_on(async {
        let spawn = |_| tokio::spawn(request(load.steps).task("request"));
        let tasks: Vec<_> = (0..load.requests).map(spawn).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn request(steps: u64) {
    let half = || {
        let mut sum = 0;
        deep(DEPTH, &mut || sum = work(steps));
        sum
    };
    black_box(half());
    tokio::task::yield_now().await;
    black_box(half());
}

#[inline(never)]
fn deep(calls: u32, f: &mut dyn FnMut()) {
    if calls == 0 {
        f();
    } else {
        deep(calls - 1, f);
    }
    // No tail call.
    black_box(());
}

#[inline(never)]
fn work(steps: u64) -> u64 {
    (0..steps).fold(1, |sum, step| black_box(sum.rotate_left(7) ^ step))
}
