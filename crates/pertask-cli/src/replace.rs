//! A file that is replaced as a whole or not at all.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process,
};

use crate::error::Error;

/// Writes a file. Where that fails, what it held before is still there.
///
/// It is written beside its place and moved there when it is whole. A pipe or a device is written to directly.
///
/// # Errors
///
/// [`Error::Replace`] where it did not arrive as a whole.
pub fn replace(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    try_replace(path, write).map_err(|cause| Error::Replace { path: path.to_owned(), cause })
}

fn try_replace(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    // Where the name is a link, it stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let before = fs::metadata(&path).ok();
    if before.as_ref().is_some_and(|it| !it.is_file()) {
        return fill(OpenOptions::new().write(true).open(&path)?, write).map(drop);
    }
    let (beside, file) = beside(&path)?;
    let filled = fill(file, write).and_then(|file| {
        before.map_or(Ok(()), |it| file.set_permissions(it.permissions()))?;
        // Some file systems tell only now that they are full.
        file.sync_all()?;
        fs::rename(&beside, &path)
    });
    if filled.is_err() {
        let _ = fs::remove_file(&beside);
    }
    filled
}

fn fill(file: File, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<File> {
    let mut file = BufWriter::new(file);
    write(&mut file)?;
    file.into_inner().map_err(io::IntoInnerError::into_error)
}

/// A new file in the same folder, of a name that nobody else uses.
fn beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut tries = 0;
    loop {
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{tries}", process::id()));
        let hidden = path.with_file_name(hidden);
        match OpenOptions::new().write(true).create_new(true).open(&hidden) {
            Ok(file) => return Ok((hidden, file)),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && tries < 16 => tries += 1,
            Err(cause) => return Err(cause),
        }
    }
}
