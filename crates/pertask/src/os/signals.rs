//! The process's signals are for the program's own threads. One of pertask's that does not block a signal could get it instead of whoever waits for it,
//! and the signal's default action would end the program.

use std::mem::MaybeUninit;
use std::ptr;

/// The signals of a thread's own faults.
const FAULTS: [i32; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGSYS,
    libc::SIGTRAP,
];

/// Blocks all signals on the calling thread, except those of its own faults.
pub(crate) fn block_all_but_faults() {
    block_all_but(&[]);
}

/// The same for a thread that can be sampled like others.
#[cfg(feature = "agent")]
pub(crate) fn block_all_but_faults_and_samples() {
    block_all_but(&[libc::SIGURG, libc::SIGPROF]);
}

fn block_all_but(others: &[i32]) {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigfillset` initialises the set, which is memory of this function's own, before other calls use it.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        FAULTS.iter().chain(others).for_each(|signal| {
            libc::sigdelset(set.as_mut_ptr(), *signal);
        });
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut());
    }
}
