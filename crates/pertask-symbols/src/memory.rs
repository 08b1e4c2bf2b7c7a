//! Reads this process's memory without a fault, even if other threads unmap it meanwhile.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// A reader of this process's own memory.
///
/// A read of memory that is not mapped fails. It does not fault.
#[derive(Debug)]
pub enum Memory {
    /// Reads through `/proc/thread-self/mem`. The kernel forbids it to a process that may not be dumped, such as one with file
    /// capabilities.
    File(File),
    /// Reads with `process_vm_readv`, which old container runtimes forbid.
    Call,
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
}
