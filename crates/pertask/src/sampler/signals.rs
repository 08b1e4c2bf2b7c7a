//! Signals of threads: to which threads a signal is under way, and what the collector blocks.

use crate::os::clock;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::{Duration, Instant};

/// Blocks all signals on the calling thread, except those of its own faults, so that the process's signals go to other threads.
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
    // SAFETY: `sigfillset` initialises the set, which is memory of this function's own, before other calls use it.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        FAULTS.iter().for_each(|signal| {
            libc::sigdelset(set.as_mut_ptr(), *signal);
        });
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut());
    }
}

/// Unblocks a signal on the calling thread.
pub(super) fn unblock(signal: i32) {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set, which is memory of this function's own, before other calls use it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
    }
}

/// Waits until the signal is under way to none of these threads. Returns false if that takes longer than `patience`. The caller
/// has disarmed the threads, so that no new signal is sent.
///
/// The kernel does not send a perf event's signal when the event overflows, but when the thread is next about to return to user
/// mode. If the thread is preempted just then, the signal is visible nowhere, even after the event was closed. So this waits
/// until a thread that could run has run.
pub(super) fn settle(signal: i32, threads: impl Iterator<Item = u32>, patience: Duration) -> bool {
    let this = this_thread();
    // Signals to this thread came when its last system call returned.
    let others = threads.filter(|thread| *thread != this);
    let mut waiting: Vec<_> = others.filter_map(Unsettled::new).collect();
    let start = Instant::now();
    loop {
        waiting.retain(|thread| !thread.is_settled(signal));
        if waiting.is_empty() {
            return true;
        }
        if start.elapsed() > patience {
            return false;
        }
        std::thread::yield_now();
    }
}

/// A thread to which a signal may be under way.
struct Unsettled {
    thread: u32,
    cpu_ns: u64,
}

impl Unsettled {
    /// Begins to watch a thread. Returns `None` if the thread has ended.
    fn new(thread: u32) -> Option<Self> {
        Some(Self { thread, cpu_ns: clock::cpu_ns_of_thread(thread)? })
    }

    /// Whether the signal can no longer be under way to the thread.
    fn is_settled(&self, signal: i32) -> bool {
        // More than the way from a switch to user mode takes.
        const ENOUGH_NS: u64 = 100_000;
        let Some(now_ns) = clock::cpu_ns_of_thread(self.thread) else { return true };
        // The status is read after the clock, so that it shows a signal that was sent before that.
        let Some(status) = Status::of(self.thread) else { return false };
        let has_run = now_ns - self.cpu_ns >= ENOUGH_NS || !status.may_run();
        has_run && !status.has("SigPnd:", signal)
    }
}

/// Whether an error of reading a thread's file means that the thread has ended. Without `/proc` no thread has a file, so the kernel
/// is asked for the thread itself.
pub(super) fn says_ended(thread: u32, why: &io::Error) -> bool {
    matches!(why.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) && !lives(thread)
}

/// The kernel's number of the calling thread.
pub(super) fn this_thread() -> u32 {
    // SAFETY: `gettid` takes no arguments and touches no memory.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// Whether the process has a thread with this number.
pub(super) fn lives(thread: u32) -> bool {
    // SAFETY: signal 0 is none: the kernel only looks for the thread.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread.cast_signed(), 0) };
    sent == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// The kernel's status of a thread. It is empty if the thread has ended.
struct Status(String);

impl Status {
    /// Reads the status of a thread. Returns `None` if the file cannot be read for another reason than the thread's end, such
    /// as a lack of file descriptors.
    fn of(thread: u32) -> Option<Self> {
        match std::fs::read(format!("/proc/self/task/{thread}/status")) {
            Ok(text) => Some(Self(String::from_utf8_lossy(&text).into_owned())),
            Err(why) => says_ended(thread, &why).then(|| Self(String::new())),
        }
    }

    /// Whether the thread runs, or only waits for a CPU.
    fn may_run(&self) -> bool {
        let state = self.0.lines().find_map(|line| line.strip_prefix("State:"));
        state.is_some_and(|state| state.trim_start().starts_with('R'))
    }

    /// Whether the set with this name has the signal.
    fn has(&self, name: &str, signal: i32) -> bool {
        let set = self.0.lines().find_map(|line| line.strip_prefix(name));
        let bits = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
        bits >> (signal - 1) & 1 == 1
    }
}

/// The size in bytes to which the first thread's stack may grow.
pub(super) fn main_stack_limit() -> u64 {
    const USUAL: u64 = 8 << 20;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`, into memory of this function's own.
    unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) };
    limit.rlim_cur.min(USUAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_seen_to_be_pending() {
        let signal = libc::SIGUSR2;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                block_all_but_faults();
                // SAFETY: the signal goes to this very thread, which blocks it. The other calls take no arguments.
                let me = unsafe {
                    libc::pthread_kill(libc::pthread_self(), signal);
                    libc::gettid().cast_unsigned()
                };
                assert!(Status::of(me).unwrap().has("SigPnd:", signal));
                let settles = || settle(signal, [me].into_iter(), Duration::ZERO);
                assert!(!std::thread::scope(|scope| scope.spawn(settles).join().unwrap()));
            });
            thread.join().unwrap();
        });
    }

    #[test]
    fn a_thread_that_could_run_must_have_run_and_one_that_sleeps_need_not() {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // SAFETY: `gettid` takes no arguments and touches no memory.
                tell.send(unsafe { libc::gettid() }.cast_unsigned()).unwrap();
                stopped.recv().unwrap_err();
            });
            let sleeper = told.recv().unwrap();
            assert!(settle(libc::SIGUSR2, [sleeper].into_iter(), Duration::from_secs(5)));
            drop(stop);
        });
        // SAFETY: `gettid` takes no arguments and touches no memory.
        let me = unsafe { libc::gettid() }.cast_unsigned();
        let mut unsettled = Unsettled::new(me).unwrap();
        assert!(!unsettled.is_settled(libc::SIGUSR2), "it runs, and has not run for long");
        unsettled.cpu_ns = 0;
        let start_ns = clock::thread_cpu_ns();
        while clock::thread_cpu_ns() - start_ns < 1_000_000 {}
        assert!(unsettled.is_settled(libc::SIGUSR2));
    }
}
