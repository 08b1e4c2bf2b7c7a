//! The process's signals are for the program's own threads.

use std::mem::MaybeUninit;
use std::ptr;

/// Those of a thread's own faults, and those with which profilers interrupt it.
const OWN: [i32; 9] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGSYS,
    libc::SIGTRAP,
    libc::SIGURG,
    libc::SIGPROF,
];

/// Blocks the process's signals on this thread, and on those that it starts: for threads that a [`Service`](crate::Service) starts.
///
/// A program may block a signal on its threads and wait for it. A thread that does not block it would get it instead, and the signal's default
/// action would end the program. Those of a thread's own faults are not blocked, nor are SIGURG, SIGPROF and SIGTRAP, with which profilers
/// interrupt it.
pub fn leave_signals_to_the_program() {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigfillset` initialises the set, which is memory of this function's own, before other calls use it.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        OWN.iter().for_each(|signal| {
            libc::sigdelset(set.as_mut_ptr(), *signal);
        });
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut());
    }
}
