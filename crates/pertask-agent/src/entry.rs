//! A socket in a directory, reached through the directory's descriptor: so its path may be long, and nobody can exchange a part of it.

use crate::directory::Directory;
use crate::identity::Identity;
use crate::stream::Stream;
use rustix::fs::{AtFlags, Dir, FileType, statat, unlinkat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The most names that are looked at, so that a full directory delays no program's start.
const MOST: usize = 64;

/// Makes a socket that is closed at exec, and whose descriptor does not block.
pub(crate) fn unix_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// The address of a name in a directory.
pub(crate) fn address(directory: &impl AsFd, name: &str) -> io::Result<SocketAddrUnix> {
    let fd = directory.as_fd().as_raw_fd();
    Ok(SocketAddrUnix::new(format!("/proc/thread-self/fd/{fd}/{name}"))?)
}

/// Connects to a socket. A program whose queue of callers is full refuses at once.
pub(crate) fn connect_to(directory: &impl AsFd, name: &str) -> io::Result<Stream> {
    let socket = unix_socket()?;
    connect(&socket, &address(directory, name)?)?;
    Ok(Stream(socket))
}

/// Removes sockets of processes that are gone. Another namespace's processes are not seen, so somebody may listen nevertheless.
pub(crate) fn remove_stale(directory: &Directory) {
    for name in names(directory) {
        let is_alive = Identity::of_socket(&name).is_none_or(|process| process.is_alive());
        if !is_alive && is_socket(directory, &name) && is_refused(connect_to(directory, &name)) {
            // Somebody else may have removed it.
            let _ = unlinkat(directory, &*name, AtFlags::empty());
        }
    }
}

/// Whether a name is a socket's. Of any other file, too, the kernel says that nobody listens.
pub(crate) fn is_socket(directory: &impl AsFd, name: &str) -> bool {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
}

/// Whether there is a socket, and nobody listens.
fn is_refused(connected: io::Result<Stream>) -> bool {
    connected.is_err_and(|why| Errno::from_io_error(&why) == Some(Errno::CONNREFUSED))
}

/// The names of sockets in a directory.
fn names(directory: &Directory) -> Vec<String> {
    let Ok(entries) = Dir::read_from(directory) else { return Vec::new() };
    let names =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str().ok().map(str::to_owned));
    names.filter(|name| Identity::of_socket(name).is_some()).take(MOST).collect()
}
