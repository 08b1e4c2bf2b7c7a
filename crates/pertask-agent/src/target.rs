//! A process that a tool wants to reach: whose it is, and where its socket could be. It reads the process's files in `/proc`, and neither
//! executes nor loads anything of it.

use crate::directory::{Directory, DirectoryError};
use crate::entry;
use crate::identity::Identity;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The process.
pub(crate) struct Target {
    /// Its number in this process's namespace.
    pub(crate) pid: u32,
    pub(crate) program: String,
    /// Its effective user and group.
    pub(crate) user: u32,
    pub(crate) group: u32,
    /// Its user's number in its own namespace.
    own_user: u32,
    identity: Identity,
    /// `None` if this process may not read it.
    environment: Option<Vec<u8>>,
}

/// A socket that has the process's name.
pub(crate) struct Socket {
    pub(crate) directory: Directory,
    pub(crate) name: String,
    /// Its path, as this process sees it.
    pub(crate) path: PathBuf,
}

/// Where a socket was looked for.
pub(crate) type Looked = Result<Socket, DirectoryError>;

impl Target {
    /// Reads what a process is.
    pub(crate) fn read(pid: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let effective = |name: &str| {
            let ids =
                field(&status, name).and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
            ids.ok_or(io::ErrorKind::InvalidData)
        };
        let (user, group) = (effective("Uid:")?, effective("Gid:")?);
        let environment = fs::read(format!("/proc/{pid}/environ")).ok();
        let (identity, program) = (Identity::of(pid)?, program(pid, &status));
        let own_user = own_user(pid, user);
        Ok(Self { pid, program, user, group, own_user, identity, environment })
    }

    /// Whether this process may look at its files: it is the same user's, or this one is root.
    pub(crate) fn is_open(&self) -> bool {
        self.environment.is_some()
    }

    /// Whether it is in another namespace of users, where this process's user has another number or none.
    pub(crate) fn has_other_users(&self) -> bool {
        let users = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        users(&self.pid.to_string()) != users("self")
    }

    /// A variable of the environment with which it was started.
    fn variable(&self, name: &str) -> Option<&OsStr> {
        let variables = self.environment.as_deref()?.split(|byte| *byte == 0);
        let mut values =
            variables.filter_map(|it| it.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        values.next().filter(|value| !value.is_empty()).map(OsStr::from_bytes)
    }

    /// The sockets that are its own by their name, and the directories that were refused.
    pub(crate) fn sockets(&self) -> Vec<Looked> {
        let name = self.identity.socket_name();
        let directories = self.directories().into_iter().map(|path| (path, name.clone(), true));
        let places = self.chosen().into_iter().map(|(path, name)| (path, name, false));
        let places = places.chain(directories);
        places.filter_map(|(path, name, is_private)| self.look(&path, name, is_private)).collect()
    }

    /// The path at which it was told to listen.
    fn chosen(&self) -> Option<(PathBuf, String)> {
        let path = self.variable("PERTASK")?.as_bytes().strip_suffix(b",listen")?;
        let path = Path::new(OsStr::from_bytes(path));
        let folder = path.parent().unwrap_or(Path::new(""));
        Some((folder.to_owned(), path.file_name()?.to_str()?.to_owned()))
    }

    /// Where it may have its socket, as it sees them.
    fn directories(&self) -> Vec<PathBuf> {
        let variable = |name| self.variable(name).map(PathBuf::from);
        let mut paths: Vec<_> = variable("PERTASK_DIR").into_iter().collect();
        paths.extend(variable("XDG_RUNTIME_DIR").map(|folder| folder.join("pertask")));
        paths.push(Directory::default_path());
        paths.push(format!("/tmp/pertask-{}", self.own_user).into());
        let mut seen: Vec<PathBuf> = Vec::new();
        paths.retain(|path| !seen.contains(path) && (seen.push(path.clone()), true).1);
        paths
    }

    fn look(&self, path: &Path, name: String, is_private: bool) -> Option<Looked> {
        let root = self.root();
        let path = match (path.is_absolute(), &root) {
            (true, _) => path.to_owned(),
            // The best guess: it may have changed its directory since.
            (false, Some(_)) => fs::read_link(format!("/proc/{}/cwd", self.pid)).ok()?.join(path),
            (false, None) => PathBuf::from(format!("/proc/{}/cwd", self.pid)).join(path),
        };
        let user = is_private.then_some(self.user);
        let directory = match Directory::open_in(root.as_ref(), &path, user) {
            Ok(directory) => directory,
            Err(DirectoryError::Io { .. }) => return None,
            Err(why) => return Some(Err(why)),
        };
        let path = directory.path().join(&name);
        entry::is_socket(&directory, &name).then_some(Ok(Socket { directory, name, path }))
    }

    /// Its root, if its files are others than this process's. If it may not be looked at, they are taken for the same: the kernel says in
    /// the end who listens.
    fn root(&self) -> Option<PathBuf> {
        let theirs = PathBuf::from(format!("/proc/{}/root", self.pid));
        let file = |path: &Path| fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
        let mounts = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let is_other = file(&theirs)? != file(Path::new("/"))?
            || mounts(&self.pid.to_string()) != mounts("self");
        is_other.then_some(theirs)
    }
}

/// Whether a process is one of the kernel's, or is ending: it has no memory.
pub(crate) fn has_no_program(status: &str) -> bool {
    field(status, "VmSize:").is_none()
}

/// A line of `/proc/PID/status`.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

/// The name of the program: that of its file, if the kernel's was cut off.
fn program(pid: u32, status: &str) -> String {
    let name = field(status, "Name:").unwrap_or_default().trim().to_owned();
    let file = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let file = file.file_name().unwrap_or_default().to_string_lossy();
    // The kernel says so if it was removed, as it is when it was built anew.
    let file = file.strip_suffix(" (deleted)").unwrap_or(&file);
    if file.starts_with(&name) { file.to_owned() } else { name }
}

/// A user's number in the namespace of a process.
fn own_user(pid: u32, user: u32) -> u32 {
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap_or_default();
    let ranges = map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse::<u32>().ok());
        Some((numbers.next()?, numbers.next()?, numbers.next()?))
    });
    let own = |(inside, outside, count): (u32, u32, u32)| {
        let offset = user.checked_sub(outside).filter(|offset| *offset < count)?;
        inside.checked_add(offset)
    };
    ranges.filter_map(own).next().unwrap_or(user)
}
