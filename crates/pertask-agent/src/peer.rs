//! Who is at the other end of a Unix socket, as the kernel says.
//!
//! rustix can ask, too, but its `UCred` cannot hold the process number 0, which the kernel returns for a process that has no number in
//! this one's namespace: a tool outside a container that asks a program inside. So there is `unsafe` here.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The process that has called `connect`, or `listen`, and its effective user at that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its number in this process's namespace, or 0 if it has none.
    pub(crate) pid: u32,
    pub(crate) user: u32,
}

impl Peer {
    pub(crate) fn of(socket: &impl AsFd) -> io::Result<Self> {
        let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let whole = size_of::<libc::ucred>() as libc::socklen_t;
        let (mut size, fd) = (whole, socket.as_fd().as_raw_fd());
        let to = (&raw mut found).cast();
        // SAFETY: The kernel writes at most `size` bytes to `found`, which has that many, and any bytes are a `ucred`.
        let result =
            unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, to, &raw mut size) };
        match result {
            0 if size == whole => {
                Ok(Self { pid: found.pid.try_into().unwrap_or(0), user: found.uid })
            }
            0 => Err(io::ErrorKind::InvalidData.into()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether it may ask a process of this user: it is the same user, or root.
    #[cfg(feature = "server")]
    pub(crate) fn is_trusted(self) -> bool {
        self.user == 0 || self.user == rustix::process::geteuid().as_raw()
    }
}
