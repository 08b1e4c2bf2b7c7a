//! A file that is replaced as a whole, again and again, by one process.

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek as _, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The file `NAME.part` beside a file, in which its next version is written. However the process ends, the file is whole.
///
/// Its lock belongs to the process that writes the file. A forked child does not have it, and it ends with the process.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    part: PathBuf,
    /// `None` if another process has come between two versions.
    file: Option<File>,
}

impl Part {
    /// Becomes the writer of the file at this path, which need not be there yet.
    pub(super) fn claim(path: &Path) -> io::Result<Self> {
        if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return Err(io::Error::other("it is there, and no file"));
        }
        let mut part = OsString::from(path);
        part.push(".part");
        let part = PathBuf::from(part);
        let file = Some(claim(&part)?);
        Ok(Self { path: path.to_owned(), part, file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file a new content. If that fails, it keeps the one that it has.
    pub(super) fn replace(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => claim(&self.part)?,
        };
        let written = fill(&mut file, write);
        self.file = Some(file);
        written?;
        fs::rename(&self.part, &self.path)?;
        self.file = claim(&self.part).ok();
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = fs::remove_file(&self.part);
        }
    }
}

fn fill(file: &mut File, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    let mut buffered = BufWriter::new(file);
    write(&mut buffered)?;
    buffered.flush()
}

/// Makes or takes the file, if no other process has it.
fn claim(part: &Path) -> io::Result<File> {
    const NO_LINK: i32 = libc::O_NOFOLLOW;
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(NO_LINK).open(part)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::ACCESS) => {
                return Err(io::Error::other(
                    "another process writes it; with %p in its name, each process has a file of its own",
                ));
            }
            Err(why) => return Err(why.into()),
        }
        // Its writer may have renamed or removed it in the meantime.
        let (locked, there) = (file.metadata()?, fs::symlink_metadata(part));
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (locked.dev(), locked.ino())) {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder =
                std::env::temp_dir().join(format!("pertask-{}-{name}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<_> =
                entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_version_that_fails_leaves_the_one_before() {
        let folder = Folder::new("versions");
        let file = folder.0.join("file");
        let mut part = Part::claim(&file).unwrap();
        part.replace(|out| out.write_all(b"first and long")).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"first and long");
        let failing = |out: &mut dyn Write| {
            out.write_all(b"half")?;
            Err(io::Error::other("the disk is full"))
        };
        part.replace(failing).unwrap_err();
        assert_eq!(fs::read(&file).unwrap(), b"first and long");
        part.replace(|out| out.write_all(b"third")).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"third");
        assert_eq!(folder.names(), ["file", "file.part"]);
        drop(part);
        assert_eq!(folder.names(), ["file"]);
    }

    #[test]
    fn links_and_what_is_no_file_are_refused() {
        let folder = Folder::new("links");
        let victim = folder.0.join("victim");
        fs::write(&victim, "kept").unwrap();
        std::os::unix::fs::symlink(&victim, folder.0.join("file.part")).unwrap();
        Part::claim(&folder.0.join("file")).unwrap_err();
        assert_eq!(fs::read(&victim).unwrap(), b"kept");
        Part::claim(&folder.0).unwrap_err();
        Part::claim(&folder.0.join("nowhere/file")).unwrap_err();
    }
}
