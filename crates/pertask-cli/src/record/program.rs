//! Where the files of the recorded process are, also if its program was deleted or replaced since it began.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
};

/// Folders that have the files of a process, for as long as the process is there.
pub struct Files {
    folders: Vec<PathBuf>,
    /// A folder of our own, with a link to the running program.
    link: Option<PathBuf>,
}

impl Files {
    pub fn of(process: u32) -> Self {
        let root = PathBuf::from(format!("/proc/{process}/root"));
        let link = linked(process);
        // The program's own file is the right one, whatever its path leads to.
        Self { folders: link.iter().cloned().chain([root]).collect(), link }
    }

    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }
}

/// Makes a folder with a link to the running program, by its name.
fn linked(process: u32) -> Option<PathBuf> {
    let program = format!("/proc/{process}/exe");
    let path = fs::read_link(&program).ok()?;
    let name = path.file_name()?.to_str()?.trim_end_matches(" (deleted)");
    let folder = std::env::temp_dir().join(format!("pertask-{}-{process}", std::process::id()));
    // It must be new, and nobody else's.
    fs::DirBuilder::new().mode(0o700).create(&folder).ok()?;
    let linked = symlink(&program, folder.join(name));
    if linked.is_err() {
        remove(&folder);
        return None;
    }
    Some(folder)
}

fn remove(folder: &Path) {
    // Links are removed, and not what they lead to. What cannot be removed is small.
    let _ = fs::remove_dir_all(folder);
}

impl Drop for Files {
    fn drop(&mut self) {
        self.link.as_deref().into_iter().for_each(remove);
    }
}
