//! The directory of the sockets: the user's own, which nobody else can enter.

use rustix::fs::{CWD, Mode, OFlags, Stat, fstat, mkdirat, openat};
#[cfg(feature = "client")]
use rustix::fs::{ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid, getgid, getuid};
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A private directory, held open: whatever its path leads to later, its sockets are in this one.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    fd: Arc<OwnedFd>,
}

/// How a directory is opened that must be no link.
const PRIVATE: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDONLY);

/// How one is opened in which nothing but known names are looked up.
#[cfg(feature = "client")]
const ANY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC).union(OFlags::PATH);

/// Why a directory is not used.
#[derive(Debug)]
#[non_exhaustive]
pub enum DirectoryError {
    /// It cannot be made or opened.
    Io {
        /// Its path.
        path: PathBuf,
        /// What the kernel says.
        cause: io::Error,
    },
    /// It is a link, or no directory.
    NoDirectory {
        /// Its path.
        path: PathBuf,
    },
    /// Another user owns it.
    Anothers {
        /// Its path.
        path: PathBuf,
        /// The user that owns it.
        owner: u32,
        /// The user that should.
        wanted: u32,
    },
    /// Other users can enter it.
    Open {
        /// Its path.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl Directory {
    /// Where the sockets of this user are: in `$PERTASK_DIR`, else in `$XDG_RUNTIME_DIR/pertask` if that folder is the user's, else in `/tmp/pertask-UID`.
    #[must_use]
    pub fn default_path() -> PathBuf {
        let set = |name| variable(name).map(PathBuf::from);
        let user = geteuid().as_raw();
        // After `su` or `sudo` it may be another user's.
        let is_own = |folder: &PathBuf| folder.metadata().is_ok_and(|it| it.uid() == user);
        set("PERTASK_DIR")
            .or_else(|| set("XDG_RUNTIME_DIR").filter(is_own).map(|folder| folder.join("pertask")))
            .unwrap_or_else(|| format!("/tmp/pertask-{user}").into())
    }

    /// Opens a directory that is this user's alone, and makes it if there is none.
    ///
    /// # Errors
    /// Returns [`DirectoryError`] if it cannot be made, or if it is a link, another user's, or open to others.
    pub fn open_or_create(path: &Path) -> Result<Self, DirectoryError> {
        match mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Self::open(path, geteuid().as_raw()),
            Err(cause) => Err(DirectoryError::Io { path: path.to_owned(), cause: cause.into() }),
        }
    }

    /// Opens a directory that is that user's alone.
    ///
    /// # Errors
    /// Returns [`DirectoryError`] as [`open_or_create`](Self::open_or_create) does, and if there is no directory.
    pub fn open(path: &Path, user: u32) -> Result<Self, DirectoryError> {
        // A slash at the end would follow a link.
        let path: PathBuf = path.components().collect();
        Self::checked(openat(CWD, &path, PRIVATE, Mode::empty()), path, user)
    }

    /// Opens a directory as a process sees it that has another root. If it need not be a certain user's alone, it is opened whosever it is,
    /// and wherever a link leads.
    #[cfg(feature = "client")]
    pub(crate) fn open_in(
        root: Option<&PathBuf>,
        path: &Path,
        user: Option<u32>,
    ) -> Result<Self, DirectoryError> {
        let flags = if user.is_some() { PRIVATE } else { ANY };
        let path: PathBuf = path.components().collect();
        let (path, opened) = match root {
            None => (path.clone(), openat(CWD, &path, flags, Mode::empty())),
            Some(root) => {
                let path = path.strip_prefix("/").unwrap_or(&path);
                (root.join(path), open_below(root, path, flags))
            }
        };
        match (user, opened) {
            (Some(user), opened) => Self::checked(opened, path, user),
            (None, Ok(fd)) => Ok(Self { path, fd: Arc::new(fd) }),
            (None, Err(cause)) => Err(DirectoryError::Io { path, cause: cause.into() }),
        }
    }

    fn checked(
        opened: Result<OwnedFd, Errno>,
        path: PathBuf,
        user: u32,
    ) -> Result<Self, DirectoryError> {
        let fd = match opened {
            Ok(fd) => fd,
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(DirectoryError::NoDirectory { path }),
            Err(cause) => return Err(DirectoryError::Io { path, cause: cause.into() }),
        };
        let stat = match fstat(&fd) {
            Ok(stat) => stat,
            Err(cause) => return Err(DirectoryError::Io { path, cause: cause.into() }),
        };
        check(&path, &stat, user)?;
        Ok(Self { path, fd: Arc::new(fd) })
    }

    /// Its path, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens a directory below a root, which no link in its path leaves.
#[cfg(feature = "client")]
fn open_below(root: &Path, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let root = openat(CWD, root, ANY, Mode::empty())?;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(&root, path, flags, Mode::empty(), within) {
        // Linux has it since 5.6, and sandboxes may not know it. Links of whole paths then lead nowhere, or to a wrong place, where the
        // checks refuse what is not the process's own.
        Err(Errno::NOSYS | Errno::PERM) => openat(&root, path, flags, Mode::empty()),
        opened => opened,
    }
}

/// A variable of the environment. A program that has got more rights than whoever has started it does not obey them.
#[must_use]
pub fn variable(name: &str) -> Option<OsString> {
    let may_be_trusted = getuid() == geteuid() && getgid() == getegid();
    env::var_os(name).filter(|value| may_be_trusted && !value.is_empty())
}

fn check(path: &Path, stat: &Stat, wanted: u32) -> Result<(), DirectoryError> {
    let (path, mode) = (|| path.to_owned(), stat.st_mode & 0o7777);
    match stat.st_uid {
        owner if owner != wanted => Err(DirectoryError::Anothers { path: path(), owner, wanted }),
        _ if mode & 0o077 != 0 => Err(DirectoryError::Open { path: path(), mode }),
        _ => Ok(()),
    }
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, cause } => {
                write!(f, "cannot use the directory {}: {cause}", path.display())
            }
            Self::NoDirectory { path } => write!(f, "{} is a link or no directory", path.display()),
            Self::Anothers { path, owner, wanted } => write!(
                f,
                "the directory {} is user {owner}'s, and not user {wanted}'s",
                path.display()
            ),
            Self::Open { path, mode } => write!(
                f,
                "the directory {} has mode {mode:04o}, so others could enter it: chmod 700 it",
                path.display()
            ),
        }?;
        write!(f, "; or set PERTASK_DIR to a directory of this user's alone")
    }
}

impl std::error::Error for DirectoryError {}
