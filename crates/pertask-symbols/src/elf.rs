//! ELF images as they are mapped. Modules and their unwind sections are read from memory alone.

use crate::maps::{Mapping, mappings};
use crate::memory::Memory;
use crate::module::{Module, ModuleRange};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

impl Module {
    /// Returns the modules that are mapped into this process now.
    ///
    /// # Errors
    ///
    /// Returns an error if the process cannot read its mappings or its memory.
    pub fn of_this_process() -> io::Result<Vec<Self>> {
        let (mappings, memory) = (mappings()?, Memory::open()?);
        Ok(MappedElf::all(&mappings, &memory).map(|elf| elf.module()).collect())
    }
}

/// Returns a group of mappings for each time that a file is mapped from its beginning.
///
/// Nameless mappings that follow are in its group, because a module's zeroed data is among them. [`MappedElf::code`] tells what
/// is the module's.
fn grouped(mappings: &[Mapping]) -> impl Iterator<Item = &[Mapping]> {
    let starts = |mapping: &Mapping| {
        mapping.offset == 0
            && mapping.readable
            && (mapping.path.starts_with('/') || mapping.path == "[vdso]")
    };
    let begins = (0..mappings.len()).filter(move |at| starts(&mappings[*at]));
    begins.map(move |begin| {
        let first = &mappings[begin];
        let same = |mapping: &&Mapping| mapping.path == first.path || mapping.path.is_empty();
        let more = mappings[begin + 1..].iter().take_while(|next| same(next) && !starts(next));
        &mappings[begin..=begin + more.count()]
    })
}

/// An ELF image that is mapped into this process.
#[derive(Debug)]
pub struct MappedElf<'a> {
    pub(crate) mappings: &'a [Mapping],
    pub(crate) memory: &'a Memory,
    segments: Vec<Segment>,
    pub(crate) bias: u64,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    kind: u32,
    /// What is allowed there, as the file has it.
    rights: u32,
    offset: u64,
    address: u64,
    /// The length in the file. In memory, zeros follow up to `memory_length`.
    length: u64,
    memory_length: u64,
}

/// The largest section that is read, in bytes.
const LARGEST_SECTION: u64 = 256 << 20;

/// The smallest page. A segment is mapped from the beginning of a page to the end of one.
const PAGE: u64 = 4096;

/// The length of a file's header.
const HEADER: usize = 64;
/// The length of a segment's entry.
const ENTRY: usize = 56;

const EXECUTABLE: u32 = 1;
const WRITABLE: u32 = 2;
const READABLE: u32 = 4;

const LOAD: u32 = 1;
const NOTE: u32 = 4;
const UNWIND_INDEX: u32 = 0x6474_e550;

/// Computes the mappings of a whole file from the known mapping of some of its code. `None` if the file has no such code.
///
/// Records of a process have its mappings of code alone. The tables for unwinding are elsewhere in the file.
#[must_use]
pub fn mappings_around(code: &Mapping, file: &File) -> Option<Vec<Mapping>> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0).ok()?;
    let segments = segments(&header, |from, bytes| file.read_exact_at(bytes, from).ok())?;
    let loaded = segments.iter().filter(|segment| segment.kind == LOAD);
    let floor = |number: u64| number & !(PAGE - 1);
    let holds = |segment: &&Segment| {
        floor(segment.offset) <= code.offset
            && code.offset < segment.offset.saturating_add(segment.length)
            && segment.rights & EXECUTABLE != 0
    };
    let own = loaded.clone().find(holds)?;
    let address = floor(own.address).checked_add(code.offset.checked_sub(floor(own.offset))?)?;
    let bias = code.range.start.wrapping_sub(address);
    let mapping = |segment: &Segment| {
        let start = bias.wrapping_add(floor(segment.address));
        let end = bias.wrapping_add(segment.address.checked_add(segment.length)?);
        let has = |right| segment.rights & right != 0;
        Some(Mapping {
            range: start..end.checked_next_multiple_of(PAGE).filter(|end| *end > start)?,
            readable: has(READABLE),
            writable: has(WRITABLE),
            executable: has(EXECUTABLE),
            private: true,
            offset: floor(segment.offset),
            inode: code.inode,
            path: code.path.clone(),
        })
    };
    Some(loaded.filter_map(mapping).collect())
}

/// A copy of a module's `.eh_frame` and `.eh_frame_hdr`, with the addresses of both and of the code.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnwindSections {
    /// The module's file.
    pub path: String,
    /// The addresses of the module's code in the process, from the first to the last.
    pub code: Range<u64>,
    /// The difference between addresses in the process and in the file's own numbering.
    pub bias: u64,
    /// The addresses of `.eh_frame`, in the file's numbering. The section may end earlier, at its last entry.
    pub frames: Range<u64>,
    /// The bytes of `.eh_frame`.
    pub frames_bytes: Vec<u8>,
    /// The addresses of `.eh_frame_hdr`, in the file's numbering.
    pub index: Range<u64>,
    /// The bytes of `.eh_frame_hdr`.
    pub index_bytes: Vec<u8>,
}

impl<'a> MappedElf<'a> {
    /// Returns the ELF images among the mappings, one for each time that a file is mapped from its beginning.
    pub fn all(mappings: &'a [Mapping], memory: &'a Memory) -> impl Iterator<Item = Self> {
        grouped(mappings).filter_map(|group| Self::read(group, memory))
    }

    /// Returns `None` if the file is not a 64-bit ELF image in this machine's byte order.
    fn read(mappings: &'a [Mapping], memory: &'a Memory) -> Option<Self> {
        let start = mappings.first()?.range.start;
        let header = memory.read(start..start.checked_add(HEADER as u64)?)?;
        let segments = segments(&header, |from, bytes| {
            let from = start.checked_add(from)?;
            let read = memory.read(from..from.checked_add(bytes.len() as u64)?)?;
            bytes.copy_from_slice(&read);
            Some(())
        })?;
        let first = segments.iter().find(|segment| segment.kind == LOAD && segment.offset == 0)?;
        let bias = start.wrapping_sub(first.address);
        Some(Self { mappings, memory, segments, bias })
    }

    /// Returns the module, as far as memory describes it without the file.
    #[must_use]
    pub fn module(&self) -> Module {
        Module {
            path: self.mappings[0].path.clone(),
            build_id: self.build_id().unwrap_or_default(),
            bias: self.bias,
            ranges: self
                .code()
                .map(|mapping| ModuleRange {
                    addresses: mapping.range.clone(),
                    file_offset: mapping.offset,
                })
                .collect(),
        }
    }

    /// Returns the mappings of the image's code.
    ///
    /// Other code may follow the image without a gap, such as what a compiler at run time made. So a mapping without a path is
    /// the image's only within its segments, as where a program has copied its code to larger pages.
    fn code(&self) -> impl DoubleEndedIterator<Item = &Mapping> {
        let code = self.mappings.iter().filter(|mapping| mapping.executable);
        code.filter(|mapping| !mapping.path.is_empty() || self.is_in_segment(&mapping.range))
    }

    fn is_in_segment(&self, range: &Range<u64>) -> bool {
        self.of_kind(LOAD).any(|segment| {
            let here = self.here(segment.address);
            let end = here.saturating_add(segment.memory_length);
            let end = end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
            here & !(PAGE - 1) <= range.start && range.end <= end
        })
    }

    fn of_kind(&self, kind: u32) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(move |segment| segment.kind == kind)
    }

    /// Returns the bytes of the image at these addresses, which are in its own numbering.
    fn bytes(&self, addresses: Range<u64>) -> Option<Vec<u8>> {
        if addresses.end.checked_sub(addresses.start)? > LARGEST_SECTION {
            return None;
        }
        self.memory.read(self.here(addresses.start)..self.here(addresses.end))
    }

    fn here(&self, address: u64) -> u64 {
        address.wrapping_add(self.bias)
    }

    fn build_id(&self) -> Option<Vec<u8>> {
        let notes = self.of_kind(NOTE).filter_map(|segment| self.bytes(segment.range()));
        notes.into_iter().find_map(|notes| build_id(&notes))
    }

    /// Returns the sections that describe how to unwind through the image's code, or `None` if it has none.
    #[must_use]
    pub fn unwind_sections(&self) -> Option<UnwindSections> {
        let index = self.of_kind(UNWIND_INDEX).next()?.range();
        let index_bytes = self.bytes(index.clone())?;
        let frames_start = unwind_frames(index.start, &index_bytes)?;
        // Only the last entry says where the section ends. That is at the end of the segment at the latest.
        let loaded = self.of_kind(LOAD).find(|load| load.range().contains(&frames_start))?;
        let frames = frames_start..loaded.range().end;
        let code = self.code().next()?.range.start..self.code().next_back()?.range.end;
        Some(UnwindSections {
            path: self.mappings[0].path.clone(),
            code,
            bias: self.bias,
            frames_bytes: self.bytes(frames.clone())?,
            frames,
            index_bytes,
            index,
        })
    }
}

/// Reads the segments of a 64-bit ELF image in this machine's byte order, whose header this is. `read` fills bytes from that offset on.
fn segments(
    header: &[u8],
    read: impl FnOnce(u64, &mut [u8]) -> Option<()>,
) -> Option<Vec<Segment>> {
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let count = usize::from(u16_at(header, 56)?);
    let mut table = vec![0; count * ENTRY];
    read(u64_at(header, 32)?, &mut table)?;
    Some(table.chunks_exact(ENTRY).filter_map(Segment::parse).collect())
}

impl Segment {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u32_at(bytes, 0)?,
            rights: u32_at(bytes, 4)?,
            offset: u64_at(bytes, 8)?,
            address: u64_at(bytes, 16)?,
            length: u64_at(bytes, 32)?,
            memory_length: u64_at(bytes, 40)?,
        })
    }

    fn range(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.length)
    }
}

/// Returns where `.eh_frame` begins, according to the index at the address `index`.
fn unwind_frames(index: u64, bytes: &[u8]) -> Option<u64> {
    const RELATIVE_SIGNED_4: u8 = 0x1b;
    // All linkers write version 1 and this encoding.
    if bytes.first() != Some(&1) || bytes.get(1) != Some(&RELATIVE_SIGNED_4) {
        return None;
    }
    let relative = i64::from(u32_at(bytes, 4)?.cast_signed());
    index.checked_add(4)?.checked_add_signed(relative)
}

/// Returns the build id among a segment's notes.
fn build_id(mut notes: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    const BUILD_ID: u32 = 3;
    let padded = |length: u32| (length as usize).next_multiple_of(4);
    loop {
        let (name, content) = (u32_at(notes, 0)?, u32_at(notes, 4)?);
        let body = notes.get(HEADER..)?;
        let bytes = body.get(padded(name)..)?.get(..content as usize)?;
        if u32_at(notes, 8)? == BUILD_ID && body.starts_with(b"GNU\0") {
            return Some(bytes.to_vec());
        }
        notes = body.get(padded(name) + padded(content)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_identity_is_found_behind_other_notes() {
        let mut notes = Vec::new();
        let mut note = |kind: u32, name: &[u8], content: &[u8]| {
            for number in [name.len() as u32, content.len() as u32, kind] {
                notes.extend(number.to_le_bytes());
            }
            notes.extend(name);
            notes.resize(notes.len().next_multiple_of(4), 0);
            notes.extend(content);
            notes.resize(notes.len().next_multiple_of(4), 0);
        };
        note(1, b"odd", b"12345");
        note(3, b"GNU\0", b"\x01\x02\x03");
        assert_eq!(build_id(&notes), Some(vec![1, 2, 3]));
        assert_eq!(build_id(&notes[..20]), None);
        assert_eq!(build_id(&[]), None);
    }
}
