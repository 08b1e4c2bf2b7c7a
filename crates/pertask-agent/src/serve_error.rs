//! Why a server does not begin.

use crate::directory::DirectoryError;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a server does not begin.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The directory of the sockets is not used.
    Directory(DirectoryError),
    /// Something else was refused.
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        place: String,
        /// What the kernel says.
        cause: io::Error,
    },
    /// Another process listens there, or there is something that is no socket.
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// This process listens there already.
    AlreadyListening {
        /// The path.
        path: PathBuf,
    },
    /// The path does not end with a name.
    NoName {
        /// The path.
        path: PathBuf,
    },
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(why) => why.fmt(f),
            Self::Io { what, place, cause } => {
                write!(f, "cannot {what} {place}: {cause}")?;
                remedy(cause).map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
            }
            Self::InUse { path } => write!(
                f,
                "{} is in use: another process listens there, or it is no socket; remove it, or choose another path",
                path.display()
            ),
            Self::AlreadyListening { path } => write!(
                f,
                "this process listens at {} already; keep the first server, or stop it before the next",
                path.display()
            ),
            Self::NoName { path } => write!(
                f,
                "{:?} does not end with the name of a socket; give a path such as /run/user/1000/agent.sock",
                path.display()
            ),
        }
    }
}

fn remedy(cause: &io::Error) -> Option<&'static str> {
    match cause.kind() {
        io::ErrorKind::NotFound => Some("make its directory first"),
        io::ErrorKind::AddrInUse => Some("choose another"),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => {
            Some("its name may have at most 80 bytes")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Some("choose a place where this user may write")
        }
        _ => None,
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory(why) => Some(why),
            Self::Io { cause, .. } => Some(cause),
            Self::InUse { .. } | Self::AlreadyListening { .. } | Self::NoName { .. } => None,
        }
    }
}

impl From<DirectoryError> for ServeError {
    fn from(why: DirectoryError) -> Self {
        Self::Directory(why)
    }
}
