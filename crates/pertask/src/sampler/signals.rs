//! Signals of threads: who blocks which, and which are under way.

use std::mem::MaybeUninit;
use std::ptr;

/// Leaves the process's signals to its other threads. What the thread's own faults raise cannot be left to others.
pub(super) fn block_all_but_faults() {
    const FAULTS: [i32; 7] = [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGABRT,
        libc::SIGSYS,
        libc::SIGTRAP,
    ];
    let mut set = MaybeUninit::uninit();
    // SAFETY: a set of ours, filled in before it is used.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        FAULTS.iter().for_each(|signal| {
            libc::sigdelset(set.as_mut_ptr(), *signal);
        });
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut());
    }
}

/// Lets a signal reach the calling thread.
pub(super) fn unblock(signal: i32) {
    let mut set = MaybeUninit::uninit();
    // SAFETY: as above.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
    }
}

/// Whether the signal waits to be delivered to any thread. While threads end, one may be overlooked: it ends.
pub(super) fn is_pending(signal: i32) -> bool {
    let pending = |thread| {
        let of = |name| Status::of(thread).has(name, signal);
        of("SigPnd:") || of("ShdPnd:")
    };
    crate::threads::numbers().into_iter().any(pending)
}

/// How many of these threads block the signal.
pub(super) fn that_block(signal: i32, threads: impl Iterator<Item = u32>) -> u64 {
    threads.filter(|thread| Status::of(*thread).has("SigBlk:", signal)).count() as u64
}

/// What the kernel tells of a thread; empty when it has ended.
struct Status(String);

impl Status {
    fn of(thread: u32) -> Self {
        let text = std::fs::read(format!("/proc/self/task/{thread}/status")).unwrap_or_default();
        Self(String::from_utf8_lossy(&text).into_owned())
    }

    /// Whether the set of that name holds the signal.
    fn has(&self, name: &str, signal: i32) -> bool {
        let set = self.0.lines().find_map(|line| line.strip_prefix(name));
        let bits = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
        bits >> (signal - 1) & 1 == 1
    }
}

/// How far down the first thread's stack may grow.
pub(super) fn main_stack_limit() -> u64 {
    const USUAL: u64 = 8 << 20;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit, which is ours.
    unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) };
    limit.rlim_cur.min(USUAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_seen_to_be_blocked_and_pending() {
        let signal = libc::SIGUSR2;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                block_all_but_faults();
                // SAFETY: no arguments; a signal to this very thread, which blocks it.
                let me = unsafe {
                    libc::pthread_kill(libc::pthread_self(), signal);
                    libc::gettid().cast_unsigned()
                };
                assert!(Status::of(me).has("SigPnd:", signal));
                assert!(is_pending(signal));
                assert_eq!(that_block(signal, [me].into_iter()), 1);
                assert_eq!(that_block(libc::SIGSEGV, [me].into_iter()), 0);
            });
            thread.join().unwrap();
        });
        assert!(!is_pending(signal), "the thread has ended, and its signal with it");
    }
}
