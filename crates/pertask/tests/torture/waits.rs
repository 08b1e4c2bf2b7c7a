//! Threads that wait: their system calls are not cut short. And threads that let no signal through.

use crate::harness::{block_all, rounds, spin, start, stop, torture, unblock_all};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Calls that end early for any signal, whatever its handler asks for.
#[test]
fn sleeps_and_polls_are_not_cut_short() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        let busy = AtomicBool::new(true);
        thread::scope(|scope| {
            // The process is busy meanwhile.
            scope.spawn(|| {
                while busy.load(Relaxed) {
                    spin(1);
                }
            });
            for round in 0..rounds(100) {
                spin(1);
                let wait = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000 };
                // SAFETY: a time to read, and a place for what is left of it.
                let slept = unsafe { libc::nanosleep(&raw const wait, std::ptr::null_mut()) };
                assert_eq!(slept, 0, "{round}: {}", std::io::Error::last_os_error());
                // SAFETY: waits for nothing but the time.
                let polled = unsafe { libc::poll(std::ptr::null_mut(), 0, 2) };
                assert_eq!(polled, 0, "{round}: {}", std::io::Error::last_os_error());
            }
            busy.store(false, Relaxed);
        });
        stop(sampler);
    });
}

#[test]
fn pipes_and_locks_work_as_ever() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        let (mut read, mut write) = std::io::pipe().unwrap();
        let all = rounds(3_000);
        thread::scope(|scope| {
            scope.spawn(move || {
                for round in 0..all {
                    write.write_all(&round.to_le_bytes()).unwrap();
                    spin(0);
                }
            });
            let mut bytes = [0; size_of::<usize>()];
            for round in 0..all {
                read.read_exact(&mut bytes).unwrap();
                assert_eq!(usize::from_le_bytes(bytes), round);
            }
        });
        stop(sampler);
    });
}

/// A forced SIGTRAP would end the process.
#[test]
fn threads_that_block_all_signals() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..rounds(20) {
                    block_all();
                    spin(3);
                    unblock_all();
                    spin(1);
                }
            });
            scope.spawn(|| {
                block_all();
                spin(100);
            });
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(50) {
                spin(1);
            }
        });
        stop(sampler);
    });
}

/// Of which one begins and ends with all signals blocked while a session stops.
#[test]
fn stopped_while_a_thread_blocks_all_signals() {
    torture(|mechanism| {
        for _ in 0..rounds(3) {
            let Some(sampler) = start(mechanism) else { return };
            let stopped = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    block_all();
                    while !stopped.load(Relaxed) {
                        spin(1);
                    }
                    // What was pending comes now, if anything was.
                    unblock_all();
                    spin(5);
                });
                spin(20);
                drop(sampler.stop());
                stopped.store(true, Relaxed);
            });
        }
    });
}
