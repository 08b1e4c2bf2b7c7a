//! Room for samples runs out, and is told of; and what the handler must not touch.

use super::support::{alone, ms, thread_cpu_ns};
use super::{
    CALLS, cpu_ns, gettid, kernel_ns, of_thread, options, outermost, sample_enough,
    sample_enough_with, spin, start,
};
use futures::executor::block_on;
use pertask::TaskExt;
use pertask::sampler::{Mechanism, RawProfile};
use std::hint::black_box;
use std::thread;

#[test]
fn a_full_ring_drops_and_counts_and_loses_no_time() {
    let _alone = alone();
    let mut options = options(Mechanism::PerfTrap);
    options.frequency_hz = 5_000;
    // Room for one sample.
    options.ring_bytes = 0;
    let work = |times| {
        let begun_ns = thread_cpu_ns();
        outermost(600 * times);
        (thread_cpu_ns() - begun_ns, begun_ns)
    };
    let dropped = |profile: &RawProfile, _: &_| profile.lost.dropped_ring_full as usize;
    let Some((profile, (used, begun_ns))) = sample_enough_with(&options, 10, work, dropped) else {
        return;
    };
    // What starting and stopping has used comes on top.
    let most = thread_cpu_ns() - begun_ns + ms(50);
    let lost = profile.lost;
    let seen = cpu_ns(of_thread(&profile, gettid())) + kernel_ns(&profile, gettid());
    // What was dropped at the end is in no later sample; the collector makes room as often as it gets a CPU.
    let stretch = of_thread(&profile, gettid()).map(|sample| sample.cpu_ns).max().unwrap_or(0);
    let least = used.saturating_sub(3 * stretch + ms(5));
    assert!(
        (least.max(most / 4)..=most).contains(&seen),
        "{seen} ns of {used}; {stretch}, {lost:?}"
    );
}

#[test]
fn samples_of_a_part_of_the_session_do_not_get_the_time_of_the_rest() {
    let _alone = alone();
    let mut options = options(Mechanism::PerfTrap);
    options.memory_bytes = 4_000;
    let work = |times| block_on(async move { spin(200 * times) }.task("long"));
    let dropped = |profile: &RawProfile, _: &u64| profile.lost.dropped_memory_full as usize;
    let Some((profile, _)) = sample_enough_with(&options, 50, work, dropped) else { return };
    assert!(profile.carried_cpu_ns() < ms(100), "{} ns", profile.carried_cpu_ns());
    assert!(profile.lost.unsampled_cpu_ns > ms(100), "{:?}", profile.lost);
    assert!(!profile.mechanism.contains("by the clock"), "{}", profile.mechanism);
}

#[test]
fn no_memory_left_is_counted() {
    let _alone = alone();
    let mut options = options(Mechanism::PerfTrap);
    options.memory_bytes = 4_000;
    let dropped = |profile: &RawProfile, _: &u64| profile.lost.dropped_memory_full as usize;
    let work = |times| spin(200 * times);
    let Some((profile, _)) = sample_enough_with(&options, 50, work, dropped) else { return };
    assert!(profile.samples.len() < 40);
    assert!(profile.lost.unsampled_cpu_ns > ms(100), "{:?}", profile.lost);
}

#[test]
fn the_handler_does_not_allocate() {
    let _alone = alone();
    for mechanism in Mechanism::ALL {
        let work = |times| {
            let thread = thread::spawn(move || {
                let before = CALLS.get();
                outermost(200 * times);
                (gettid(), CALLS.get() - before)
            });
            thread.join().unwrap()
        };
        let of_it =
            |profile: &RawProfile, (thread, _): &(u32, u64)| of_thread(profile, *thread).count();
        let Some((_, (_, calls))) = sample_enough(mechanism, 30, work, of_it) else { continue };
        assert_eq!(calls, 0, "{mechanism}");
    }
}

#[test]
fn errno_survives() {
    let _alone = alone();
    let Some(sampler) = start(Mechanism::PerfTrap) else { return };
    // SAFETY: this thread's own word.
    unsafe { *libc::__errno_location() = 4711 };
    for _ in 0..200_000_000_u64 {
        black_box(());
    }
    // SAFETY: as above.
    assert_eq!(unsafe { *libc::__errno_location() }, 4711);
    assert!(!sampler.stop().samples.is_empty());
}
