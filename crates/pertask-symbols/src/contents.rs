//! The bytes of a file: mapped, or read into memory of their own. Both go back to the system as a whole when they are dropped.

use crate::problem::Reason;
use gimli::{EndianReader, LittleEndian};
use memmap2::{Mmap, MmapMut};
use object::{CompressionFormat, ObjectSection, ReadCache, ReadRef};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs::File;
use std::ops::{Deref, Range};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A section's bytes, shared by all their readers.
pub(crate) type Bytes = EndianReader<LittleEndian, Contents>;

/// Bytes that are shared by all their readers.
#[derive(Clone, Debug)]
pub(crate) struct Contents(Arc<Kept>);

#[derive(Debug)]
enum Kept {
    /// A file.
    Mapped(Mmap),
    /// A copy of a part of a file.
    Copied(MmapMut),
    Small(Vec<u8>),
}

impl Deref for Contents {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &*self.0 {
            Kept::Mapped(bytes) => bytes,
            Kept::Copied(bytes) => bytes,
            Kept::Small(bytes) => bytes,
        }
    }
}

// SAFETY: the bytes are on the heap or in a mapping. They stay there while an `Arc` is left, wherever that moves, and nobody
// writes to them: an `Arc` gives out no exclusive reference, and `Kept` has no interior mutability.
unsafe impl gimli::StableDeref for Contents {}
// SAFETY: a clone is an `Arc` to the same bytes.
unsafe impl gimli::CloneStableDeref for Contents {}

/// Copies of fewer bytes are on the heap.
const SMALL: usize = 64 << 10;

impl Contents {
    /// Maps the file of the running program.
    ///
    /// No other file is mapped: if somebody truncates a mapped file, its reader is killed. The running program is mapped already,
    /// and would not survive that either.
    pub(crate) fn of_running_program() -> std::io::Result<Self> {
        let file = File::open("/proc/self/exe")?;
        // SAFETY: this is the file that the running code is mapped from. Linux refuses to write to it (ETXTBSY). Where a file system
        // allows that nevertheless, the code that reads these bytes changes with them: whoever writes to a running program's file
        // breaks the program, with this mapping or without.
        let bytes = unsafe { Mmap::map(&file)? };
        Ok(Self(Arc::new(Kept::Mapped(bytes))))
    }

    pub(crate) fn small(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Kept::Small(bytes)))
    }

    /// Copies bytes that `fill` writes.
    fn copied(
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), Reason>,
    ) -> Result<Self, Reason> {
        if length < SMALL {
            let mut bytes = vec![0; length];
            fill(&mut bytes)?;
            return Ok(Self::small(bytes));
        }
        let mut bytes = MmapMut::map_anon(length).map_err(Reason::Unreadable)?;
        fill(&mut bytes)?;
        Ok(Self(Arc::new(Kept::Copied(bytes))))
    }

    pub(crate) fn reader(self) -> Bytes {
        EndianReader::new(self, LittleEndian)
    }
}

/// A file whose headers, symbol tables and notes are being read, within a limit of memory. They are dropped with this.
#[derive(Debug)]
pub(crate) struct Limited<'a> {
    file: &'a File,
    /// Parts of the file, kept as long as this.
    parts: ReadCache<&'a File>,
    /// The parts that are held: where each begins, and how long it is, or 0 for a string.
    held: RefCell<HashSet<(u64, u64)>>,
    held_bytes: Cell<usize>,
    limit_bytes: usize,
    /// What did not fit.
    refused: Cell<Option<u64>>,
}

impl<'a> Limited<'a> {
    pub(crate) fn new(file: &'a File, limit_bytes: usize) -> Self {
        let (held, held_bytes, refused) = Default::default();
        Self { file, parts: ReadCache::new(file), held, held_bytes, limit_bytes, refused }
    }

    /// Returns why a part of the file was not read, if that was for want of memory.
    pub(crate) fn refusal(&self) -> Option<Reason> {
        let room_bytes = self.limit_bytes - self.held_bytes.get();
        Some(Reason::TableTooLarge { needed_bytes: self.refused.get()?, room_bytes })
    }

    /// Takes room for a part, if it is not held yet.
    fn hold(&self, part: (u64, u64), size: u64) -> Result<(), ()> {
        // A place in the tables of parts takes memory, too.
        const PLACE: u64 = 128;
        if self.held.borrow().contains(&part) {
            return Ok(());
        }
        let mut room = self.limit_bytes - self.held_bytes.get();
        if take_room(size.saturating_add(PLACE), &mut room).is_err() {
            self.refused.set(self.refused.get().or(Some(size)));
            return Err(());
        }
        self.held_bytes.set(self.limit_bytes - room);
        self.held.borrow_mut().insert(part);
        Ok(())
    }
}

impl<'d> ReadRef<'d> for &'d Limited<'_> {
    fn len(self) -> Result<u64, ()> {
        ReadRef::len(&self.parts)
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'d [u8], ()> {
        // A damaged file may promise more than it has. No limit of memory is to blame for that.
        offset
            .checked_add(size)
            .filter(|end| ReadRef::len(self).is_ok_and(|len| *end <= len))
            .ok_or(())?;
        self.hold((offset, size), size)?;
        self.parts.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'d [u8], ()> {
        let start = range.start;
        // It reads some kilobytes at most.
        let string = self.parts.read_bytes_at_until(range, delimiter)?;
        self.hold((start, 0), string.len() as u64)?;
        Ok(string)
    }
}

/// Where the bytes of a file that is being read come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// The whole file is there.
    Whole(&'a Contents),
    /// What is wanted is copied.
    File(&'a Limited<'a>),
}

impl Source<'_> {
    /// Returns the memory that is needed until the file has been read.
    pub(crate) fn held_bytes(self) -> usize {
        match self {
            Self::Whole(_) => 0,
            Self::File(limited) => limited.held_bytes.get(),
        }
    }

    /// Returns the bytes of a section, unpacked, and takes room for what is copied.
    pub(crate) fn section<'d, S: ObjectSection<'d>>(
        self,
        section: &S,
        room_bytes: &mut usize,
    ) -> Result<Bytes, Reason> {
        let place = section.compressed_file_range().map_err(malformed)?;
        let range = place.offset..place.offset.saturating_add(place.uncompressed_size);
        if place.format == CompressionFormat::None {
            return self.bytes(range, room_bytes);
        }
        // The packed bytes are dropped at once, and take no room that lasts.
        let mut transient = *room_bytes;
        let packed = place.offset..place.offset.saturating_add(place.compressed_size);
        let packed = self.bytes(packed, &mut transient)?;
        let beyond = |_| Reason::Malformed("a section is larger than memory".to_owned());
        let length = usize::try_from(place.uncompressed_size).map_err(beyond)?;
        take_room(place.uncompressed_size, room_bytes)?;
        let fill = |bytes: &mut [u8]| unpack(place.format, packed.bytes(), bytes);
        Ok(Contents::copied(length, fill)?.reader())
    }

    /// Returns the bytes of a part of the file, and takes room for what is copied.
    pub(crate) fn bytes(self, range: Range<u64>, room_bytes: &mut usize) -> Result<Bytes, Reason> {
        let beyond = || Reason::Malformed("a section is longer than the file".to_owned());
        let length = usize::try_from(range.end - range.start).map_err(|_| beyond())?;
        match self {
            Self::Whole(contents) => {
                let start = usize::try_from(range.start).map_err(|_| beyond())?;
                let end = start.checked_add(length).filter(|end| *end <= contents.len());
                Ok(contents.clone().reader().range(start..end.ok_or_else(beyond)?))
            }
            Self::File(Limited { file, .. }) => {
                // A damaged file may promise more than it has.
                let there = file.metadata().map_err(Reason::Unreadable)?.len();
                if range.end > there {
                    return Err(beyond());
                }
                take_room(length as u64, room_bytes)?;
                let fill = |bytes: &mut [u8]| {
                    file.read_exact_at(bytes, range.start).map_err(Reason::Unreadable)
                };
                Ok(Contents::copied(length, fill)?.reader())
            }
        }
    }
}

/// Unpacks a section as a whole.
fn unpack(format: CompressionFormat, packed: &[u8], to: &mut [u8]) -> Result<(), Reason> {
    let written = match format {
        CompressionFormat::Zlib => {
            let mut unpacker = flate2::Decompress::new(true);
            let done = unpacker.decompress(packed, to, flate2::FlushDecompress::Finish);
            done.ok().map(|_| unpacker.total_out())
        }
        CompressionFormat::Zstandard => {
            ruzstd::decoding::FrameDecoder::new().decode_all(packed, to).ok().map(|it| it as u64)
        }
        _ => None,
    };
    let whole = written == Some(to.len() as u64);
    whole.then_some(()).ok_or_else(|| Reason::Malformed("a section cannot be unpacked".to_owned()))
}

/// Takes memory from what is left of the limit.
pub(crate) fn take_room(needed_bytes: u64, room_bytes: &mut usize) -> Result<(), Reason> {
    let too_large = Reason::TooLarge { needed_bytes, room_bytes: *room_bytes };
    let left = usize::try_from(needed_bytes).ok().and_then(|needed| room_bytes.checked_sub(needed));
    *room_bytes = left.ok_or(too_large)?;
    Ok(())
}

pub(crate) fn malformed(what: object::Error) -> Reason {
    Reason::Malformed(what.to_string())
}
