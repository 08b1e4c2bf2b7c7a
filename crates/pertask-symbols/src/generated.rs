//! Code that no file holds, such as what a compiler makes at run time. Its compiler may list its functions in
//! `/tmp/perf-PID.map` or in a jitdump, which are formats of perf's.

use crate::jitdump;
use crate::maps::{Mapping, mappings};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

/// The name of code that no file holds and that nobody has named.
pub const ANONYMOUS_CODE: &str = "[anonymous code]";

/// The most bytes of a list that are read.
const LONGEST_LIST: u64 = 256 << 20;

/// The most bytes of a name.
const LONGEST_NAME: usize = 2_048;

/// The names of some addresses of this process at which no module has code.
#[derive(Debug, Default)]
pub struct GeneratedCode {
    names: HashMap<u64, String>,
    /// Where files are mapped that are no modules.
    files: Vec<Range<u64>>,
}

impl GeneratedCode {
    /// Finds the names of these addresses of this process.
    ///
    /// Without addresses, this reads nothing. It reads no list that another user could have written.
    #[must_use]
    pub fn of_this_process(mut addresses: Vec<u64>) -> Self {
        if addresses.is_empty() {
            return Self::default();
        }
        addresses.sort_unstable();
        let is_file = |mapping: &Mapping| {
            mapping.path.starts_with('/')
                && !["/memfd:", "/dev/zero", "//anon"].iter().any(|it| mapping.path.starts_with(it))
        };
        let all = mappings().unwrap_or_default();
        let files = all.iter().filter(|mapping| is_file(mapping));
        let files = files.map(|mapping| mapping.range.clone()).collect();
        let mut found = Self { names: HashMap::new(), files };
        if let Some(list) = open_trusted(&format!("/tmp/perf-{}.map", std::process::id())) {
            found.read_list(BufReader::new(list.take(LONGEST_LIST)), &addresses);
        }
        // A compiler that writes a jitdump maps a page of it, so that perf finds it.
        let name = format!("/jit-{}.dump", std::process::id());
        let dump = all.iter().find(|mapping| mapping.path.ends_with(&name));
        if let Some(dump) = dump.and_then(|mapping| open_trusted(&mapping.path)) {
            found.read_dump(BufReader::new(dump.take(LONGEST_LIST)), &addresses);
        }
        found
    }

    /// Returns the name of an address, or `None` if a file is mapped there.
    #[must_use]
    pub fn name(&self, address: u64) -> Option<&str> {
        let name = self.names.get(&address).map(String::as_str);
        let in_file = || self.files.iter().any(|range| range.contains(&address));
        name.or_else(|| (!in_file()).then_some(ANONYMOUS_CODE))
    }

    /// Reads a list, of which each line is `START SIZE NAME`, the numbers in hexadecimal digits. Code that is made later may be in
    /// the place of earlier code, so later lines hold.
    fn read_list(&mut self, mut list: impl BufRead, addresses: &[u64]) {
        let mut line = Vec::new();
        loop {
            line.clear();
            // A damaged list may have a line without end.
            let most = (LONGEST_NAME + 64) as u64;
            match list.by_ref().take(most).read_until(b'\n', &mut line) {
                Ok(1..) => (),
                _ => return,
            }
            let text = String::from_utf8_lossy(&line);
            let Some((range, name)) = parse(&text) else { continue };
            self.take(&range, Some(name), addresses);
        }
    }

    fn read_dump(&mut self, dump: impl BufRead, addresses: &[u64]) {
        let take = |range: Range<u64>, name: Option<&str>| self.take(&range, name, addresses);
        // It ends where its writer is, or where it is damaged.
        let _ = jitdump::functions(dump, LONGEST_NAME, take);
    }

    /// Gives this name to the addresses in the range, in place of those that they had.
    fn take(&mut self, range: &Range<u64>, name: Option<&str>, addresses: &[u64]) {
        let first = addresses.partition_point(|address| *address < range.start);
        for address in addresses[first..].iter().take_while(|address| **address < range.end) {
            match name {
                Some(name) => self.names.insert(*address, name.to_owned()),
                None => self.names.remove(address),
            };
        }
    }
}

fn parse(line: &str) -> Option<(Range<u64>, &str)> {
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let mut words = line.trim_end().splitn(3, ' ');
    let start = number(words.next()?)?;
    let size = number(words.next()?)?;
    let name = words.next()?.trim();
    (!name.is_empty()).then_some((start..start.saturating_add(size), name))
}

/// Opens a list, if this user or the system wrote it.
fn open_trusted(path: &str) -> Option<File> {
    let safely = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(safely).open(path).ok()?;
    let (about, own) = (file.metadata().ok()?, std::fs::metadata("/proc/self").ok()?);
    (about.is_file() && [0, own.uid()].contains(&about.uid())).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_what_lies_in_its_ranges_and_later_lines_hold() {
        let list = "1000 10 first\n0x1010 0x8 second part\nrubbish\n1000 4 again\n2000 ffffffffffffffff last\n3 3\n";
        let mut code = GeneratedCode::default();
        code.read_list(list.as_bytes(), &[0xfff, 0x1000, 0x100f, 0x1010, 0x1018, u64::MAX - 1]);
        let names = [0xfff, 0x1000, 0x100f, 0x1010, 0x1018, u64::MAX - 1].map(|at| code.name(at));
        let [before, again, first, second, behind, last] = names.map(Option::unwrap);
        assert_eq!([before, behind], [ANONYMOUS_CODE; 2]);
        assert_eq!([again, first, second, last], ["again", "first", "second part", "last"]);
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let list = [&b"1000 10 "[..], &[b'x'; 100_000], b"\n1000 10 good\n"].concat();
        let mut code = GeneratedCode::default();
        code.read_list(&list[..], &[0x1000]);
        assert_eq!(code.name(0x1000), Some("good"));
    }
}
