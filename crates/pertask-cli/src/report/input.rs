//! Opens the profile's file or stdin, and reads it within bounds.

use std::{
    fs::File,
    io::{self, ErrorKind, IsTerminal, Read},
    path::Path,
};

use pertask::profile::{Profile, ReadError, ReadLimits};

use super::is_stdout as is_stdin;
use crate::error::Error;

/// Reads the profile at `path`, or from stdin if that is `-`, within the limits.
///
/// # Errors
///
/// Returns [`Error::Profile`] if the file cannot be read, and [`Error::Damaged`] if it is not a profile or is too large.
pub fn read(path: &Path, limits: &ReadLimits) -> Result<Profile, Error> {
    if !is_stdin(path) {
        return parse(path, limits, open(path).map_err(|cause| refused(path, &cause))?);
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        let why = "it is a terminal, not a file".to_owned();
        let remedy = "Name a file, or pipe one in: curl -s http://host/profile | pertask report -";
        return Err(Error::Profile { place: place(path), why, remedy });
    }
    parse(path, limits, stdin.lock())
}

/// Returns the file's name for messages.
pub fn place(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    match file.metadata()?.is_dir() {
        true => Err(ErrorKind::IsADirectory.into()),
        false => Ok(file),
    }
}

fn parse(path: &Path, limits: &ReadLimits, reader: impl Read) -> Result<Profile, Error> {
    Profile::from_pprof_within(reader, limits).map_err(|cause| match cause {
        ReadError::Read(cause) => refused(path, &cause),
        cause => Error::Damaged { place: place(path), cause },
    })
}

/// Returns whether the path leads through `/proc`, as that of a shell's `<(command)` does.
fn needs_proc(path: &Path) -> bool {
    ["/proc", "/dev/fd", "/dev/stdin"].iter().any(|folder| path.starts_with(folder))
}

fn refused(path: &Path, cause: &io::Error) -> Error {
    let remedy = match cause.kind() {
        ErrorKind::NotFound if needs_proc(path) && !Path::new("/proc/self").exists() => {
            "Mount /proc (mount -t proc proc /proc), or pipe the profile in: pertask report - < FILE"
        }
        ErrorKind::NotFound => "Check the name, or record a profile: pertask demo -o profile.pb.gz",
        ErrorKind::IsADirectory => "Name a pprof file in it, such as profile.pb.gz.",
        ErrorKind::PermissionDenied => "Run the command as a user who may read it.",
        _ => "Check that the file can be read to its end.",
    };
    Error::Profile { place: place(path), why: cause.to_string(), remedy }
}
