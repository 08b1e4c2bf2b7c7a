//! Where the time goes: stacks that reach the root, on stacks of all sizes, through libraries that come and go.

use super::support::{alone, loudly};
use super::{gettid, of_thread, outermost, sample_enough, spin, start};
use pertask::sampler::{Mechanism, RawProfile, RawSample};
use std::hint::black_box;
use std::thread;

#[test]
fn stacks_reach_the_root_and_the_outermost_function() {
    let _alone = alone();
    for mechanism in Mechanism::ALL {
        let work = |times| {
            let thread = thread::spawn(move || {
                outermost(400 * times);
                gettid()
            });
            thread.join().unwrap()
        };
        let of_it = |profile: &RawProfile, thread: &u32| of_thread(profile, *thread).count();
        let Some((profile, thread)) = sample_enough(mechanism, 50, work, of_it) else { continue };
        let outer = (outermost as fn(u64) as *const ()).addr() as u64;
        // What one function's code is at most, here.
        let in_outer = |at: &u64| (outer..outer + 256).contains(at);
        let samples: Vec<_> = of_thread(&profile, thread).collect();
        let good = |sample: &&&RawSample| sample.complete && sample.stack.iter().any(in_outer);
        let whole = samples.iter().filter(good).count();
        let count = samples.len();
        loudly(&format!("{mechanism}: {whole} of {count} stacks are whole"));
        // The first and the last may be before and after it.
        assert!((whole + 2) * 100 >= count * 99, "{whole} of {count}");
        let known = |at: &u64| {
            let mut ranges = profile.modules.iter().flat_map(|module| &module.ranges);
            ranges.any(|range| range.addresses.contains(at))
        };
        assert!(samples.iter().flat_map(|sample| sample.stack.iter()).all(known), "unknown code");
    }
}

#[test]
fn stacks_of_threads_with_small_stacks_are_whole_too() {
    let _alone = alone();
    for mechanism in Mechanism::ALL {
        let work = |times| {
            let small = thread::Builder::new().stack_size(32 << 10);
            let work = move || {
                outermost(100 * times);
                gettid()
            };
            small.spawn(work).unwrap().join().unwrap()
        };
        let of_it = |profile: &RawProfile, thread: &u32| of_thread(profile, *thread).count();
        let Some((profile, thread)) = sample_enough(mechanism, 20, work, of_it) else { continue };
        let whole = of_thread(&profile, thread).filter(|sample| sample.complete).count();
        let count = of_it(&profile, &thread);
        assert!((whole + 2) * 100 >= count * 99, "{whole} of {count}");
    }
}

/// Writes to the stack far below, and says how much of that was written to again while `f` ran.
#[inline(never)]
fn stack_used_below(f: impl FnOnce()) -> usize {
    const WORDS: usize = 32 << 10;
    const UNTOUCHED: u64 = 0xa5a5_5a5a_1234_4321;
    #[inline(never)]
    fn paint() -> *const u64 {
        let mut words = [0_u64; WORDS];
        let words = black_box(&mut words);
        words.fill(UNTOUCHED);
        black_box(words.as_ptr())
    }
    let lowest = paint();
    f();
    // SAFETY: this thread's own stack, which is mapped that far down: it has been written to.
    let touched = (0..WORDS).find(|at| unsafe { lowest.add(*at).read_volatile() } != UNTOUCHED);
    (WORDS - touched.unwrap_or(WORDS)) * size_of::<u64>()
}

#[test]
fn the_handler_leaves_most_of_a_small_stack_alone() {
    let _alone = alone();
    let Some(sampler) = start(Mechanism::PerfTrap) else { return };
    let used = thread::spawn(|| stack_used_below(|| outermost(200))).join().unwrap();
    drop(sampler);
    let without = thread::spawn(|| stack_used_below(|| outermost(20))).join().unwrap();
    loudly(&format!("stack used: {used} bytes with samples, {without} without"));
    assert!(used > without, "it was not interrupted");
    // What the kernel saves, and the way to the sampler's own stack.
    assert!(used - without < 16 << 10, "{used}");
}

#[test]
fn libraries_that_come_and_go_meanwhile_are_told_of() {
    let _alone = alone();
    let Some(sampler) = start(Mechanism::PerfTrap) else { return };
    let name = c"libresolv.so.2";
    for _ in 0..3 {
        // SAFETY: a library of the system's, of which nothing is called.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return loudly("NOT TESTED: there is no libresolv.so.2");
        }
        spin(60);
        // SAFETY: as above.
        unsafe { libc::dlclose(library) };
        spin(30);
    }
    let profile = sampler.stop();
    let found: Vec<_> =
        profile.modules.iter().filter(|module| module.path.contains("libresolv")).collect();
    assert!(!found.is_empty(), "{:?}", profile.modules);
    assert!(found.iter().all(|module| !module.ranges.is_empty() && !module.build_id.is_empty()));
    let whole = of_thread(&profile, gettid()).filter(|sample| sample.complete).count();
    assert!(whole * 100 >= of_thread(&profile, gettid()).count() * 99);
}
