//! What the kernel has mapped into this process, or into another one.

use std::io;
use std::ops::Range;

/// A range of addresses of a process, as one line of `/proc/thread-self/maps` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mapping {
    /// The addresses.
    pub range: Range<u64>,
    /// Whether the process may read there.
    pub readable: bool,
    /// Whether the process may write there.
    pub writable: bool,
    /// Whether the process may run code there.
    pub executable: bool,
    /// Whether other processes do not see what this one writes there.
    pub private: bool,
    /// The offset in the file at which the mapping begins.
    pub offset: u64,
    /// The number of the file in its file system, or 0 if there is no file or the number is not known.
    pub inode: u64,
    /// The file, or a name in brackets, or nothing.
    pub path: String,
}

/// Returns the current mappings of this process, in the order of their addresses.
///
/// # Errors
///
/// Returns an error that names `/proc/thread-self/maps` if that file cannot be read, as where `/proc` is not mounted.
pub fn mappings() -> io::Result<Vec<Mapping>> {
    // The file of the process, /proc/self/maps, is empty once the first thread has ended.
    const FILE: &str = "/proc/thread-self/maps";
    let text = std::fs::read(FILE).map_err(|cause| {
        let remedy = match cause.kind() {
            io::ErrorKind::NotFound => "mount /proc (mount -t proc proc /proc)",
            _ => "let this process read it",
        };
        let what = format!(
            "{FILE} cannot be read ({cause}), so it is not known which files are mapped; {remedy}"
        );
        io::Error::new(cause.kind(), what)
    })?;
    Ok(parse(&text))
}

/// Returns the current mappings of another process, in the order of their addresses. There are none once it has ended.
///
/// # Errors
///
/// Returns an error that names the file if it cannot be read. Usually this process must run as the same user, and the other one must not
/// have changed its privileges.
pub fn mappings_of(process: u32) -> io::Result<Vec<Mapping>> {
    let file = format!("/proc/{process}/maps");
    let text = std::fs::read(&file)
        .map_err(|cause| io::Error::new(cause.kind(), format!("{file} cannot be read: {cause}")))?;
    Ok(parse(&text))
}

fn parse(text: &[u8]) -> Vec<Mapping> {
    // Paths need not be UTF-8.
    String::from_utf8_lossy(text).lines().filter_map(Mapping::parse).collect()
}

impl Mapping {
    /// Returns a mapping of code, as a record of another process tells of it.
    #[must_use]
    pub fn of_code(range: Range<u64>, offset: u64, path: String) -> Self {
        let (readable, writable, executable, private) = (true, false, true, true);
        Self { range, readable, writable, executable, private, offset, inode: 0, path }
    }

    fn parse(line: &str) -> Option<Self> {
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let allowed = words.next()?;
        let offset = number(words.next()?)?;
        let inode = words.nth(1)?.parse().ok()?;
        let path = words.next().unwrap_or_default().trim_start().to_owned();
        let has = |what| allowed.contains(what);
        Some(Self {
            range: number(start)?..number(end)?,
            readable: has('r'),
            writable: has('w'),
            executable: has('x'),
            private: has('p'),
            offset,
            inode,
            path,
        })
    }

    /// Returns whether a thread's stack may be in this mapping.
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
        assert_eq!(mapping.inode, 1234);
        assert!(mapping.readable && !mapping.writable && mapping.executable && mapping.private);
        let nameless = Mapping::parse("1000-2000 rw-p 00000000 00:00 0 ").unwrap();
        assert!(nameless.path.is_empty() && nameless.may_hold_stack());
        assert_eq!(Mapping::parse("rubbish"), None);
    }
}
