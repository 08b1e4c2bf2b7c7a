//! What is mapped where in this process, as the kernel tells.

use std::io;
use std::ops::Range;

/// One line of `/proc/thread-self/maps`. (That of the process is gone when its first thread has ended.)
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mapping {
    /// Its addresses.
    pub range: Range<u64>,
    /// Whether it may be read.
    pub readable: bool,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether there may be code in it.
    pub executable: bool,
    /// Whether what is written stays with this process.
    pub private: bool,
    /// Where in the file it begins.
    pub offset: u64,
    /// A file, a name in brackets, or nothing.
    pub path: String,
}

/// All mappings of this process at this moment, by address.
///
/// # Errors
/// If `/proc/thread-self/maps` cannot be read.
pub fn mappings() -> io::Result<Vec<Mapping>> {
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
    #[must_use]
    pub fn may_hold_stack(&self) -> bool {
        self.readable && self.writable && self.private
    }
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
}
