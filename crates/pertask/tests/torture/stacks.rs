//! Stacks: deep ones, used up ones, and those that a handler has of its own.

use crate::harness::{HZ, rounds, set_action, spin, start, start_with, stop, torture, torture_how};
use pertask::sampler::{Mechanism, SamplerOptions};
use std::hint::black_box;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;

/// An alternate stack of this thread's, until it is dropped.
struct Alternate {
    memory: Vec<u8>,
    before: libc::stack_t,
}

impl Alternate {
    fn new(bytes: usize) -> Self {
        let mut memory = vec![0_u8; bytes];
        let stack =
            libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: bytes };
        // SAFETY: numbers and a pointer, which the kernel fills in.
        let mut before = unsafe { std::mem::zeroed() };
        // SAFETY: memory that stays until the old stack is back.
        assert_eq!(unsafe { libc::sigaltstack(&raw const stack, &raw mut before) }, 0);
        Self { memory, before }
    }

    fn range(&self) -> Range<usize> {
        let range = self.memory.as_ptr_range();
        range.start.addr()..range.end.addr()
    }
}

impl Drop for Alternate {
    fn drop(&mut self) {
        // SAFETY: what was there before.
        assert_eq!(unsafe { libc::sigaltstack(&raw const self.before, ptr::null_mut()) }, 0);
    }
}

#[inline(never)]
fn down(levels: u64) -> u64 {
    let frame = black_box([levels; 16]);
    if levels == 0 {
        return frame[0];
    }
    down(levels - 1) + black_box(frame)[7]
}

#[test]
fn as_deep_as_the_stack_allows_and_up_again() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        for _ in 0..rounds(40) {
            let deep = || (0..20).map(|_| down(5_000)).fold(0, u64::wrapping_add);
            let thread = thread::Builder::new().stack_size(4 << 20).spawn(deep).unwrap();
            black_box(thread.join().unwrap());
        }
        stop(sampler);
    });
}

/// A thread that overflows its stack ends the program as it always does, or by the signal for which there is no room.
#[test]
fn over_the_end() {
    torture_how(
        |mechanism| {
            let Some(_sampler) = start(mechanism) else { return };
            #[allow(unconditional_recursion, reason = "it is what is tested")]
            #[inline(never)]
            fn forever(level: u64) -> u64 {
                let frame = black_box([level; 8]);
                spin(0);
                forever(level + 1) + black_box(frame)[3]
            }
            let endless = thread::spawn(|| forever(0));
            black_box(endless.join().is_ok());
        },
        |mechanism, ending| {
            let as_usual = ending.output.contains("has overflowed its stack")
                && ending.signal() == Some(libc::SIGABRT);
            let told = format!("{mechanism}: {}\n{}", ending.status, ending.output);
            let without_room = ending.signal() == Some(libc::SIGSEGV);
            assert!(ending.skipped() || as_usual || without_room, "{told}");
        },
    );
}

/// Such as Go's, in threads whose own stack is too small for any handler.
#[test]
fn a_handler_of_the_same_signal_on_a_stack_of_its_own() {
    static CAME_FROM: AtomicUsize = AtomicUsize::new(0);
    torture(|mechanism| {
        extern "C" fn earlier(_: i32) {
            let marker = 0_u8;
            // Relaxed: the same thread looks.
            CAME_FROM.store((&raw const marker).addr(), Relaxed);
        }
        let alternate = Alternate::new(256 << 10);
        for signal in [libc::SIGTRAP, libc::SIGURG] {
            set_action(signal, earlier as *const () as usize, libc::SA_ONSTACK);
        }
        if let Some(sampler) = start(mechanism) {
            spin(20);
            for signal in [libc::SIGTRAP, libc::SIGURG] {
                CAME_FROM.store(0, Relaxed);
                // SAFETY: to this thread, which has a handler for it.
                assert_eq!(unsafe { libc::raise(signal) }, 0);
                let on = CAME_FROM.load(Relaxed);
                assert!(alternate.range().contains(&on), "{on:#x}");
            }
            let profile = stop(sampler);
            assert!(profile.mechanism.contains("alternate stacks"), "{}", profile.mechanism);
            let whole = profile.samples.iter().any(|sample| sample.complete);
            assert!(whole || profile.samples.is_empty(), "{:?}", profile.lost);
        }
        drop(alternate);
    });
}

/// Where one signal's handler is on an alternate stack, which may be small, and another's is not, the other is used.
#[test]
fn a_way_without_alternate_stacks_is_taken_before_one_with_them() {
    torture(|mechanism| {
        extern "C" fn earlier(_: i32) {}
        let Mechanism::PerfTrap = mechanism else { return };
        set_action(libc::SIGTRAP, earlier as *const () as usize, libc::SA_ONSTACK);
        let Some(sampler) = start_with(SamplerOptions::with_frequency(HZ)) else { return };
        let profile = stop(sampler);
        let (way, why) = profile.mechanism.split_once("; not ").unwrap_or_default();
        assert!(!way.contains("SIGTRAP") && !way.contains("alternate"), "{}", profile.mechanism);
        assert!(why.contains("SIGTRAP") && why.contains("alternate stack"), "{why}");
    });
}

/// A handler on a stack that has no room for a second signal runs so long that its thread seems to block SIGTRAP for good. No other
/// signal may come there either.
#[test]
fn a_long_handler_on_the_smallest_stack() {
    torture(|mechanism| {
        extern "C" fn long(_: i32) {
            spin(100);
        }
        let Mechanism::PerfTrap = mechanism else { return };
        let alternate = Alternate::new(6 << 10);
        set_action(libc::SIGUSR1, long as *const () as usize, libc::SA_ONSTACK);
        // Whatever mechanism is the best.
        if let Some(sampler) = start_with(SamplerOptions::with_frequency(HZ)) {
            for _ in 0..rounds(3) {
                // SAFETY: to this thread, which has a handler for it.
                assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
                spin(1);
            }
            stop(sampler);
        }
        drop(alternate);
    });
}

/// The host's own handler runs on a stack of its own, for a long time.
#[test]
fn a_handler_on_a_stack_of_its_own() {
    torture(|mechanism| {
        extern "C" fn long(_: i32) {
            for round in 0..3_000_000_u64 {
                black_box(round);
            }
        }
        let alternate = Alternate::new(64 << 10);
        set_action(libc::SIGUSR1, long as *const () as usize, libc::SA_ONSTACK);
        if let Some(sampler) = start(mechanism) {
            for _ in 0..rounds(10) {
                // SAFETY: to this thread, which has a handler for it.
                assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
                spin(1);
            }
            stop(sampler);
        }
        drop(alternate);
    });
}

/// While ours is on the sampler's stack, the kernel takes the alternate stack for unused, and would put the next signal where ours
/// has come from. The earlier handler has the mask that it asked for.
#[test]
fn another_signal_on_the_alternate_stack_comes_while_ours_is_at_work() {
    static CAME: AtomicU64 = AtomicU64::new(0);
    extern "C" fn earlier(signal: i32) {
        // SAFETY: numbers, which the kernel fills in.
        let mut blocked = unsafe { std::mem::zeroed() };
        // SAFETY: asks for this thread's mask.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut blocked) };
        // SAFETY: as above.
        let blocked = |signal| unsafe { libc::sigismember(&raw const blocked, signal) } == 1;
        // Relaxed: the same thread looks.
        let right = blocked(signal) && !blocked(libc::SIGUSR2) && !blocked(libc::SIGTERM);
        CAME.store(u64::from(right), Relaxed);
    }
    extern "C" fn other(_: i32) {
        // Relaxed: a count.
        CAME.fetch_add(1, Relaxed);
    }
    torture(|mechanism| {
        for signal in [libc::SIGTRAP, libc::SIGURG] {
            set_action(signal, earlier as *const () as usize, libc::SA_ONSTACK);
        }
        set_action(libc::SIGUSR2, other as *const () as usize, libc::SA_ONSTACK);
        let Some(sampler) = start(mechanism) else { return };
        for signal in [libc::SIGTRAP, libc::SIGURG] {
            // SAFETY: to this thread, which has a handler for it.
            assert_eq!(unsafe { libc::raise(signal) }, 0);
            assert_eq!(CAME.swap(0, Relaxed), 1, "the mask is another than it asked for");
        }
        let alternate = Alternate::new(64 << 10);
        let go_on = AtomicBool::new(true);
        // SAFETY: asks for a number.
        let busy = unsafe { libc::pthread_self() };
        thread::scope(|scope| {
            scope.spawn(|| {
                // Relaxed: nothing depends on when it is seen.
                while go_on.load(Relaxed) {
                    // SAFETY: the thread waits for this one, and has a handler for the signal.
                    unsafe { libc::pthread_kill(busy, libc::SIGUSR2) };
                }
            });
            spin(rounds(500) as u64);
            go_on.store(false, Relaxed);
        });
        drop(alternate);
        assert!(CAME.load(Relaxed) > 0);
        let profile = stop(sampler);
        assert!(profile.mechanism.contains("alternate stacks"), "{}", profile.mechanism);
    });
}
