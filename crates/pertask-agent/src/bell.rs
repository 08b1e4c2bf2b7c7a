//! What wakes a sleeping thread of the server when the server stops. Once rung, it stays so.

use crate::stream::{after, timespec};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The bell.
#[derive(Debug)]
pub(crate) struct Bell {
    event: OwnedFd,
    /// A program that gives up all its descriptors for good, by setting their limit to 0, has no `poll` any more.
    is_rung: AtomicBool,
}

/// The pause after the kernel has refused to wait.
const PAUSE: Duration = Duration::from_millis(100);

/// What a sleep has ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The server stops.
    Rung,
    /// There is something to read, or the other side is gone.
    Ready,
    TimeIsUp,
    /// Somebody has closed a descriptor that is not his, as a program does that becomes a daemon. Its number may be another file's by now.
    Closed,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, is_rung: AtomicBool::new(false) })
    }

    pub(crate) fn ring(&self) {
        // Release: whom the event has woken sees it, by `is_rung`.
        self.is_rung.store(true, Ordering::Release);
        // It fails only if it was rung 2^64 times.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Sleeps until the bell rings.
    pub(crate) fn sleep(&self, time: Duration) -> Woken {
        self.poll(&mut [PollFd::new(&self.event, PollFlags::IN)], Some(after(time)))
    }

    /// Sleeps until the bell rings, or there is something to read.
    pub(crate) fn sleep_until_ready(&self, other: &impl AsFd) -> Woken {
        let other = PollFd::from_borrowed_fd(other.as_fd(), PollFlags::IN);
        self.poll(&mut [PollFd::new(&self.event, PollFlags::IN), other], None)
    }

    fn poll(&self, fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> Woken {
        loop {
            let rest = |until: Instant| timespec(until.saturating_duration_since(Instant::now()));
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Woken::TimeIsUp;
            }
            match poll(fds, deadline.map(rest).as_ref()) {
                Ok(0) => return Woken::TimeIsUp,
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(_) if self.is_rung() => return Woken::Rung,
                Err(_) => thread::sleep(PAUSE),
            }
        }
        match fds {
            fds if fds.iter().any(|fd| fd.revents().contains(PollFlags::NVAL)) => Woken::Closed,
            [bell, ..] if bell.revents().is_empty() => Woken::Ready,
            _ if self.is_rung() => Woken::Rung,
            // Another file has the event's number.
            _ => Woken::Closed,
        }
    }

    fn is_rung(&self) -> bool {
        // Acquire: with `ring`, if the event has woken this thread.
        self.is_rung.load(Ordering::Acquire)
    }
}
