//! Sessions: many, at once, in any order, left open, and nothing of them left afterwards.

use crate::harness::{
    HZ, Random, all_handlers, check_sums, entries, open_files, options, rounds, skip, spin, start,
    start_again, start_with, status, stop, torture, torture_how,
};
use pertask::TaskExt;
use pertask::sampler::Sampler;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

#[test]
fn hundreds_one_after_the_other_leave_nothing() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        stop_quietly(sampler);
        let before = (open_files(), entries("/proc/self/task"), all_handlers());
        let mut memory_kb = 0;
        let all = rounds(60);
        for round in 0..all {
            let hertz = [1, 50, 999, 5_000][round % 4];
            let mut wanted = options(mechanism, hertz);
            // Memory for samples of any size.
            wanted.ring_bytes = 4_000 + 5_000 * (round % 7);
            let Some(sampler) = start_again(wanted) else { return };
            spin(1);
            stop_quietly(sampler);
            if round == all / 2 {
                memory_kb = status("VmRSS");
            }
        }
        let after = (open_files(), entries("/proc/self/task"), all_handlers());
        assert_eq!(after, before, "files, threads, handlers");
        let now_kb = status("VmRSS");
        assert!(now_kb < memory_kb + 8_000, "{memory_kb} KiB, then {now_kb}");
    });
}

fn stop_quietly(sampler: Sampler) {
    check_sums(&sampler.stop());
}

#[test]
fn from_many_threads_at_once() {
    torture(|mechanism| {
        let before = {
            let Some(sampler) = start(mechanism) else { return };
            stop_quietly(sampler);
            (open_files(), all_handlers())
        };
        thread::scope(|scope| {
            let of_seed = |seed: u64| {
                scope.spawn(move || {
                    let mut random = Random(seed * 6151);
                    let mut mine = Vec::new();
                    for _ in 0..rounds(30) {
                        if random.below(2) == 0 {
                            let hertz = 1 + random.below(5_000) as u32;
                            mine.extend(start_again(options(mechanism, hertz)));
                        } else if !mine.is_empty() {
                            let sampler: Sampler = mine.swap_remove(random.below(mine.len()));
                            stop_quietly(sampler);
                        }
                    }
                })
            };
            let threads: Vec<_> = (1..=6).map(of_seed).collect();
            // To the end of the thread, which a scope does not wait for: glibc 2.36 frees memory there, and opens a file to learn how.
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert_eq!((open_files(), all_handlers()), before, "files, handlers");
        spin(20);
    });
}

#[test]
fn many_at_the_same_time() {
    torture(|mechanism| {
        // Each session gets each sample: many of them at a high rate are work for the collector without end.
        let begin = || start_with(options(mechanism, 100));
        let Some(first) = begin() else { return };
        let all: Vec<_> = (0..32).map(|_| begin().expect("it samples already")).collect();
        spin(30);
        all.into_iter().rev().for_each(stop_quietly);
        stop(first);
    });
}

#[test]
fn panics_pass_through_polls() {
    torture(|mechanism| {
        std::panic::set_hook(Box::new(|_| {}));
        let Some(sampler) = start(mechanism) else { return };
        let panicking = |depth: u32| {
            futures::executor::block_on(
                async move {
                    fn down(depth: u32) {
                        if depth == 0 {
                            panic!("as it should");
                        }
                        down(depth - 1);
                        std::hint::black_box(depth);
                    }
                    down(depth);
                }
                .task("panics"),
            );
        };
        for round in 0..rounds(300) as u32 {
            let caught = catch_unwind(AssertUnwindSafe(|| panicking(round % 90)));
            assert!(caught.is_err());
        }
        for _ in 0..rounds(10) {
            assert!(thread::spawn(move || panicking(50)).join().is_err());
        }
        // A session that is dropped by a panic.
        let inner = catch_unwind(|| {
            let _second = Sampler::start(options(mechanism, 99)).unwrap();
            panic!("with a session");
        });
        assert!(inner.is_err());
        stop(sampler);
        drop(std::panic::take_hook());
    });
}

#[test]
fn abort_is_an_abort() {
    torture_how(
        |mechanism| {
            let Some(_sampler) = start(mechanism) else { return };
            thread::spawn(|| spin(10_000));
            spin(20);
            std::process::abort();
        },
        |mechanism, ending| {
            let aborted = ending.skipped() || ending.signal() == Some(libc::SIGABRT);
            assert!(aborted, "{mechanism}: {}\n{}", ending.status, ending.output);
        },
    );
}

#[test]
fn exit_in_mid_session_is_an_exit() {
    torture_how(
        |mechanism| {
            let Some(_sampler) = start(mechanism) else { return };
            extern "C" fn late() {
                spin(20);
            }
            // SAFETY: a function that needs nothing.
            assert_eq!(unsafe { libc::atexit(late) }, 0);
            for _ in 0..3 {
                thread::spawn(|| spin(10_000));
            }
            spin(20);
            std::process::exit(42);
        },
        |mechanism, ending| {
            let exited = ending.skipped() || ending.status.code() == Some(42);
            assert!(exited, "{mechanism}: {}\n{}", ending.status, ending.output);
        },
    );
}

/// `main` returns while a session is open, which nobody will ever drop, and another is dropped on the way out.
#[test]
fn main_returns_in_mid_session() {
    torture(|mechanism| {
        thread_local! {
            static LAST: std::cell::RefCell<Option<Sampler>> = const { std::cell::RefCell::new(None) };
        }
        let Some(sampler) = start(mechanism) else { return };
        std::mem::forget(sampler);
        LAST.set(Sampler::start(options(mechanism, 50)).ok());
        for _ in 0..3 {
            thread::spawn(|| spin(100_000));
        }
        spin(20);
    });
}

/// The last session is stopped while the process exits.
#[test]
fn stopped_on_the_way_out() {
    torture_how(
        |mechanism| {
            static LAST: std::sync::Mutex<Option<Sampler>> = std::sync::Mutex::new(None);
            extern "C" fn late() {
                spin(5);
                drop(LAST.lock().unwrap().take());
                spin(5);
                // SAFETY: ends the process, at once.
                unsafe { libc::_exit(43) };
            }
            *LAST.lock().unwrap() = start(mechanism);
            if LAST.lock().unwrap().is_none() {
                return;
            }
            // SAFETY: a function that needs nothing.
            assert_eq!(unsafe { libc::atexit(late) }, 0);
            spin(10);
            std::process::exit(42);
        },
        |mechanism, ending| {
            let exited = ending.skipped() || ending.status.code() == Some(43);
            assert!(exited, "{mechanism}: {}\n{}", ending.status, ending.output);
        },
    );
}

/// The first thread ends, the others go on, and so do their sessions.
#[test]
fn the_first_thread_ends() {
    torture_how(
        |mechanism| {
            if !crate::harness::in_child() {
                return;
            }
            let Some(sampler) = start(mechanism) else { return };
            let first = std::process::id().cast_signed();
            thread::spawn(move || {
                spin(20);
                stop(sampler);
                let again = Sampler::start(options(mechanism, HZ));
                spin(20);
                match again {
                    Ok(again) => drop(stop(again)),
                    Err(why) => skip(&why.to_string()),
                }
                let state = std::fs::read_to_string(format!("/proc/self/task/{first}/stat"));
                let zombie = state.is_ok_and(|state| state.contains(") Z "));
                std::process::exit(if zombie { 0 } else { 3 });
            });
            // The tests' main thread waits for this one: it is told to end by a signal of its own.
            extern "C" fn end(_: i32) {
                // SAFETY: ends the calling thread only.
                unsafe { libc::syscall(libc::SYS_exit, 0) };
            }
            crate::harness::set_action(libc::SIGUSR1, end as *const () as usize, 0);
            // SAFETY: to a thread of ours.
            unsafe { libc::syscall(libc::SYS_tgkill, first, first, libc::SIGUSR1) };
            loop {
                thread::park();
            }
        },
        |mechanism, ending| {
            assert!(ending.status.success(), "{mechanism}: {}\n{}", ending.status, ending.output);
        },
    );
}
