//! Reading this process's memory without a fault, whatever happens to it meanwhile.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// This process's memory. What is unmapped while it is read makes the read fail, and nothing faults.
#[derive(Debug)]
pub enum Memory {
    /// As a file. It is forbidden where the process is not to be dumped, such as with a file's capabilities.
    File(File),
    /// By a call, which old containers forbid.
    Call,
}

impl Memory {
    /// This process's.
    ///
    /// # Errors
    /// If both ways are forbidden.
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
            "{FILE} cannot be opened ({why}), nor may the process use process_vm_readv: allow either"
        );
        Err(io::Error::new(why.kind(), what))
    }

    /// What is at these addresses, if all of it is mapped.
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

/// Reads what the process has there. `None` if not all of it is mapped.
#[allow(unsafe_code)]
fn read_by_call(bytes: &mut [u8], from: u64) -> Option<()> {
    let from = std::ptr::with_exposed_provenance_mut(usize::try_from(from).ok()?);
    let remote = libc::iovec { iov_base: from, iov_len: bytes.len() };
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: the kernel writes to memory of ours, and what is not mapped where it reads is an error and no fault.
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
