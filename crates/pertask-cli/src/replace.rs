//! A file that is replaced as a whole or not at all.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufWriter, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process,
};

use crate::error::Error;

/// Writes a file as a whole or not at all.
///
/// The new file has no name while it is written, so that it goes with the process, however that ends. When it is whole, it gets
/// a name in the same folder and is renamed. Where the file system has only files with names, it has that name from the start.
/// If writing fails, an old file stays as it was, and no new one appears. A pipe or a device is written to directly.
///
/// # Errors
///
/// Returns [`Error::Replace`] if the file cannot be written as a whole.
pub fn replace(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    try_replace(path, write).map_err(|cause| Error::Replace { path: path.to_owned(), cause })
}

/// Tries whether [`replace`] can write a file there, and leaves nothing behind.
///
/// # Errors
///
/// Returns why no file can be made there, or why the one that is there cannot be written.
pub fn probe(path: &Path) -> io::Result<()> {
    match Place::of(path)? {
        Place::File { path, .. } => fs::remove_file(named(&path)?.0),
        Place::Pipe(_) => Ok(()),
        Place::Device(path) => open(&path).map(drop),
    }
}

fn try_replace(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let (path, permissions) = match Place::of(path)? {
        Place::File { path, permissions } => (path, permissions),
        Place::Pipe(path) | Place::Device(path) => return fill(open(&path)?, write).map(drop),
    };
    let finish = |file: &File| {
        permissions.map_or(Ok(()), |it| file.set_permissions(it))?;
        // Some file systems report only now that they are full.
        file.sync_all()
    };
    if let Some(file) = nameless(&path) {
        let file = fill(file, write)?;
        finish(&file)?;
        let name = beside(&path, |name| link(&file, name))?.0;
        return rename(&name, &path);
    }
    let (name, file) = named(&path)?;
    match fill(file, write).and_then(|file| finish(&file)) {
        Ok(()) => rename(&name, &path),
        Err(cause) => {
            let _ = fs::remove_file(&name);
            Err(cause)
        }
    }
}

/// Renames a file, or removes it if that fails.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).inspect_err(|_| {
        let _ = fs::remove_file(from);
    })
}

/// The kind of place that is written to.
enum Place {
    /// A file, or a name that no file has yet.
    File {
        path: PathBuf,
        /// The permissions of the old file.
        permissions: Option<Permissions>,
    },
    /// A pipe. It must be opened only once, because its reader takes the end of the first writer for the end of the data.
    Pipe(PathBuf),
    /// A device, or anything else that can be opened.
    Device(PathBuf),
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        let path = resolved(path);
        let Ok(before) = fs::metadata(&path) else {
            return Ok(Self::File { path, permissions: None });
        };
        if before.file_type().is_fifo() {
            return Ok(Self::Pipe(path));
        }
        if !before.is_file() {
            return Ok(Self::Device(path));
        }
        // The folder alone decides whether the file can be replaced; its owner may have forbidden to write it.
        open(&path)?;
        Ok(Self::File { path, permissions: Some(before.permissions()) })
    }
}

/// Follows the links of a path, so that a link stays a link even if it leads to a file that does not exist yet.
fn resolved(path: &Path) -> PathBuf {
    const MOST_LINKS: usize = 40;
    if let Ok(path) = fs::canonicalize(path) {
        return path;
    }
    let mut path = path.to_owned();
    // A link in /proc leads to its pipe, although the path that it shows does not exist.
    let leads_nowhere = |path: &Path| fs::metadata(path).is_err();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(target) if leads_nowhere(&path) => path = path.with_file_name("").join(target),
            _ => break,
        }
    }
    path
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

fn fill(file: File, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<File> {
    let mut file = BufWriter::new(file);
    write(&mut file)?;
    file.into_inner().map_err(io::IntoInnerError::into_error)
}

/// Creates a file without a name in the folder of `path`, or returns `None` where that is impossible.
fn nameless(path: &Path) -> Option<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let flags = rustix::fs::OFlags::TMPFILE.bits();
    let file = OpenOptions::new().write(true).custom_flags(flags as i32).open(folder).ok()?;
    // Without /proc there is no way to give it a name.
    descriptor(&file).exists().then_some(file)
}

/// Gives a file its name.
fn link(file: &File, name: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    Ok(linkat(CWD, descriptor(file), CWD, name, AtFlags::SYMLINK_FOLLOW)?)
}

/// The path of a file that may have no other.
fn descriptor(file: &File) -> PathBuf {
    Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())
}

/// Creates a file in the folder of `path`, with a name that nobody else uses.
fn named(path: &Path) -> io::Result<(PathBuf, File)> {
    beside(path, |name| OpenOptions::new().write(true).create_new(true).open(name))
}

/// Lets `make` make something in the folder of `path`, with a name that nobody else uses.
fn beside<T>(path: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(PathBuf, T)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut tries = 0;
    loop {
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{tries}", process::id()));
        let hidden = path.with_file_name(hidden);
        match make(&hidden) {
            Ok(made) => return Ok((hidden, made)),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && tries < 16 => tries += 1,
            Err(cause) => return Err(cause),
        }
    }
}
