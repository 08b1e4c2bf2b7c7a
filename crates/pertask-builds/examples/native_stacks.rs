//! Do the stacks of *your* build come out whole? Build this as you build your service, and see.
//!
//! ```text
//! cargo run --release -p pertask-builds --example native_stacks
//! CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_PANIC=abort cargo run --release ...
//! ```
//!
//! Tasks on tokio's workers compute deep below their polls, in callbacks from the C library, on the kernel's own page of code
//! (the vDSO), and, if the path of a library is given, in callbacks from one that is loaded while samples are taken. The library
//! has a function `apply(void (*call)(void *), void *argument)`. Fails where less than 99.5 % of the stacks go all the way to
//! their root, or a way was not seen at all. (It takes some milliseconds until a library is known that has just been loaded:
//! those are left out.)

use pertask::TaskExt;
use pertask::sampler::{RawProfile, RawSample, Sampler, SamplerOptions};
use std::ffi::{CString, c_int, c_void};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const RUN: Duration = Duration::from_secs(1);
/// At least as long as the sampler needs to see what has been loaded.
const LEFT_OUT: Duration = Duration::from_millis(50);
/// The functions of the C library below every thread's first function, at most.
const ROOT: usize = 2;

fn main() -> ExitCode {
    let library = std::env::args().nth(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    let runtime = runtime.expect("a runtime");
    let sampler = match Sampler::start(SamplerOptions::with_frequency(4_999)) {
        Ok(sampler) => sampler,
        Err(refused) => {
            println!("NOT MEASURED: {refused}");
            return ExitCode::SUCCESS;
        }
    };
    let apply = library.as_deref().map(load);
    runtime.block_on(async {
        let tasks = [deep, called_back, on_the_kernels_page].map(|work| repeat(move || work(30)));
        let tasks = tasks.map(|task| tokio::spawn(task.task("work")));
        let applied = apply.map(|apply| repeat(move || through(apply)).task("library"));
        for task in tasks.into_iter().chain(applied.map(tokio::spawn)) {
            task.await.expect("it does not panic");
        }
    });
    report(&sampler.stop(), library.as_deref())
}

/// A piece of work again and again, and a breath in between.
async fn repeat(work: impl Fn() -> u64) {
    let start = Instant::now();
    while start.elapsed() < RUN {
        black_box(work());
        tokio::task::yield_now().await;
    }
}

fn compute() -> u64 {
    (0..20_000).fold(1_u64, |sum, round| black_box(sum.rotate_left(7) ^ round))
}

#[inline(never)]
fn deep(calls: u32) -> u64 {
    if calls == 0 { compute() } else { black_box(deep(calls - 1)) + 1 }
}

/// From the C library's sort.
fn called_back(calls: u32) -> u64 {
    extern "C" fn compare(left: *const c_void, right: *const c_void) -> c_int {
        // SAFETY: the sort passes two elements of the array.
        let (left, right) = unsafe { (*left.cast::<u64>(), *right.cast::<u64>()) };
        black_box((0..300).sum::<u64>());
        left.cmp(&right) as c_int
    }
    let mut numbers: Vec<u64> = (0..64).map(|it| it * u64::from(calls) % 61).collect();
    // SAFETY: the array's own length, its elements' size, and a function that compares two.
    unsafe {
        libc::qsort(numbers.as_mut_ptr().cast(), numbers.len(), size_of::<u64>(), Some(compare))
    };
    numbers[0]
}

fn on_the_kernels_page(calls: u32) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    for _ in 0..calls * 30 {
        // SAFETY: the kernel writes one timespec, which is ours.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    }
    time.tv_nsec.cast_unsigned()
}

type Apply = extern "C" fn(extern "C" fn(*mut c_void), *mut c_void);

fn load(path: &str) -> Apply {
    let path = CString::new(path).expect("a path");
    // SAFETY: a path; the caller's library, and its function of that type. It is never unloaded.
    unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(!library.is_null(), "cannot load {path:?}");
        let apply = libc::dlsym(library, c"apply".as_ptr());
        assert!(!apply.is_null(), "no function `apply` in {path:?}");
        std::mem::transmute::<*mut c_void, Apply>(apply)
    }
}

fn through(apply: Apply) -> u64 {
    extern "C" fn call(sum: *mut c_void) {
        // SAFETY: what `through` has passed.
        unsafe { *sum.cast::<u64>() += deep(10) };
    }
    let mut sum = 0_u64;
    apply(call, (&raw mut sum).cast());
    sum
}

fn report(profile: &RawProfile, library: Option<&str>) -> ExitCode {
    println!("{}", profile.mechanism);
    let ways = [("libc.so", "the C library"), ("[vdso]", "the kernel's page")];
    let loaded = library.map(|path| (path, "the loaded library"));
    let mut good = share("all", profile, |_| true);
    for (module, name) in ways.into_iter().chain(loaded) {
        good &= share(name, profile, |sample| is_through(profile, module, sample));
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether a sample's stack has an address in that module.
fn is_through(profile: &RawProfile, module: &str, sample: &RawSample) -> bool {
    let modules = profile.modules.iter().filter(|it| it.path.contains(module));
    let mut ranges = modules.flat_map(|it| &it.ranges);
    let above_the_root = &sample.stack[..sample.stack.len().saturating_sub(ROOT)];
    ranges.any(|range| above_the_root.iter().any(|at| range.addresses.contains(at)))
}

fn share(name: &str, profile: &RawProfile, of: impl Fn(&RawSample) -> bool) -> bool {
    let first_ns = profile.samples.iter().map(|sample| sample.time_ns).min().unwrap_or(0);
    let from_ns = first_ns + LEFT_OUT.as_nanos() as u64;
    let of_tasks = profile
        .samples
        .iter()
        .filter(|sample| sample.task.is_some() && sample.time_ns >= from_ns && of(sample));
    let (all, whole) = of_tasks
        .fold((0_u64, 0_u64), |(all, whole), sample| (all + 1, whole + u64::from(sample.complete)));
    println!(
        "{name:<20} {whole:>6} whole of {all:>6}: {:6.2} %",
        100.0 * whole as f64 / all.max(1) as f64
    );
    all > 0 && whole * 1_000 >= all * 995
}
