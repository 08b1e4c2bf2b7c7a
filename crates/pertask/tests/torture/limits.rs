//! Hosts that are short of something: descriptors, queued signals, memory, threads.

use crate::harness::{
    HZ, all_handlers, block_all, check_sums, options, rounds, skip, spin, start, stop, torture,
};
use pertask::TaskExt;
use pertask::sampler::{Mechanism, Sampler};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

fn limit(what: libc::__rlimit_resource_t, most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: a limit to read.
    assert_eq!(unsafe { libc::setrlimit(what, &raw const limit) }, 0);
}

/// All the descriptors that the process may have.
fn all_descriptors() -> Vec<File> {
    let null = || File::open("/dev/null");
    std::iter::from_fn(|| null().ok()).collect()
}

/// A thread to which the session's signal is pending, and which lets it come in the end.
struct Deaf {
    unblock: std::sync::mpsc::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Deaf {
    /// While a session samples.
    fn begin() -> Self {
        let (unblock, unblocked) = std::sync::mpsc::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            block_all();
            spin(30);
            ready.send(()).unwrap();
            unblocked.recv().unwrap_err();
            crate::harness::unblock_all();
            spin(5);
        });
        is_ready.recv().unwrap();
        Self { unblock, thread }
    }

    fn end(self) {
        drop(self.unblock);
        self.thread.join().unwrap();
    }
}

/// While the host has no descriptor left, nothing can be found out about threads. None is taken for dead because of that.
#[test]
fn descriptors_run_out_in_mid_session() {
    torture(|mechanism| {
        limit(libc::RLIMIT_NOFILE, 128);
        let workers: Vec<_> = (0..3).map(|_| thread::spawn(|| spin(300))).collect();
        let before = all_handlers();
        for _ in 0..rounds(3) {
            let Some(sampler) = start(mechanism) else { return };
            spin(20);
            let taken = all_descriptors();
            spin(60);
            thread::spawn(|| spin(5)).join().unwrap();
            drop(taken);
            spin(30);
            stop(sampler);
        }
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        drop(Sampler::start(options(mechanism, HZ)));
        assert_eq!(all_handlers(), before);
    });
}

/// The session ends while nothing can be found out: its signal must not meet its default action.
#[test]
fn descriptors_have_run_out_at_the_end() {
    torture(|mechanism| {
        limit(libc::RLIMIT_NOFILE, 64);
        for _ in 0..rounds(3) {
            let Some(sampler) = start(mechanism) else { return };
            let deaf = Deaf::begin();
            // What the session gives back, somebody else takes.
            let taking = std::sync::Arc::new(AtomicBool::new(true));
            let taker = {
                let taking = taking.clone();
                thread::spawn(move || {
                    let mut taken = Vec::new();
                    while taking.load(Relaxed) {
                        taken.extend(all_descriptors());
                    }
                })
            };
            spin(5);
            check_sums(&sampler.stop());
            deaf.end();
            taking.store(false, Relaxed);
            taker.join().unwrap();
        }
    });
}

/// A signal is pending still from a session before, and must not meet its default action because a later one is refused.
#[test]
fn a_session_is_refused_while_a_signal_is_pending() {
    torture(|mechanism| {
        limit(libc::RLIMIT_NOFILE, 64);
        let Some(sampler) = start(mechanism) else { return };
        let deaf = Deaf::begin();
        drop(sampler.stop());
        // Some are left, but none that an event may have.
        let mut taken = all_descriptors();
        taken.truncate(taken.len().saturating_sub(8));
        let refused = Sampler::start(options(mechanism, HZ)).err();
        // A timer is no file.
        assert!(refused.is_some() || mechanism == Mechanism::Timer);
        deaf.end();
        drop(taken);
    });
}

/// To stop takes its time while a thread blocks the signal; what tasks use meanwhile is not the session's.
#[test]
fn tasks_run_on_while_a_session_waits_for_its_end() {
    static GO_ON: AtomicBool = AtomicBool::new(true);
    torture(|mechanism| {
        let worker = thread::spawn(|| {
            // Relaxed: it hands nothing over.
            while GO_ON.load(Relaxed) {
                futures::executor::block_on(async { spin(1) }.task("runs on"));
            }
        });
        if let Some(sampler) = start(mechanism) {
            let deaf = Deaf::begin();
            let profile = sampler.stop();
            let (told, whole) = (profile.carried_cpu_ns(), profile.process_cpu_ns);
            assert!(told <= whole + 20_000_000, "{told} ns of {whole}");
            deaf.end();
        }
        GO_ON.store(false, Relaxed);
        worker.join().unwrap();
    });
}

#[test]
fn few_descriptors_from_the_start() {
    torture(|mechanism| {
        limit(libc::RLIMIT_NOFILE, 24);
        let threads: Vec<_> = (0..30).map(|_| thread::spawn(|| spin(10))).collect();
        match Sampler::start(options(mechanism, HZ)) {
            Ok(sampler) => {
                spin(20);
                // The rest is the host's.
                let files: Result<Vec<_>, _> = (0..4).map(|_| File::open("/dev/null")).collect();
                assert!(files.is_ok(), "{files:?}");
                check_sums(&sampler.stop());
            }
            Err(why) => skip(&why.to_string()),
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Such as one that has its capabilities from its file: what `/proc` shows of it belongs to root.
#[test]
fn a_process_that_is_not_to_be_dumped() {
    torture(|mechanism| {
        const NOBODY: u32 = 65_534;
        // SAFETY: numbers only.
        unsafe {
            // All threads are nobody's from now on, if they were root's.
            libc::setuid(NOBODY);
            assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 0), 0);
        }
        if File::open("/proc/thread-self/mem").is_ok() {
            return skip("the user may look into a process that is not to be dumped");
        }
        let sampler = match Sampler::start(options(mechanism, HZ)) {
            Ok(sampler) => sampler,
            Err(why) => {
                // By itself it is no reason.
                assert!(!why.to_string().contains("/proc"), "{why}");
                return skip(&why.to_string());
            }
        };
        spin(30);
        let profile = stop(sampler);
        let whole = profile.samples.iter().any(|sample| sample.complete);
        assert!(whole || profile.samples.is_empty(), "{:?}", profile.lost);
    });
}

#[test]
fn no_signals_may_be_queued() {
    torture(|mechanism| {
        for most in [0, 1, 3] {
            limit(libc::RLIMIT_SIGPENDING, 3 - most);
            match Sampler::start(options(mechanism, HZ)) {
                Ok(sampler) => {
                    thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(|| spin(20)))));
                    check_sums(&sampler.stop());
                }
                Err(why) => skip(&why.to_string()),
            }
        }
    });
}

/// A thread that blocks only what it knows of, for long: signals must not pile up until the kernel sends another.
#[test]
fn a_deaf_thread_does_not_use_up_the_queue() {
    torture(|mechanism| {
        limit(libc::RLIMIT_SIGPENDING, 40);
        let Some(sampler) = start(mechanism) else { return };
        thread::spawn(|| {
            // SAFETY: a set of ours, filled in before it is used.
            unsafe {
                let mut set = std::mem::zeroed();
                libc::sigfillset(&raw mut set);
                libc::sigdelset(&raw mut set, libc::SIGIO);
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            }
            spin(100);
        })
        .join()
        .unwrap();
        // The host's own still find room.
        let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
        crate::harness::set_action(libc::SIGRTMIN(), libc::SIG_IGN, 0);
        // SAFETY: to this process, which ignores it.
        let sent = unsafe { libc::sigqueue(libc::getpid(), libc::SIGRTMIN(), value) };
        assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
        stop(sampler);
    });
}

/// Little memory: a session is refused or lacks samples, and the host lives.
#[test]
fn little_memory() {
    torture(|mechanism| {
        // What a first session leaves behind is there.
        let Some(sampler) = start(mechanism) else { return };
        spin(5);
        drop(sampler);
        let used = crate::harness::status("VmSize") << 10;
        // Enough for a thread of std's, its heap, and all that is small.
        limit(libc::RLIMIT_AS, used + (160 << 20));
        let mut wanted = options(mechanism, HZ);
        wanted.ring_bytes = 512 << 20;
        wanted.memory_bytes = usize::MAX;
        if let Ok(sampler) = Sampler::start(wanted) {
            thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(|| spin(5)))));
            let lost = sampler.stop().lost;
            assert!(lost.threads_not_sampled > 0, "{lost:?}");
        }
        let Some(sampler) = start(mechanism) else { return };
        spin(10);
        stop(sampler);
    });
}

/// No thread may be made: there is no collector.
#[test]
fn no_more_threads() {
    torture(|mechanism| {
        let before = all_handlers();
        let used = crate::harness::status("VmSize") << 10;
        limit(libc::RLIMIT_AS, used + (1 << 20));
        if let Ok(sampler) = Sampler::start(options(mechanism, HZ)) {
            drop(sampler);
        }
        assert_eq!(all_handlers(), before);
    });
}

/// More threads than can be sampled at the same time. Those that are not are counted, also if they end before the session does.
#[test]
fn more_threads_than_there_is_room_for() {
    const BEYOND: u64 = 100;
    torture(|mechanism| {
        let Mechanism::Timer = mechanism else { return };
        let end = AtomicBool::new(false);
        let waits = || {
            // Relaxed: nothing else depends on it.
            while !end.load(Relaxed) {
                thread::park();
            }
        };
        thread::scope(|scope| {
            let spawned: Vec<_> = (0..4_096 + BEYOND)
                .map_while(|_| {
                    thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, waits).ok()
                })
                .collect();
            let sampler = start(mechanism);
            end.store(true, Relaxed);
            spawned.iter().for_each(|thread| thread.thread().unpark());
            if (spawned.len() as u64) < 4_096 + BEYOND {
                return skip("there cannot be so many threads");
            }
            spawned.into_iter().for_each(|thread| thread.join().unwrap());
            // A thread that begins to run tasks makes the collector look, most times before the session ends.
            let begins = || futures::executor::block_on(async { spin(200) }.task("begins"));
            thread::scope(|scope| scope.spawn(begins).join().unwrap());
            let Some(profile) = sampler.map(stop) else { return };
            let lost = profile.lost;
            assert!(lost.threads_not_sampled >= BEYOND, "{lost:?}");
            let told = profile.remarks.iter().any(|remark| remark.contains("4096 are at the same"));
            assert!(told, "{:?}", profile.remarks);
        });
    });
}
