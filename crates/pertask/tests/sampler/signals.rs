//! Signals: the sampler's, the host's own, and those that a thread blocks; what a child sees of them, and what stays behind.

use super::support::{alone, loudly, ms, wait_for_child};
use super::{gettid, of_thread, options, spin, start};
use pertask::sampler::{Mechanism, RawProfile, Sampler};
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;

static OWN: AtomicU64 = AtomicU64::new(0);

extern "C" fn own_handler(_: i32) {
    OWN.fetch_add(1, Relaxed);
}

fn action(signal: i32, new: Option<usize>) -> libc::sigaction {
    // SAFETY: numbers and a set of bits.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let mut old = action;
    if let Some(handler) = new {
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_NODEFER;
    }
    let new = if new.is_some() { &raw const action } else { std::ptr::null() };
    // SAFETY: a handler of ours or none, and a place for the old one.
    assert_eq!(unsafe { libc::sigaction(signal, new, &raw mut old) }, 0);
    old
}

fn raise(signal: i32) {
    // SAFETY: to this thread, which has a handler for it.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

#[test]
fn a_handler_of_the_hosts_keeps_its_signal_and_comes_back() {
    let _alone = alone();
    let before =
        action(libc::SIGTRAP, Some((own_handler as extern "C" fn(i32) as *const ()).addr()));
    if let Some(sampler) = start(Mechanism::PerfTrap) {
        assert_ne!(action(libc::SIGTRAP, None).sa_sigaction, own_handler as *const () as usize);
        let own = OWN.load(Relaxed);
        spin(50);
        assert_eq!(OWN.load(Relaxed), own, "the sampler's signals are not the host's");
        (0..10).for_each(|_| raise(libc::SIGTRAP));
        assert_eq!(OWN.load(Relaxed), own + 10, "the host's signals are");
        let profile = sampler.stop();
        // How many depends on how long the whole machine was stopped by its host: that is told as CPU time.
        assert!(!profile.samples.is_empty(), "{:?} by {}", profile.lost, profile.mechanism);
        let after = action(libc::SIGTRAP, None);
        assert_eq!(after.sa_sigaction, own_handler as *const () as usize);
        assert_eq!(after.sa_flags & libc::SA_NODEFER, libc::SA_NODEFER);
    }
    action(libc::SIGTRAP, Some(before.sa_sigaction));
}

/// Works until the collector, which looks many times a second, has seen that the signal has another handler: from then on, others
/// are refused. Returns the reason.
fn until_none_begins() -> String {
    let refused = (0..3_000).find_map(|_| {
        spin(1);
        Sampler::start(options(Mechanism::PerfTrap)).err()
    });
    refused.map_or_else(String::new, |why| why.to_string())
}

/// While a session goes on that has ended early, another one would sample nobody.
#[test]
fn beside_a_session_that_has_ended_early_none_begins() {
    let _alone = alone();
    let Some(first) = start(Mechanism::PerfTrap) else { return };
    action(libc::SIGTRAP, Some(own_handler as *const () as usize));
    let refused = until_none_begins();
    assert!(refused.contains("another handler"), "{refused}");
    let profile = first.stop();
    assert!(profile.mechanism.contains("ended early"), "{}", profile.mechanism);
    action(libc::SIGTRAP, Some(libc::SIG_DFL));
    let again = start(Mechanism::PerfTrap).expect("as before");
    spin(10);
    assert!(!again.stop().samples.is_empty());
}

/// The program's handler may call ours, which it has found there. In front of it, ours would call it, and so on for ever.
#[test]
fn in_front_of_a_handler_that_was_installed_over_ours_none_begins() {
    let _alone = alone();
    let before = action(libc::SIGTRAP, None).sa_sigaction;
    let Some(first) = start(Mechanism::PerfTrap) else { return };
    action(libc::SIGTRAP, Some(own_handler as *const () as usize));
    drop(first);
    let refused = Sampler::start(options(Mechanism::PerfTrap)).err();
    let why = refused.map_or_else(String::new, |why| why.to_string());
    assert!(why.contains("in front of the sampler's"), "{why}");
    // With the action from before the session, nothing of ours is behind.
    action(libc::SIGTRAP, Some(before));
    drop(Sampler::start(options(Mechanism::PerfTrap)).unwrap());
}

#[test]
fn stop_restores_every_signal() {
    let _alone = alone();
    let all = || {
        (1..=64)
            .filter(|s| ![32, 33].contains(s))
            .map(|s| action(s, None).sa_sigaction)
            .collect::<Vec<_>>()
    };
    for mechanism in Mechanism::ALL {
        let before = all();
        let Some(sampler) = start(mechanism) else { continue };
        assert_ne!(all(), before);
        // While other threads are being interrupted.
        let mut at_once = false;
        let go_on = AtomicBool::new(true);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while go_on.load(Relaxed) {
                        spin(1);
                    }
                });
            }
            spin(30);
            let profile = sampler.stop();
            at_once = all() == before;
            spin(30);
            go_on.store(false, Relaxed);
            assert!(!profile.samples.is_empty() || missed_by_ticks(&profile), "{:?}", profile.lost);
        });
        if !at_once {
            loudly(&format!("{mechanism}: on this busy machine a thread did not run in time"));
            drop(start(mechanism));
        }
        assert_eq!(all(), before, "{mechanism}");
    }
}

/// Whether it may be chance that a timer gave no samples: where a thread loses its CPU every millisecond, a tick in twenty was seen
/// to meet it.
fn missed_by_ticks(profile: &RawProfile) -> bool {
    profile.mechanism.starts_with(&Mechanism::Timer.to_string())
        && profile.process_cpu_ns < ms(1_000)
}

#[test]
fn many_starts_and_stops_among_busy_threads_do_no_harm() {
    let _alone = alone();
    for mechanism in Mechanism::ALL {
        let go_on = AtomicBool::new(true);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while go_on.load(Relaxed) {
                        // Takes the allocator's lock, which the handler must not want.
                        drop(black_box(vec![0_u8; 4_000]));
                        thread::spawn(|| black_box(vec![0_u8; 100])).join().unwrap();
                    }
                });
            }
            for _ in 0..20 {
                let mut options = options(mechanism);
                options.frequency_hz = 5_000;
                let Ok(sampler) = Sampler::start(options) else { break };
                spin(5);
                drop(sampler);
            }
            go_on.store(false, Relaxed);
        });
    }
}

#[test]
fn a_thread_that_blocks_the_signal_is_told_of() {
    let _alone = alone();
    let Some(sampler) = start(Mechanism::PerfTrap) else { return };
    let (tell, told) = std::sync::mpsc::channel();
    let go_on = AtomicBool::new(true);
    let profile = thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: a set of ours, filled in before use.
            unsafe {
                let mut set = std::mem::zeroed();
                libc::sigfillset(&raw mut set);
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            }
            spin(200);
            tell.send(gettid()).unwrap();
            while go_on.load(SeqCst) {
                thread::yield_now();
            }
        });
        let deaf = told.recv().unwrap();
        let profile = sampler.stop();
        go_on.store(false, SeqCst);
        assert!(of_thread(&profile, deaf).all(|sample| sample.stack.is_empty()));
        // By the clock it has what it used, and none of it is taken for the kernel's.
        let own = profile.unmet.iter().filter(|unmet| unmet.thread == Some(deaf));
        let own: Vec<_> = own.collect();
        assert!(own.iter().all(|unmet| !unmet.kernel), "{own:?}");
        assert!(own.iter().map(|unmet| unmet.cpu_ns).sum::<u64>() > ms(150), "{own:?}");
        profile
    });
    assert_eq!(profile.lost.threads_not_sampled, 1, "{:?}", profile.lost);
    assert!(profile.remarks[0].contains("blocks the sampler's signals"), "{:?}", profile.remarks);
    // Its signal is pending when sampling ends: the handler must have stayed until then, and may go now.
    drop(Sampler::start(options(Mechanism::PerfTrap)).unwrap());
    assert_eq!(action(libc::SIGTRAP, None).sa_sigaction, libc::SIG_DFL);
}

/// Runs one test of this module in a process of its own, where `variable` is set.
fn in_a_child(test: &str, variable: &str) -> std::process::ExitStatus {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &format!("signals::{test}"), "--nocapture"]).env(variable, "1");
    child.output().unwrap().status
}

#[test]
fn a_trap_of_the_programs_own_ends_it_as_it_would_have() {
    const CHILD: &str = "PERTASK_TEST_TRAPS";
    if std::env::var_os(CHILD).is_some() {
        let sampler = start(Mechanism::PerfTrap);
        spin(20);
        raise(libc::SIGTRAP);
        drop(sampler);
        return;
    }
    let _alone = alone();
    let status = in_a_child("a_trap_of_the_programs_own_ends_it_as_it_would_have", CHILD);
    assert_eq!(status.signal(), Some(libc::SIGTRAP), "{status}");
}

#[test]
fn a_forked_child_is_not_sampled_and_ends_as_it_should() {
    const CHILD: &str = "PERTASK_TEST_FORKS";
    if std::env::var_os(CHILD).is_some() {
        let sampler = start(Mechanism::PerfTrap);
        spin(20);
        // SAFETY: the child calls what is allowed after a fork, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            spin(50);
            drop(sampler);
            // SAFETY: ends the child.
            unsafe { libc::_exit(7) };
        }
        let status = wait_for_child(child);
        assert_eq!(libc::WEXITSTATUS(status), 7);
        let samples = sampler.map_or(usize::MAX, |sampler| sampler.stop().samples.len());
        assert!(samples > 5, "the parent's go on");
        return;
    }
    let _alone = alone();
    let status = in_a_child("a_forked_child_is_not_sampled_and_ends_as_it_should", CHILD);
    assert!(status.success(), "{status}");
}

#[test]
fn who_takes_the_signal_over_is_not_sent_ours() {
    let _alone = alone();
    let Some(sampler) = start(Mechanism::PerfTrap) else { return };
    spin(50);
    let own = (own_handler as extern "C" fn(i32) as *const ()).addr();
    action(libc::SIGTRAP, Some(own));
    assert!(until_none_begins().contains("another handler"));
    let came = OWN.load(Relaxed);
    spin(200);
    assert_eq!(OWN.load(Relaxed), came, "samples still go to the host's handler");
    let profile = sampler.stop();
    assert!(profile.mechanism.contains("another handler"), "{}", profile.mechanism);
    assert_eq!(action(libc::SIGTRAP, None).sa_sigaction, own, "the host's handler stays");
    action(libc::SIGTRAP, Some(libc::SIG_DFL));
}
