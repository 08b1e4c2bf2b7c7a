//! ELF images as they are mapped: what a module is, and how to unwind through it, from memory alone.

use crate::maps::{Mapping, mappings};
use crate::memory::Memory;
use crate::module::{Module, ModuleRange};
use std::io;
use std::ops::Range;

impl Module {
    /// The modules that are mapped in this process now.
    ///
    /// # Errors
    /// If the process's mappings cannot be read, or its memory.
    pub fn of_this_process() -> io::Result<Vec<Self>> {
        let (mappings, memory) = (mappings()?, Memory::open()?);
        Ok(MappedElf::all(&mappings, &memory).map(|elf| elf.module()).collect())
    }
}

/// The mappings of each file, each time that it is mapped from its beginning. What lies between, such as a module's zeroed
/// data, is left out.
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

/// An ELF image in memory.
#[derive(Debug)]
pub struct MappedElf<'a> {
    mappings: &'a [Mapping],
    memory: &'a Memory,
    segments: Vec<Segment>,
    bias: u64,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    length: u64,
}

/// A section that is larger is not read.
const LARGEST_SECTION: u64 = 256 << 20;

const LOAD: u32 = 1;
const NOTE: u32 = 4;
const UNWIND_INDEX: u32 = 0x6474_e550;

/// A module's `.eh_frame` and `.eh_frame_hdr`, copied, and where they and its code are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnwindSections {
    /// The module's file.
    pub path: String,
    /// Where its code is in the process, from the first to the last.
    pub code: Range<u64>,
    /// What is to be added to the file's addresses to get the process's.
    pub bias: u64,
    /// Where `.eh_frame` is, in the file's addresses. It may end earlier: its last entry says so.
    pub frames: Range<u64>,
    /// What is in it.
    pub frames_bytes: Vec<u8>,
    /// Where `.eh_frame_hdr` is, in the file's addresses.
    pub index: Range<u64>,
    /// What is in it.
    pub index_bytes: Vec<u8>,
}

impl<'a> MappedElf<'a> {
    /// Those among the mappings, each time that one is mapped from its beginning.
    pub fn all(mappings: &'a [Mapping], memory: &'a Memory) -> impl Iterator<Item = Self> {
        grouped(mappings).filter_map(|group| Self::read(group, memory))
    }

    /// `None` for a file that is no ELF image of 64 bits in this machine's byte order.
    fn read(mappings: &'a [Mapping], memory: &'a Memory) -> Option<Self> {
        const HEADER: u64 = 64;
        const SEGMENT: u64 = 56;
        let start = mappings.first()?.range.start;
        let header = memory.read(start..start + HEADER)?;
        if !header.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let table = start.checked_add(u64_at(&header, 32)?)?;
        let count = u64::from(u16_at(&header, 56)?);
        let table = memory.read(table..table.checked_add(count * SEGMENT)?)?;
        let segments: Vec<_> =
            table.chunks_exact(SEGMENT as usize).filter_map(Segment::parse).collect();
        let first = segments.iter().find(|segment| segment.kind == LOAD && segment.offset == 0)?;
        let bias = start.wrapping_sub(first.address);
        Some(Self { mappings, memory, segments, bias })
    }

    /// What there is to know of it without its file.
    #[must_use]
    pub fn module(&self) -> Module {
        let code = self.mappings.iter().filter(|mapping| mapping.executable);
        Module {
            path: self.mappings[0].path.clone(),
            build_id: self.build_id().unwrap_or_default(),
            bias: self.bias,
            ranges: code
                .map(|mapping| ModuleRange {
                    addresses: mapping.range.clone(),
                    file_offset: mapping.offset,
                })
                .collect(),
        }
    }

    fn of_kind(&self, kind: u32) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(move |segment| segment.kind == kind)
    }

    /// What is mapped of the image at addresses in its own numbering.
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

    /// The sections that say how to unwind through its code.
    #[must_use]
    pub fn unwind_sections(&self) -> Option<UnwindSections> {
        let index = self.of_kind(UNWIND_INDEX).next()?.range();
        let index_bytes = self.bytes(index.clone())?;
        let frames_start = unwind_frames(index.start, &index_bytes)?;
        // Nothing says where they end, but for their own last entry: at the latest where the segment does.
        let loaded = self.of_kind(LOAD).find(|load| load.range().contains(&frames_start))?;
        let frames = frames_start..loaded.range().end;
        let code = || self.mappings.iter().filter(|mapping| mapping.executable);
        let code = code().next()?.range.start..code().next_back()?.range.end;
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

impl Segment {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u32_at(bytes, 0)?,
            offset: u64_at(bytes, 8)?,
            address: u64_at(bytes, 16)?,
            // Of what is in the file: the rest is zeros.
            length: u64_at(bytes, 32)?,
        })
    }

    fn range(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.length)
    }
}

/// Where `.eh_frame` begins, as its index says, which is at `index` itself.
fn unwind_frames(index: u64, bytes: &[u8]) -> Option<u64> {
    const RELATIVE_SIGNED_4: u8 = 0x1b;
    // All linkers write version 1 and this encoding.
    if bytes.first() != Some(&1) || bytes.get(1) != Some(&RELATIVE_SIGNED_4) {
        return None;
    }
    let relative = i64::from(u32_at(bytes, 4)?.cast_signed());
    (index + 4).checked_add_signed(relative)
}

/// The build identity among a segment's notes.
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
