//! Unpacks a file, within bounds, and recognizes what is not pprof.

use std::io::{self, ErrorKind, Read};

use flate2::read::MultiGzDecoder;

use super::limits::{Bound, ReadLimits};
use super::{ReadError, foreign};

/// How many bytes tell what a file is.
const HEAD: usize = 512;

/// Reads and unpacks the whole file.
pub(super) fn unpacked(mut reader: impl Read, limits: &ReadLimits) -> Result<Vec<u8>, ReadError> {
    let mut head = Vec::new();
    // A reader that fails later is told apart from a file that is of another kind.
    let begun = reader.by_ref().take(HEAD as u64).read_to_end(&mut head);
    let is_gzip = head.starts_with(&[0x1f, 0x8b]);
    if !is_gzip {
        foreign::refuse(&head)?;
    }
    begun.map_err(ReadError::Read)?;
    if head.is_empty() {
        return Err(ReadError::Empty);
    }
    // The packed file has a limit too, because any number of empty gzip files in a row unpack to nothing.
    let whole = head.chain(reader.take(limits.bytes));
    let bytes = match is_gzip {
        true => within(MultiGzDecoder::new(whole), limits).map_err(unpacking)?,
        false => within(whole, limits).map_err(ReadError::Read)?,
    };
    foreign::refuse(&bytes)?;
    let bound = Bound { what: "unpacked bytes", name: "bytes", limit: limits.bytes };
    bound.holds(bytes.len() as u64)?;
    if bytes.is_empty() { Err(ReadError::Empty) } else { Ok(bytes) }
}

/// Reads one byte more than the limit at most.
fn within(reader: impl Read, limits: &ReadLimits) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limits.bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Tells a damaged gzip from a reader that failed.
fn unpacking(error: io::Error) -> ReadError {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::InvalidInput | ErrorKind::InvalidData => {
            ReadError::Gzip(error)
        }
        _ => ReadError::Read(error),
    }
}
