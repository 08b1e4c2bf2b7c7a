//! Children: they are not sampled, nothing of ours ends them, and what they do does not end their parent.

use crate::harness::{
    HZ, all_handlers, check_sums, options, rounds, spin, start, stop, torture, torture_how,
    wait_for,
};
use pertask::TaskExt;
use pertask::sampler::Sampler;
use std::hint::black_box;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

/// Forks; the child does its work and ends with what it returns.
fn fork(work: impl FnOnce() -> i32) -> i32 {
    // SAFETY: what children do here is allowed in a child of threads: glibc keeps its heap usable.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    if child == 0 {
        let status = work();
        // SAFETY: ends the child.
        unsafe { libc::_exit(status) };
    }
    child
}

fn busy_threads<R>(work: impl FnOnce() -> R) -> R {
    let go_on = AtomicBool::new(true);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while go_on.load(Relaxed) {
                    black_box(vec![0_u8; 500]);
                    spin(1);
                }
            });
        }
        let result = work();
        go_on.store(false, Relaxed);
        result
    })
}

#[test]
fn forked_while_all_threads_are_sampled() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        busy_threads(|| {
            for round in 0..rounds(25) {
                let child = fork(|| {
                    black_box(vec![round; 3_000]);
                    spin(2);
                    7
                });
                spin(1);
                let status = wait_for(child);
                assert_eq!(status.code(), Some(7), "{status}");
            }
        });
        stop(sampler);
    });
}

/// The child has the parent's events open: they must not go on when the parent has closed them.
#[test]
fn a_child_that_outlives_the_session() {
    torture(|mechanism| {
        let before = all_handlers();
        for _ in 0..rounds(3) {
            let Some(sampler) = start(mechanism) else { return };
            spin(20);
            let child = fork(|| {
                // SAFETY: no arguments, no memory.
                unsafe { libc::pause() }
            });
            stop(sampler);
            assert_eq!(all_handlers(), before, "the signal has its default action again");
            // If anything still came, it would end us.
            spin(30);
            // Another session beside the events that the child holds.
            let Some(sampler) = start(mechanism) else { return };
            spin(10);
            check_sums(&sampler.stop());
            spin(10);
            // SAFETY: a child of ours, which waits.
            unsafe { libc::kill(child, libc::SIGKILL) };
            assert!(!wait_for(child).success());
        }
    });
}

/// A child of ours may go on as a program of its own, with sessions forgotten, dropped and refused.
#[test]
fn a_child_that_drops_the_session_and_starts_another() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        spin(5);
        let mut sampler = Some(sampler);
        for _ in 0..rounds(5) {
            let child = fork(|| {
                let ours = sampler.take();
                let profile = ours.map(Sampler::stop).unwrap_or_default();
                if !profile.samples.is_empty() {
                    return 1;
                }
                let refused = Sampler::start(options(mechanism, HZ)).err();
                let why = refused.map_or_else(String::new, |why| why.to_string());
                if !why.contains("forked") {
                    return 2;
                }
                // Threads that run tasks wake a collector that is not there.
                let thread =
                    thread::spawn(|| futures::executor::block_on(async { 5 }.task("child's")));
                spin(3);
                if thread.join().is_ok_and(|five| five == 5) { 0 } else { 3 }
            });
            let status = wait_for(child);
            assert!(status.success(), "{status}");
        }
        stop(sampler.take().unwrap());
    });
}

#[test]
fn children_that_become_other_programs() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        busy_threads(|| {
            for round in 0..rounds(20) {
                // The first by posix_spawn, the second by fork and exec.
                let mut child = Command::new("/bin/sh");
                child.args(["-c", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; exit 9"]);
                if round % 2 == 0 {
                    // SAFETY: nothing is done.
                    unsafe { child.pre_exec(|| Ok(())) };
                }
                let status = child.status().unwrap();
                assert_eq!(status.code(), Some(9), "{status}");
            }
        });
        stop(sampler);
    });
}

#[test]
fn many_threads_start_programs_at_once() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..rounds(10) {
                        let output = Command::new("/bin/echo").arg("alive").output().unwrap();
                        assert_eq!(output.stdout, b"alive\n");
                        spin(1);
                    }
                });
            }
        });
        stop(sampler);
    });
}

#[test]
fn sessions_end_while_programs_are_started() {
    torture(|mechanism| {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    let status = Command::new("/bin/true").status().unwrap();
                    assert!(status.success(), "{status}");
                }
            });
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    assert!(wait_for(fork(|| 0)).success());
                }
            });
            for _ in 0..rounds(15) {
                let Some(sampler) = start(mechanism) else { break };
                spin(3);
                check_sums(&sampler.stop());
                spin(1);
            }
            done.store(true, Relaxed);
        });
    });
}

/// The whole process becomes another program, which gets none of our signals.
#[test]
fn the_process_becomes_another_program() {
    torture_how(
        |mechanism| {
            let Some(sampler) = start(mechanism) else { return };
            thread::spawn(|| spin(10_000));
            spin(20);
            let work = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo became; exit 9";
            let why = Command::new("/bin/sh").args(["-c", work]).exec();
            drop(sampler);
            panic!("{why}");
        },
        |mechanism, ending| {
            let became = ending.status.code() == Some(9) && ending.output.contains("became");
            assert!(
                ending.skipped() || became,
                "{mechanism}: {}\n{}",
                ending.status,
                ending.output
            );
        },
    );
}
