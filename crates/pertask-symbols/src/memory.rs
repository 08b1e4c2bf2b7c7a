//! Reads memory without a fault: this process's own, even if other threads unmap it meanwhile, or another's, as its files have it.

use crate::maps::{Mapping, mappings};
use crate::regular::open_regular;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

/// A reader of this process's own memory, or the mapped files of another process.
///
/// A read of memory that is not mapped fails, and so does one of another process's memory that is in no file. It does not fault.
#[derive(Debug)]
pub enum Memory {
    /// Reads through `/proc/thread-self/mem`. The kernel forbids it to a process that may not be dumped, such as one with file
    /// capabilities.
    File(File),
    /// Reads with `process_vm_readv`, which old container runtimes forbid.
    Call,
    /// Reads the files that are mapped into another process.
    Files(MappedFiles),
}

/// The files that are mapped into another process, and where. To read them needs less privilege than to read its memory.
#[derive(Debug)]
pub struct MappedFiles {
    /// By address: where a part of a file is mapped, and where that part begins in the file.
    parts: Vec<(Range<u64>, Part)>,
}

#[derive(Debug)]
enum Part {
    File(Arc<File>, u64),
    Bytes(Vec<u8>),
}

impl MappedFiles {
    /// Opens the files that are mapped into a process, seen from its own root. A file whose path leads to another file by now (with
    /// another inode) is not among them.
    #[must_use]
    pub fn of(process: u32, mapped: &[Mapping]) -> Self {
        // Files without code may be many, and devices are among them.
        let has_code = |mapping: &&Mapping| mapping.executable && mapping.path.starts_with('/');
        let with_code: HashSet<_> = mapped.iter().filter(has_code).map(|it| &it.path).collect();
        let mut files = HashMap::new();
        let mut part = |mapping: &Mapping| match &*mapping.path {
            "[vdso]" => kernels_page().map(Part::Bytes),
            _ if with_code.contains(&mapping.path) && mapping.readable => {
                let file =
                    files.entry(mapping.path.clone()).or_insert_with(|| open(process, mapping));
                file.clone().map(|file| Part::File(file, mapping.offset))
            }
            _ => None,
        };
        let parts = mapped.iter().filter_map(|it| Some((it.range.clone(), part(it)?)));
        Self { parts: parts.collect() }
    }

    /// Takes these files for what is mapped there, each with the offset at which the mapping begins.
    #[must_use]
    pub fn given(mapped: impl Iterator<Item = (Mapping, Arc<File>)>) -> Self {
        let part = |(it, file): (Mapping, Arc<File>)| (it.range, Part::File(file, it.offset));
        let mut parts: Vec<_> = mapped.map(part).collect();
        parts.sort_by_key(|(range, _)| range.start);
        Self { parts }
    }

    /// Returns the file that is mapped at an address.
    #[cfg(feature = "names")]
    pub(crate) fn file_at(&self, address: u64) -> Option<&File> {
        let (range, part) = self.at(address)?;
        match part {
            Part::File(file, _) if range.contains(&address) => Some(file),
            _ => None,
        }
    }

    /// Returns the last part that begins at an address or before.
    fn at(&self, address: u64) -> Option<&(Range<u64>, Part)> {
        let after = self.parts.partition_point(|(range, _)| range.start <= address);
        self.parts.get(after.checked_sub(1)?)
    }

    /// Fills `bytes` from the address `from` on, or returns `None` if some of it is in no file.
    fn read(&self, bytes: &mut [u8], from: u64) -> Option<()> {
        let (range, part) = self.at(from)?;
        let inside = from - range.start;
        if range.end.checked_sub(from)? < bytes.len() as u64 {
            return None;
        }
        match part {
            Part::File(file, offset) => {
                file.read_exact_at(bytes, offset.checked_add(inside)?).ok()?;
            }
            Part::Bytes(all) => {
                let inside = usize::try_from(inside).ok()?;
                bytes.copy_from_slice(all.get(inside..)?.get(..bytes.len())?);
            }
        }
        Some(())
    }
}

/// Opens a mapped file, if its path still leads to it.
fn open(process: u32, mapping: &Mapping) -> Option<Arc<File>> {
    let root = format!("/proc/{process}");
    // The running program can be opened even where its path leads nowhere.
    let program = std::fs::read_link(format!("{root}/exe")).ok();
    let path = match program.is_some_and(|program| program.as_os_str() == &*mapping.path) {
        true => format!("{root}/exe"),
        false => format!("{root}/root{}", mapping.path),
    };
    let file = open_regular(Path::new(&path)).ok()?;
    let is_it = file.metadata().is_ok_and(|it| it.ino() == mapping.inode);
    is_it.then(|| Arc::new(file))
}

/// Returns the kernel's page of code, which is the same in all processes.
fn kernels_page() -> Option<Vec<u8>> {
    let own = mappings().ok()?.into_iter().find(|mapping| mapping.path == "[vdso]")?;
    Memory::open().ok()?.read(own.range)
}

impl Memory {
    /// Opens the memory of this process.
    ///
    /// # Errors
    ///
    /// Returns an error that names both ways if the kernel forbids both.
    pub fn open() -> io::Result<Self> {
        const FILE: &str = "/proc/thread-self/mem";
        let why = match File::open(FILE) {
            Ok(file) => return Ok(Self::File(file)),
            Err(why) => why,
        };
        let known = FILE.as_ptr().addr() as u64;
        if Self::Call.read(known..known + 1).is_some() {
            return Ok(Self::Call);
        }
        let what = format!(
            "{FILE} cannot be opened ({why}), and process_vm_readv is refused; mount /proc, or allow that call"
        );
        Err(io::Error::new(why.kind(), what))
    }

    /// Returns the bytes at these addresses, or `None` if some of them are not mapped.
    #[must_use]
    pub fn read(&self, range: Range<u64>) -> Option<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(range.end.checked_sub(range.start)?).ok()?];
        match self {
            Self::File(file) => file.read_exact_at(&mut bytes, range.start).ok()?,
            Self::Call => read_by_call(&mut bytes, range.start)?,
            Self::Files(files) => files.read(&mut bytes, range.start)?,
        }
        Some(bytes)
    }
}

/// Fills `bytes` from the address `from` on, or returns `None` if some of it is not mapped.
#[allow(unsafe_code)]
fn read_by_call(bytes: &mut [u8], from: u64) -> Option<()> {
    let from = std::ptr::with_exposed_provenance_mut(usize::try_from(from).ok()?);
    let remote = libc::iovec { iov_base: from, iov_len: bytes.len() };
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: the kernel writes to `bytes`, which is ours. Where it reads, an unmapped page makes the call fail without a fault.
    let read = unsafe {
        libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
    };
    (usize::try_from(read) == Ok(bytes.len())).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_reads_as_it_is_and_what_is_not_mapped_fails() {
        let known = *b"sixteen known by";
        let at = known.as_ptr().addr() as u64;
        for memory in [Memory::open().unwrap(), Memory::Call] {
            assert_eq!(memory.read(at..at + 16).unwrap(), known, "{memory:?}");
            assert_eq!(memory.read(16..32), None, "{memory:?}");
        }
    }
    #[test]
    fn the_code_of_a_process_is_read_from_its_files() {
        let process = std::process::id();
        let mapped = crate::maps::mappings_of(process).unwrap();
        let files = Memory::Files(MappedFiles::of(process, &mapped));
        let own = Memory::open().unwrap();
        let code = mapped.iter().filter(|it| it.executable && it.path.starts_with('/'));
        let mut read = 0;
        for range in code.map(|mapping| mapping.range.start..mapping.range.start + 4096) {
            assert_eq!(files.read(range.clone()), own.read(range.clone()), "{range:x?}");
            read += 1;
        }
        assert!(read > 1, "{mapped:?}");
        let stack = mapped.iter().find(|mapping| mapping.path == "[stack]").unwrap();
        assert_eq!(files.read(stack.range.start..stack.range.start + 8), None);
    }
}
