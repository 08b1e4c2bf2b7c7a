//! An event that signals its thread each time the thread has used so much CPU time.

use super::{Attr, Refused, What, open};
use perf_event_open_sys as sys;
use std::fs::File;
use std::os::fd::AsRawFd;

/// How the thread is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// By the event itself: SIGTRAP, which carries this number.
    Trap(u64),
    /// By the event's file, which is told to send this signal; it carries the file's descriptor.
    Signal(i32),
}

/// A CPU clock of one thread, open until it is dropped. It runs while the thread is on a CPU, and tells of the moments
/// at which the thread is in user mode.
#[derive(Debug)]
pub(crate) struct Overflow(File);

impl Overflow {
    /// Opens one for a thread of this process, and starts it.
    pub(crate) fn open(thread: u32, period_ns: u64, notice: Notice) -> Result<Self, Refused> {
        let mut attr = attr(period_ns);
        if let Notice::Trap(number) = notice {
            attr.set_sigtrap(1);
            // The kernel insists: what the new program would do with the signal, nobody knows.
            attr.set_remove_on_exec(1);
            attr.sig_data = number;
        }
        let event = Self(open(&mut attr, thread, None)?);
        if let Notice::Signal(signal) = notice {
            event.own(thread, signal)?;
        }
        event.start()?;
        Ok(event)
    }

    /// Makes the file send `signal` to the thread alone.
    fn own(&self, thread: u32, signal: i32) -> Result<(), Refused> {
        const F_SETSIG: i32 = 10;
        const F_SETOWN_EX: i32 = 15;
        const F_OWNER_TID: i32 = 0;
        #[repr(C)]
        struct Owner {
            kind: i32,
            number: i32,
        }
        let owner = Owner { kind: F_OWNER_TID, number: thread.cast_signed() };
        let fd = self.0.as_raw_fd();
        // SAFETY: our descriptor, and an owner that the kernel reads during the call.
        let refused = unsafe {
            libc::fcntl(fd, F_SETOWN_EX, &raw const owner) < 0
                || libc::fcntl(fd, F_SETSIG, signal) < 0
                || libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK | libc::O_ASYNC) < 0
        };
        if refused { Err(Refused::last()) } else { Ok(()) }
    }

    fn start(&self) -> Result<(), Refused> {
        // SAFETY: an ioctl without memory, on an event of ours.
        let started = unsafe { sys::ioctls::ENABLE(self.0.as_raw_fd(), 0) };
        if started < 0 { Err(Refused::last()) } else { Ok(()) }
    }

    /// The descriptor that its signals carry.
    pub(crate) fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

impl Drop for Overflow {
    /// Closing the file alone would not end it: a forked child may have it open, too.
    fn drop(&mut self) {
        // SAFETY: an ioctl without memory, on an event of ours. What it says is of no use: there is nothing else to be done.
        unsafe { sys::ioctls::DISABLE(self.0.as_raw_fd(), 0) };
    }
}

fn attr(period_ns: u64) -> Attr {
    let clock = What {
        kind: sys::bindings::PERF_TYPE_SOFTWARE,
        config: sys::bindings::PERF_COUNT_SW_CPU_CLOCK.into(),
        user: true,
        // Without privilege there is no other way. With it, a moment in a system call that then sleeps would be told when the
        // call is over: after the session, if it comes to that, when nobody expects the signal any more, and it kills.
        kernel: false,
    };
    let mut attr = clock.attr();
    attr.set_disabled(1);
    attr.__bindgen_anon_1.sample_period = period_ns;
    attr.__bindgen_anon_2.wakeup_events = 1;
    attr
}
