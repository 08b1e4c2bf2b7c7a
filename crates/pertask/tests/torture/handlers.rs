//! Hosts with signal handlers of their own: those from before, those that come in between, and other profilers.

use crate::harness::{
    HZ, action, all_handlers, check_sums, options, rounds, set_action, skip, spin, start, stop,
    torture,
};
use pertask::sampler::{Mechanism, Sampler};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

/// Signals that came to the host's own handler, by number.
static CAME: [AtomicU64; 65] = [const { AtomicU64::new(0) }; 65];

/// Of those, how many came without having been sent by this very process.
static FOREIGN: AtomicU64 = AtomicU64::new(0);

extern "C" fn own(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    CAME[signal as usize].fetch_add(1, Relaxed);
    // SAFETY: what the kernel gave.
    let code = unsafe { (*info).si_code };
    if ![libc::SI_TKILL, libc::SI_USER, libc::SI_KERNEL].contains(&code) {
        FOREIGN.fetch_add(1, Relaxed);
    }
}

fn own_address() -> usize {
    (own as extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) as *const ()).addr()
}

fn came(signal: i32) -> u64 {
    CAME[signal as usize].load(Relaxed)
}

fn raise(signal: i32) {
    // SAFETY: to this thread, which has a handler for it, or needs none.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

/// All that a program may handle, but for what faults raise.
fn own_signals() -> impl Iterator<Item = i32> {
    let not_ours = [
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGABRT,
        32,
        33,
    ];
    (1..=64).filter(move |signal| !not_ours.contains(signal))
}

#[test]
fn every_signal_has_a_handler_of_the_hosts() {
    torture(|mechanism| {
        own_signals().for_each(|signal| set_action(signal, own_address(), libc::SA_SIGINFO));
        let before = all_handlers();
        for round in 1..=rounds(3) as u64 {
            let Some(sampler) = start(mechanism) else { return };
            spin(20);
            for signal in own_signals() {
                raise(signal);
                assert!(came(signal) >= round, "{mechanism}: signal {signal} is the host's");
            }
            thread::spawn(|| spin(10)).join().unwrap();
            stop(sampler);
            assert_eq!(all_handlers(), before);
            assert!(action(libc::SIGTRAP).sa_flags & libc::SA_SIGINFO != 0);
        }
        assert_eq!(FOREIGN.load(Relaxed), 0, "the host's handlers get none of ours");
    });
}

/// A stray signal that is ignored by default is ignored, and harms no session.
#[test]
fn strays_that_nobody_handles() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        for _ in 0..rounds(20) {
            [libc::SIGURG, libc::SIGCHLD, libc::SIGWINCH, libc::SIGCONT]
                .into_iter()
                .for_each(raise);
            spin(1);
        }
        let profile = stop(sampler);
        assert!(!profile.mechanism.contains("ended early"), "{}", profile.mechanism);
    });
}

/// The host takes our signal over, whatever for, and is not ended by it.
fn taken_over(mechanism: Mechanism, handler: usize) {
    for _ in 0..rounds(3) {
        let before = all_handlers();
        let Some(sampler) = start(mechanism) else { return };
        spin(10);
        let now = all_handlers();
        let ours =
            (1..=64).filter(|signal| ![32, 33].contains(signal)).zip(before.iter().zip(&now));
        let ours: Vec<i32> =
            ours.filter(|(_, (before, now))| before != now).map(|(signal, _)| signal).collect();
        assert_eq!(ours.len(), 1);
        set_action(ours[0], handler, libc::SA_SIGINFO);
        // Until the collector has seen it, and longer.
        spin(60);
        let profile = sampler.stop();
        check_sums(&profile);
        assert!(profile.mechanism.contains("another handler"), "{}", profile.mechanism);
        assert_eq!(action(ours[0]).sa_sigaction, handler, "the host's stays");
        spin(20);
        set_action(ours[0], libc::SIG_DFL, 0);
        spin(5);
    }
}

#[test]
fn the_host_puts_a_handler_in_our_place() {
    torture(|mechanism| taken_over(mechanism, own_address()));
}

#[test]
fn the_host_ignores_our_signal() {
    torture(|mechanism| taken_over(mechanism, libc::SIG_IGN));
}

/// With SIGTRAP this ends the process, as is documented: so it is not tried.
#[test]
fn the_host_gives_our_signal_its_default_back() {
    torture(|mechanism| match mechanism {
        Mechanism::PerfTrap => {}
        _ => taken_over(mechanism, libc::SIG_DFL),
    });
}

#[test]
fn beside_an_interval_timer_of_the_hosts() {
    torture(|mechanism| {
        set_action(libc::SIGPROF, own_address(), libc::SA_SIGINFO | libc::SA_RESTART);
        let every = libc::timeval { tv_sec: 0, tv_usec: 1_000 };
        let times = libc::itimerval { it_interval: every, it_value: every };
        // SAFETY: times to read.
        unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const times, std::ptr::null_mut()) };
        let Some(sampler) = start(mechanism) else { return };
        thread::scope(|scope| {
            (0..3).for_each(|_| drop(scope.spawn(|| spin(60))));
        });
        // The kernel looks at it once a tick, too, and few ticks meet a thread that waits for its turn.
        let comes = |before: u64| {
            (0..10_000).any(|_| {
                spin(1);
                came(libc::SIGPROF) > before
            })
        };
        assert!(comes(0), "the host's timer goes on");
        stop(sampler);
        assert!(comes(came(libc::SIGPROF)), "afterwards too");
        assert_eq!(action(libc::SIGPROF).sa_sigaction, own_address());
    });
}

#[test]
fn beside_perf() {
    torture(|mechanism| {
        let target = std::process::id().to_string();
        let args =
            ["record", "-qN", "-e", "cpu-clock", "-F", "999", "-o", "/dev/null", "-p", &target];
        let mut perf = Command::new("perf");
        perf.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut perf = match perf.spawn() {
            Ok(perf) => perf,
            Err(why) => return skip(&format!("perf: {why}")),
        };
        for _ in 0..rounds(3) {
            let Some(sampler) = start(mechanism) else { break };
            thread::spawn(|| spin(30)).join().unwrap();
            spin(30);
            stop(sampler);
        }
        let early = perf.try_wait().unwrap();
        // SAFETY: a child of ours that has not been waited for.
        unsafe { libc::kill(perf.id().cast_signed(), libc::SIGINT) };
        perf.wait().unwrap();
        if let Some(status) = early {
            skip(&format!("perf cannot record here: {status}"));
        }
    });
}

#[test]
fn two_sessions_at_different_rates() {
    torture(|mechanism| {
        let Some(first) = start(mechanism) else { return };
        for (round, hertz) in [1, 5_000, 7, 99].into_iter().cycle().take(rounds(8)).enumerate() {
            let second = Sampler::start(options(mechanism, hertz)).unwrap();
            spin(10);
            // Some are dropped and not stopped.
            if round % 3 == 0 { drop(second) } else { check_sums(&second.stop()) }
        }
        stop(first);
        assert_eq!(HZ, 4_000);
    });
}
