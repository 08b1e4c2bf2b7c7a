//! A look at the lengths in a file of `perf record`, before they are taken for granted: linux-perf-data 0.13 reserves what a file says, and
//! divides by it. Such a file would end the process.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// The sizes of the kernel's `perf_event_attr` that can be: that of its first version, and far beyond today's 136.
const ATTRIBUTE: std::ops::RangeInclusive<u64> = 64..=4096;

/// The size of the beginning of a record: its type, what kind it is, and its size.
const RECORD: u64 = 8;

/// A record that is followed by as many bytes more as it says.
const AUXTRACE: u32 = 71;

/// Records with others in them, compressed.
const COMPRESSED: [u32; 2] = [81, 83];

/// The first of the features that only Android's simpleperf has.
const SIMPLEPERF: usize = 128;

/// The size of the header of a file that was written to a pipe: its records follow, and nothing else.
const PIPE_HEADER: u64 = 16;

/// The feature that describes events.
const EVENT_DESC: usize = 12;

/// Two numbers of a section: where it begins, and its length.
#[derive(Clone, Copy)]
struct Section {
    start: u64,
    length: u64,
}

/// A file, and its length.
struct File<R> {
    file: R,
    length: u64,
}

/// How a file is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It was written as a file.
    File,
    /// It was written to a pipe.
    Pipe,
}

/// Why a file is not read.
enum Fault {
    Io(io::Error),
    Length,
    /// It has something that is not read.
    Unread(&'static str),
}

impl From<io::Error> for Fault {
    fn from(why: io::Error) -> Self {
        Self::Io(why)
    }
}

fn look(mut file: impl Read + Seek) -> Result<Kind, Fault> {
    let length = file.seek(SeekFrom::End(0))?;
    let kind = File { file: &mut file, length }.check()?;
    file.rewind()?;
    Ok(kind)
}

fn likely(is_likely: bool) -> Result<(), Fault> {
    if is_likely { Ok(()) } else { Err(Fault::Length) }
}

/// Looks at the file, and leaves it at its beginning.
///
/// # Errors
/// Returns what is wrong with it.
pub(crate) fn check(mut file: impl Read + Seek) -> Result<Kind, String> {
    look(&mut file).map_err(|fault| match fault {
        Fault::Io(why) if why.kind() == io::ErrorKind::UnexpectedEof => {
            "it is cut short".to_owned()
        }
        Fault::Io(why) => why.to_string(),
        Fault::Length => "it is damaged: it has lengths that cannot be".to_owned(),
        Fault::Unread(what) => what.to_owned(),
    })
}

impl<R: Read + Seek> File<R> {
    fn check(&mut self) -> Result<Kind, Fault> {
        self.file.seek(SeekFrom::Start(8))?;
        let header = self.word()?;
        if header == PIPE_HEADER {
            self.check_records(Section { start: header, length: self.length - header })?;
            return Ok(Kind::Pipe);
        }
        let attribute = self.word()?;
        let [attributes, records, types] = [self.section()?, self.section()?, self.section()?];
        let mut features = Vec::new();
        for at in 0..4 {
            let bits = self.word()?;
            features.extend((0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| 64 * at + bit));
        }
        let is_likely = header <= self.length
            && ATTRIBUTE.contains(&attribute)
            && self.has(attributes)
            && records.start.checked_add(records.length).is_some();
        likely(is_likely)?;
        if types.length > 0 {
            return Err(Fault::Unread("it is of a perf before 2013"));
        }
        if features.iter().any(|feature| *feature >= SIMPLEPERF) {
            return Err(Fault::Unread("it is of Android's simpleperf, and not of perf"));
        }
        self.check_features(&features, records)?;
        self.check_records(records)?;
        Ok(Kind::File)
    }

    /// Behind the records, there is a section's place for each feature.
    fn check_features(&mut self, features: &[usize], records: Section) -> Result<(), Fault> {
        let places = records.start + records.length;
        for (at, feature) in features.iter().enumerate() {
            self.file.seek(SeekFrom::Start(places.saturating_add(16 * at as u64)))?;
            let section = self.section()?;
            likely(self.has(section))?;
            if *feature == EVENT_DESC {
                self.check_events(section)?;
            }
        }
        Ok(())
    }

    /// A number of events, and the size of an attribute; then for each event its attribute, a number of ids, its name after a length, and the ids.
    fn check_events(&mut self, section: Section) -> Result<(), Fault> {
        self.file.seek(SeekFrom::Start(section.start))?;
        let (events, attribute) = (u64::from(self.half()?), u64::from(self.half()?));
        likely(ATTRIBUTE.contains(&attribute) && events <= section.length / attribute)?;
        let mut at = section.start + 8;
        for _ in 0..events {
            self.file.seek(SeekFrom::Start(at + attribute))?;
            let (ids, name) = (u64::from(self.half()?), u64::from(self.half()?));
            at += attribute + 8 + name + 8 * ids;
            likely(at <= section.start + section.length)?;
        }
        Ok(())
    }

    /// What follows a record is in the file. A file that is cut short has fewer records.
    fn check_records(&mut self, records: Section) -> Result<(), Fault> {
        let end = (records.start + records.length).min(self.length);
        let mut at = records.start;
        self.file.seek(SeekFrom::Start(at))?;
        let mut file = BufReader::with_capacity(1 << 16, &mut self.file);
        while at.saturating_add(RECORD) <= end {
            let mut head = [0; RECORD as usize];
            file.read_exact(&mut head)?;
            let [a, b, c, d, _, _, low, high] = head;
            let (kind, size) = (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([low, high]));
            let mut next = at + u64::from(size);
            let mut read = RECORD;
            if COMPRESSED.contains(&kind) {
                return Err(Fault::Unread("its records are compressed: record without -z"));
            }
            if kind == AUXTRACE && next <= self.length {
                let mut more = [0; 8];
                file.read_exact(&mut more)?;
                read += 8;
                next = next.saturating_add(u64::from_le_bytes(more));
                likely(next <= self.length)?;
            }
            if u64::from(size) < read {
                // What comes before is read.
                return Ok(());
            }
            let skipped = i64::try_from(next - at - read).map_err(|_| Fault::Length)?;
            file.seek_relative(skipped)?;
            at = next;
        }
        Ok(())
    }

    fn has(&self, section: Section) -> bool {
        section.start.checked_add(section.length).is_some_and(|end| end <= self.length)
    }

    fn section(&mut self) -> io::Result<Section> {
        Ok(Section { start: self.word()?, length: self.word()? })
    }

    fn word(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn half(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.file.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const HEADER: u64 = 104;
    const ATTR: u64 = 136;

    /// A file with an attribute of zeroes, and a record of this type.
    fn file(record: u32) -> Vec<u8> {
        let (attributes, records) = ([HEADER, ATTR + 16], [HEADER + ATTR + 16, 16]);
        let words = [[HEADER, ATTR + 16], attributes, records, [0, 0], [0, 0], [0, 0]];
        let mut file = b"PERFILE2".to_vec();
        words.as_flattened().iter().for_each(|word| file.extend(word.to_le_bytes()));
        file.resize(records[0] as usize, 0);
        let size_and_kind = 16 << 48 | u64::from(record);
        file.extend([size_and_kind, 0].map(u64::to_le_bytes).as_flattened());
        file
    }

    /// The file with another number at a place.
    fn with(mut file: Vec<u8>, at: usize, word: u64) -> Vec<u8> {
        file[at..at + 8].copy_from_slice(&word.to_le_bytes());
        file
    }

    fn checked(file: &[u8]) -> Result<Kind, String> {
        check(Cursor::new(file))
    }

    #[test]
    fn files_of_perf_are_known_also_if_they_are_cut_short_or_came_through_a_pipe() {
        let whole = file(3);
        assert_eq!(checked(&whole), Ok(Kind::File));
        assert_eq!(checked(&whole[..whole.len() - 4]), Ok(Kind::File));
        let pipe =
            [&with(whole.clone(), 8, PIPE_HEADER)[..16], &whole[whole.len() - 16..]].concat();
        assert_eq!(checked(&pipe), Ok(Kind::Pipe));
        assert_eq!(checked(&whole[..50]), Err("it is cut short".to_owned()));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_the_reason() {
        for (file, wanted) in [
            (with(file(3), 16, 8), "lengths that cannot be"),
            (with(file(3), 32, 1 << 20), "lengths that cannot be"),
            (with(file(3), 64, 16), "before 2013"),
            (with(file(3), 88, 1 << 2), "simpleperf"),
            (file(81), "without -z"),
        ] {
            let why = checked(&file).expect_err(wanted);
            assert!(why.contains(wanted), "{why}");
        }
    }
}
