//! Opens the profile's file or stdin, and reads it within bounds.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, IsTerminal, Read},
    os::unix::fs::FileExt,
    panic::{self, AssertUnwindSafe},
    path::Path,
};

use pertask::profile::{PprofFile, ReadError, ReadLimits};

use super::{is_stdout as is_stdin, symbols::SymbolOptions};
use crate::error::Error;

/// Reads the profile or the difference of two at `path`, or from stdin if that is `-`, within the limits. A file of `perf record` needs the files that were mapped,
/// which are looked for in the folders first.
///
/// # Errors
///
/// Returns [`Error::Profile`] if the file cannot be read, and [`Error::Damaged`] or [`Error::PerfData`] if it is not a profile or is too
/// large.
pub fn read(path: &Path, limits: &ReadLimits, symbols: &SymbolOptions) -> Result<PprofFile, Error> {
    if !is_stdin(path) {
        let mut file = open(path).map_err(|cause| refused(path, &cause))?;
        return match is_of_perf(&mut file) {
            true => of_perf(path, file, symbols),
            false => parse(path, limits, file),
        };
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        let why = "it is a terminal, not a file".to_owned();
        let remedy = "Name a file, or pipe one in: curl -s http://host/profile | pertask report -";
        return Err(Error::Profile { place: place(path), why, remedy });
    }
    parse(path, limits, stdin.lock())
}

/// Returns whether `perf record` has written the file, which is then at its beginning again.
fn is_of_perf(file: &mut File) -> bool {
    let mut beginning = [0; 8];
    // What cannot go back to its beginning, such as a pipe, is read as a profile.
    let is_file = file.metadata().is_ok_and(|it| it.is_file());
    is_file
        && file.read_exact_at(&mut beginning, 0).is_ok()
        && pertask_outside::is_perf_data(&beginning)
}

/// Reads a file of `perf record`.
fn of_perf(path: &Path, file: File, symbols: &SymbolOptions) -> Result<PprofFile, Error> {
    let failed = |cause| Error::PerfData { place: place(path), cause };
    let options = symbols.of_perf_data();
    let read = || pertask_outside::read_perf_data(BufReader::new(file), &options);
    // The library that parses such files panics at some that are damaged.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let read = panic::catch_unwind(AssertUnwindSafe(read));
    panic::set_hook(hook);
    let damaged = || pertask_outside::Error::PerfData("it is damaged".to_owned());
    read.unwrap_or_else(|_| Err(damaged()))
        .map(|it| PprofFile::Profile(Box::new(it)))
        .map_err(failed)
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

fn parse(path: &Path, limits: &ReadLimits, reader: impl Read) -> Result<PprofFile, Error> {
    PprofFile::read_within(reader, limits).map_err(|cause| match cause {
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
