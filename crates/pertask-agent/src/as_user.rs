//! Being another user for a moment, as root can.

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use std::io;
use std::thread;

/// Does something with another user's rights, on a thread of its own: the process's other threads keep theirs.
///
/// Afterwards the kernel lets only root look at this process (`PR_GET_DUMPABLE` is as after a setuid program's start).
///
/// # Errors
/// Returns why this thread may not become that user, or the error of `act`.
pub(crate) fn as_user<T: Send>(
    user: u32,
    group: u32,
    act: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let other = || {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        // The group first: the user may have no right to change it.
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
        act()
    };
    thread::scope(|scope| scope.spawn(other).join())
        .unwrap_or_else(|_| Err(io::Error::other("connecting has panicked; this is a bug")))
}
