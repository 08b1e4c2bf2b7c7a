//! Reads a jitdump, in which a compiler at run time lists the functions that it makes. Perf describes the format
//! (`tools/perf/Documentation/jitdump-specification.txt`).

use std::io::{self, BufRead, ErrorKind, Read};
use std::ops::Range;

/// The first word, in this machine's byte order.
const MAGIC: u32 = 0x4a69_5444;

/// A function was made.
const LOAD: u32 = 0;
/// A function was moved.
const MOVE: u32 = 1;

/// Passes each function to `found`, in the order of time: where it is, and its name, or `None` if that is not known.
///
/// Stops at what is damaged, and at the end of what the compiler has written so far.
pub(crate) fn functions(
    mut dump: impl BufRead,
    longest_name: usize,
    mut found: impl FnMut(Range<u64>, Option<&str>),
) -> io::Result<()> {
    if word(&mut dump)? != MAGIC {
        return Err(ErrorKind::InvalidData.into());
    }
    let _version = word(&mut dump)?;
    let header = word(&mut dump)?;
    skip(&mut dump, u64::from(header).saturating_sub(12))?;
    loop {
        let (kind, size) = (word(&mut dump)?, word(&mut dump)?);
        let _time = long(&mut dump)?;
        let mut record = dump.by_ref().take(u64::from(size).saturating_sub(16));
        if kind == LOAD || kind == MOVE {
            // The process, the thread, and where the code is; or where it was, if it was moved.
            skip(&mut record, 16)?;
            let first = long(&mut record)?;
            let start = if kind == MOVE { long(&mut record)? } else { first };
            let range = start..start.saturating_add(long(&mut record)?);
            let _number = long(&mut record)?;
            let name = if kind == LOAD { name(&mut record, longest_name)? } else { None };
            found(range, name.as_deref());
        }
        let rest = record.limit();
        skip(&mut record, rest)?;
    }
}

/// Reads a name, which ends with a zero, or its beginning if it is too long.
fn name(record: &mut impl BufRead, longest: usize) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    record.take(longest as u64).read_until(0, &mut bytes)?;
    let name = String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(&bytes)).into_owned();
    Ok(Some(name).filter(|name| !name.is_empty()))
}

fn word(from: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}

fn long(from: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn skip(from: &mut impl Read, length: u64) -> io::Result<()> {
    match io::copy(&mut from.take(length), &mut io::sink())? {
        skipped if skipped == length => Ok(()),
        _ => Err(ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, numbers: &[u64], name: &[u8]) -> Vec<u8> {
        let mut body: Vec<u8> = [0; 16].to_vec();
        body.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
        body.extend(name);
        let size = body.len() as u32 + 16;
        [&kind.to_ne_bytes()[..], &size.to_ne_bytes(), &[0; 8], &body].concat()
    }

    #[test]
    fn functions_have_their_names_and_what_was_moved_has_none() {
        let words = [MAGIC, 1, 40, 62, 0, 7].map(u32::to_ne_bytes).concat();
        let dump = [
            [&words[..], &[0; 16]].concat(),
            record(LOAD, &[0x1000, 0x10, 1], b"first\0\x90\x90"),
            record(9, &[], b"of a kind that is not known"),
            record(MOVE, &[0x1000, 0x2000, 0x10, 1], b""),
            record(LOAD, &[u64::MAX, 0x10, 2], b"a long name\0"),
        ]
        .concat();
        let mut all = Vec::new();
        let read = functions(&dump[..], 6, |range, name| {
            all.push((range.start, range.end, name.map(str::to_owned)));
        });
        assert_eq!(read.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let name = |name: &str| Some(name.to_owned());
        let [first, moved, long] = &all[..] else { panic!("{all:?}") };
        assert_eq!(*first, (0x1000, 0x1010, name("first")));
        assert_eq!(*moved, (0x2000, 0x2010, None));
        assert_eq!(*long, (u64::MAX, u64::MAX, name("a long")));
        for length in 0..dump.len() {
            assert!(functions(&dump[..length], 100, |_, _| ()).is_err());
        }
    }
}
