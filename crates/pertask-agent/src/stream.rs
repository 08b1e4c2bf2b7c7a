//! A connection, of whichever kind, that never waits longer than it is told to.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};
use rustix::net::{SendFlags, send};
#[cfg(feature = "server")]
use rustix::net::{Shutdown, shutdown};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// As good as for ever: 30 years.
const LONGEST: Duration = Duration::from_secs(30 * 365 * 86_400);

/// A connection. Its descriptor does not block.
#[derive(Debug)]
pub(crate) struct Stream(pub(crate) OwnedFd);

impl Stream {
    /// Reads what there is, and waits for it until the deadline.
    pub(crate) fn receive(&self, bytes: &mut [u8], deadline: Instant) -> io::Result<usize> {
        loop {
            match read(&self.0, &mut *bytes) {
                Ok(read) => return Ok(read),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.ready(PollFlags::IN, deadline)?,
                Err(why) => return Err(why.into()),
            }
        }
    }

    /// Sends everything. Each part must be taken within `patience`.
    pub(crate) fn send_all(&self, mut bytes: &[u8], patience: Duration) -> io::Result<()> {
        let mut deadline = after(patience);
        while !bytes.is_empty() {
            // Without the flag, a caller that is gone would send this process SIGPIPE.
            match send(&self.0, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    bytes = &bytes[sent..];
                    deadline = after(patience);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.ready(PollFlags::OUT, deadline)?,
                Err(why) => return Err(why.into()),
            }
        }
        Ok(())
    }

    /// Waits until the other side has closed its connection, and returns whether it has.
    #[cfg(feature = "server")]
    pub(crate) fn is_closed_within(&self, time: Duration) -> bool {
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        // Where it cannot be waited for, as after the program has closed all descriptors, whoever waits must not try again and again.
        self.poll(PollFlags::RDHUP, after(time)).map_or(true, |flags| flags.intersects(gone))
    }

    /// Ends the connection for both sides. Whoever waits for it wakes.
    #[cfg(feature = "server")]
    pub(crate) fn end(&self) {
        // It may have ended before.
        let _ = shutdown(&self.0, Shutdown::Both);
    }

    /// Says that nothing more will be sent.
    #[cfg(feature = "server")]
    pub(crate) fn end_sending(&self) {
        // It may have ended before.
        let _ = shutdown(&self.0, Shutdown::Write);
    }

    fn ready(&self, wanted: PollFlags, deadline: Instant) -> io::Result<()> {
        match self.poll(wanted, deadline)? {
            none if none.is_empty() => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }

    /// Returns what has happened of what is wanted, which is nothing if time is up.
    fn poll(&self, wanted: PollFlags, deadline: Instant) -> io::Result<PollFlags> {
        loop {
            let mut fds = [PollFd::new(&self.0, wanted)];
            match poll(
                &mut fds,
                Some(&timespec(deadline.saturating_duration_since(Instant::now()))),
            ) {
                Ok(_) => return Ok(fds[0].revents()),
                Err(Errno::INTR) => {}
                Err(why) => return Err(why.into()),
            }
        }
    }
}

/// The moment after some time, which may be longer than a clock goes.
pub(crate) fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or_else(|| now + LONGEST)
}

pub(crate) fn timespec(time: Duration) -> Timespec {
    // A time that is too long for the kernel is as good as any.
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
