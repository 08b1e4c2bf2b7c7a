//! An event that signals its thread each time the thread has used a period of CPU time.

use super::{Attr, Refused, What, open};
use perf_event_open_sys as sys;
use std::fs::File;
use std::os::fd::AsRawFd;

/// How the event signals its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The event itself sends SIGTRAP, which carries this number.
    Trap(u64),
    /// The event's file sends this signal, which carries the file's descriptor.
    Signal(i32),
}

/// An event on the CPU clock of one thread, open until it is dropped. The clock runs while the thread is on a CPU. The event
/// signals only at moments at which the thread is in user mode.
#[derive(Debug)]
pub(crate) struct Overflow(File);

impl Overflow {
    /// Opens an event for a thread of this process, and starts it.
    pub(crate) fn open(thread: u32, period_ns: u64, notice: Notice) -> Result<Self, Refused> {
        let mut attr = attr(period_ns);
        if let Notice::Trap(number) = notice {
            attr.set_sigtrap(1);
            // The kernel demands this, because nobody knows what the new program would do with the signal.
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
        // SAFETY: the descriptor is of an event that `self` owns, and the kernel reads the owner only during the call.
        let refused = unsafe {
            libc::fcntl(fd, F_SETOWN_EX, &raw const owner) < 0
                || libc::fcntl(fd, F_SETSIG, signal) < 0
                || libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK | libc::O_ASYNC) < 0
        };
        if refused { Err(Refused::last()) } else { Ok(()) }
    }

    fn start(&self) -> Result<(), Refused> {
        // SAFETY: this ioctl touches no memory, and the descriptor is of an event that `self` owns.
        let started = unsafe { sys::ioctls::ENABLE(self.0.as_raw_fd(), 0) };
        if started < 0 { Err(Refused::last()) } else { Ok(()) }
    }

    /// The descriptor that the event's signals carry.
    pub(crate) fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

impl Drop for Overflow {
    /// Disables the event. To close the file would not be enough, because a forked child may have it open, too.
    fn drop(&mut self) {
        // SAFETY: this ioctl touches no memory, and the descriptor is of an event that `self` owns. Its result is of no use,
        // because nothing else could be done.
        unsafe { sys::ioctls::DISABLE(self.0.as_raw_fd(), 0) };
    }
}

fn attr(period_ns: u64) -> Attr {
    let clock = What {
        kind: sys::bindings::PERF_TYPE_SOFTWARE,
        config: sys::bindings::PERF_COUNT_SW_CPU_CLOCK.into(),
        user: true,
        // An unprivileged process cannot choose otherwise. A privileged one must not: if the event overflowed in a system call
        // that then sleeps, the signal would come when the call is over. That may be after the session, when no handler expects
        // the signal any more, and it would end the process.
        kernel: false,
    };
    let mut attr = clock.attr();
    attr.set_disabled(1);
    attr.__bindgen_anon_1.sample_period = period_ns;
    attr.__bindgen_anon_2.wakeup_events = 1;
    attr
}
