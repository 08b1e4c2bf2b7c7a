//! The process's memory: what is mapped where, as the kernel tells, and reading it without a fault whatever happens to it
//! meanwhile.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// One line of `/proc/thread-self/maps`. (That of the process is gone when its first thread has ended.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) range: Range<u64>,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) executable: bool,
    pub(super) private: bool,
    pub(super) offset: u64,
    /// A file, a name in brackets, or nothing.
    pub(super) path: String,
}

/// All mappings at this moment, by address.
pub(super) fn read() -> io::Result<Vec<Mapping>> {
    // Paths need not be UTF-8.
    let text = std::fs::read("/proc/thread-self/maps")?;
    Ok(String::from_utf8_lossy(&text).lines().filter_map(Mapping::parse).collect())
}

impl Mapping {
    fn parse(line: &str) -> Option<Self> {
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let allowed = words.next()?;
        let offset = number(words.next()?)?;
        // The device and the inode.
        let path = words.nth(2).unwrap_or_default().trim_start().to_owned();
        let has = |what| allowed.contains(what);
        Some(Self {
            range: number(start)?..number(end)?,
            readable: has('r'),
            writable: has('w'),
            executable: has('x'),
            private: has('p'),
            offset,
            path,
        })
    }

    /// Whether a stack may be in it.
    pub(super) fn may_hold_stack(&self) -> bool {
        self.readable && self.writable && self.private
    }
}

/// The process's memory. A module may be unmapped while it is read: then a read fails, and nothing faults.
#[derive(Debug)]
pub(super) enum Memory {
    /// As a file. It is forbidden where the process is not to be dumped, such as with a file's capabilities.
    File(File),
    /// By a call, which old containers forbid.
    Call,
}

impl Memory {
    pub(super) fn open() -> io::Result<Self> {
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

    pub(super) fn read(&self, range: Range<u64>) -> Option<Vec<u8>> {
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

/// What is in memory at these addresses, if it is mapped.
#[cfg(feature = "symbols")]
pub(crate) fn memory(addresses: Range<u64>) -> Option<Vec<u8>> {
    Memory::open().ok()?.read(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_the_kernel_writes_it() {
        let line = "7f0000001000-7f0000003000 r-xp 00002000 fe:00 1234                       /usr/lib/a b.so";
        let mapping = Mapping::parse(line).unwrap();
        assert_eq!(mapping.range, 0x7f00_0000_1000..0x7f00_0000_3000);
        assert_eq!((mapping.offset, &*mapping.path), (0x2000, "/usr/lib/a b.so"));
        assert!(mapping.readable && !mapping.writable && mapping.executable && mapping.private);
        let nameless = Mapping::parse("1000-2000 rw-p 00000000 00:00 0 ").unwrap();
        assert!(nameless.path.is_empty() && nameless.may_hold_stack());
        assert_eq!(Mapping::parse("rubbish"), None);
    }

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
