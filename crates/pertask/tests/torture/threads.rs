//! Threads that come and go by the thousand.

use crate::harness::{entries, gettid, rounds, sample_enough, spin, start, stop, torture};
use pertask::TaskExt;
use pertask::sampler::RawProfile;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

fn one_thread(stack: usize, work: fn()) -> thread::JoinHandle<()> {
    thread::Builder::new().stack_size(stack).spawn(work).unwrap()
}

#[test]
fn born_and_dead_by_the_thousand() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        let born = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while born.fetch_add(8, Relaxed) < rounds(1_000) {
                        let eight: Vec<_> = (0..8)
                            .map(|which| one_thread((64 << 10) << (which % 4), || spin(0)))
                            .collect();
                        eight.into_iter().for_each(|thread| thread.join().unwrap());
                    }
                });
            }
        });
        stop(sampler);
    });
}

#[test]
fn born_and_dead_and_of_some_use_in_between() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        for round in 0..rounds(15) {
            let work = || {
                futures::executor::block_on(async { spin(1) }.task("short"));
                spin(1);
            };
            let some: Vec<_> =
                (0..6).map(|which| one_thread((64 << 10) << ((which + round) % 3), work)).collect();
            some.into_iter().for_each(|thread| thread.join().unwrap());
        }
        stop(sampler);
    });
}

#[test]
fn detached_and_never_waited_for() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        static ENDED: AtomicUsize = AtomicUsize::new(0);
        let all = rounds(150);
        for _ in 0..all {
            drop(one_thread(64 << 10, || {
                spin(1);
                ENDED.fetch_add(1, Relaxed);
            }));
        }
        while ENDED.load(Relaxed) < all {
            thread::yield_now();
        }
        stop(sampler);
    });
}

/// As small as they may be: 16 KiB, with the thread's own variables in it.
#[test]
fn the_smallest_stacks() {
    torture(|mechanism| {
        extern "C" fn work(_: *mut libc::c_void) -> *mut libc::c_void {
            for round in 0..6_000_000_u64 {
                black_box(round);
            }
            std::ptr::null_mut()
        }
        let threads = |times| {
            for _ in 0..rounds(2) * times {
                let threads = [(); 4].map(|()| {
                    // SAFETY: a thread with its attributes, which are made and unmade here; the work needs no arguments.
                    unsafe {
                        let mut attributes = std::mem::zeroed();
                        libc::pthread_attr_init(&raw mut attributes);
                        assert_eq!(
                            libc::pthread_attr_setstacksize(&raw mut attributes, 16 << 10),
                            0
                        );
                        let mut thread = 0;
                        let (to, none) = (&raw mut thread, std::ptr::null_mut());
                        assert_eq!(libc::pthread_create(to, &raw const attributes, work, none), 0);
                        libc::pthread_attr_destroy(&raw mut attributes);
                        thread
                    }
                });
                for thread in threads {
                    // SAFETY: made above, and joined once.
                    assert_eq!(unsafe { libc::pthread_join(thread, std::ptr::null_mut()) }, 0);
                }
            }
        };
        let own = gettid();
        let of_them = |profile: &RawProfile| {
            profile.samples.iter().filter(|sample| sample.thread != own).count()
        };
        let Some(profile) = sample_enough(mechanism, 5, threads, of_them) else { return };
        assert!(profile.samples.iter().any(|sample| sample.complete && sample.thread != own));
    });
}

/// More threads than there are places for: those without are told of, and all of them live.
#[test]
fn more_threads_than_there_are_places() {
    const MOST: usize = 4_096;
    torture(|mechanism| {
        static GO_ON: AtomicBool = AtomicBool::new(true);
        let mut waiting = Vec::new();
        for _ in 0..MOST + 50 {
            let wait = || {
                while GO_ON.load(Relaxed) {
                    thread::park();
                }
            };
            match thread::Builder::new().stack_size(32 << 10).spawn(wait) {
                Ok(thread) => waiting.push(thread),
                Err(why) => {
                    crate::harness::skip(&format!("{} threads: {why}", waiting.len()));
                    return;
                }
            }
        }
        let mut options = crate::harness::options(mechanism, 1_000);
        options.ring_bytes = 2_000;
        let sampler = match pertask::sampler::Sampler::start(options) {
            Ok(sampler) => sampler,
            Err(why) => return crate::harness::skip(&why.to_string()),
        };
        let files = entries("/proc/self/fd");
        spin(30);
        let profile = stop(sampler);
        assert!(profile.lost.threads_not_sampled >= 50, "{:?}", profile.lost);
        assert!(files < 20_000 / 4 * 3 + 64, "{files} files");
        GO_ON.store(false, Relaxed);
        for thread in waiting {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    });
}
