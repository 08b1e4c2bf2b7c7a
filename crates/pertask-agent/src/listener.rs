//! Where a server listens: a socket with a name in a directory, or a port.

use crate::directory::Directory;
use crate::entry::{self, address, unix_socket};
use crate::identity::Identity;
use crate::serve_error::ServeError;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, chmodat, open, renameat, statat, unlinkat};
use rustix::io::Errno;
use rustix::net::{bind, listen};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The most callers that wait until they are accepted.
const BACKLOG: i32 = 512;

/// A socket that listens, and where.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: OwnedFd,
    pub(crate) place: Place,
}

/// Where a socket listens.
#[derive(Debug)]
pub(crate) enum Place {
    Entry(Entry),
    Port(SocketAddr),
}

/// A name in a directory, and the file that has it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    directory: OwnedFd,
    name: String,
    /// Its device, and its number there.
    file: (u64, u64),
}

impl Listener {
    /// Listens in the directory, under this process's name.
    pub(crate) fn in_directory(directory: &Directory) -> Result<Self, ServeError> {
        entry::remove_stale(directory);
        let failed = |what, cause| failed(what, directory.path(), cause);
        let own = Identity::of_this_process();
        let name = own.map_err(|why| failed("find out when this process began, for", why))?;
        let (name, path) = (name.socket_name(), directory.path().join(name.socket_name()));
        if is_listening(directory, &name) {
            return Err(ServeError::AlreadyListening { path });
        }
        let folder = directory.as_fd().try_clone_to_owned();
        Self::at(folder.map_err(|why| failed("keep open", why))?, name, path)
    }

    /// Listens at a path of the user's choice.
    pub(crate) fn at_path(path: &Path) -> Result<Self, ServeError> {
        let (directory, name) = parent(path)?;
        let in_use = match statat(&directory, &*name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => false,
            Err(why) => return Err(failed("look at", path, why.into())),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Socket => true,
            Ok(_) => is_listening(&directory, &name),
        };
        match in_use {
            true => Err(ServeError::InUse { path: path.to_owned() }),
            false => Self::at(directory, name, path.to_owned()),
        }
    }

    /// Listens at an address.
    pub(crate) fn on_tcp(wanted: SocketAddr) -> Result<Self, ServeError> {
        let listen = || {
            let listener = TcpListener::bind(wanted)?;
            listener.set_nonblocking(true)?;
            let place = Place::Port(listener.local_addr()?);
            Ok(Self { socket: listener.into(), place })
        };
        let what = "listen at";
        listen().map_err(|cause| ServeError::Io { what, place: wanted.to_string(), cause })
    }

    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self.place, Place::Port(_))
    }

    /// Listens under another name before it has its own: whoever sees a socket finds somebody who listens.
    fn at(directory: OwnedFd, name: String, path: PathBuf) -> Result<Self, ServeError> {
        let new = format!(".{name}.new");
        let begin = || {
            let socket = unix_socket()?;
            // Left by a process that ended here.
            let _ = unlinkat(&directory, &*new, AtFlags::empty());
            bind(&socket, &address(&directory, &new)?)?;
            chmodat(&directory, &*new, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
            listen(&socket, BACKLOG)?;
            let stat = statat(&directory, &*new, AtFlags::SYMLINK_NOFOLLOW)?;
            renameat(&directory, &*new, &directory, &*name)?;
            Ok((socket, (stat.st_dev, stat.st_ino)))
        };
        match begin() {
            Ok((socket, file)) => {
                let place = Place::Entry(Entry { path, directory, name, file });
                Ok(Self { socket, place })
            }
            Err(why) => {
                let _ = unlinkat(&directory, &*new, AtFlags::empty());
                Err(failed("listen at", &path, why))
            }
        }
    }
}

impl Entry {
    /// Removes the name, if it is still that of the same file.
    pub(crate) fn remove(&self) {
        let stat = statat(&self.directory, &*self.name, AtFlags::SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.file) {
            // Somebody else may have removed it.
            let _ = unlinkat(&self.directory, &*self.name, AtFlags::empty());
        }
    }
}

/// The directory that a path leads to, which is the user's choice, and the last name.
pub(crate) fn parent(path: &Path) -> Result<(OwnedFd, String), ServeError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| ServeError::NoName { path: path.to_owned() })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH;
    let directory = open(folder, flags, Mode::empty());
    let directory = directory.map_err(|why| failed("open the directory of", path, why.into()))?;
    Ok((directory, name.to_owned()))
}

fn is_listening(directory: &impl AsFd, name: &str) -> bool {
    match entry::connect_to(directory, name) {
        Ok(_) => true,
        // So many callers wait that there is no place for another.
        Err(why) => why.kind() == io::ErrorKind::WouldBlock,
    }
}

fn failed(what: &'static str, path: &Path, cause: io::Error) -> ServeError {
    ServeError::Io { what, place: path.display().to_string(), cause }
}
