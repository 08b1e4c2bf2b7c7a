//! Opens regular files, and nothing else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file, and nothing else.
///
/// A path may come from a file or a process that nobody trusts. To open a pipe or a device may wait or have effects, so the kind of
/// file is known before it is opened.
///
/// # Errors
///
/// Returns the errors of the system, and one if it is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // What was looked at is what is opened, even if its name leads elsewhere by now.
    let there = regular(OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?)?;
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let open = |path: &Path| OpenOptions::new().read(true).custom_flags(flags).open(path);
    match open(Path::new(&format!("/proc/self/fd/{}", there.as_raw_fd()))) {
        // Somebody has no /proc.
        Err(error) if error.kind() == io::ErrorKind::NotFound => regular(open(path)?),
        opened => regular(opened?),
    }
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
}
