//! The modules: what code is mapped where, and how to unwind through it; read anew when libraries come or go.

use super::maps::{self, Mapping, Memory};
use framehop::{ExplicitModuleSectionInfo, MustNotAllocateDuringUnwind, Unwinder as _};
use std::io;
use std::ops::Range;

/// An unwinder that allocates nothing, over copies of the modules' unwind sections: a library that is unloaded takes
/// nothing with it that a handler may be reading.
pub(super) type Unwinder = framehop::UnwinderNative<Vec<u8>, MustNotAllocateDuringUnwind>;

/// A module whose unwind sections are larger is not unwound through.
const LARGEST_SECTION: u64 = 256 << 20;

/// A program, a library, or the kernel's own page of code, as it is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Module {
    /// The file, or a name in brackets.
    pub path: String,
    /// The linker's identity of the file; empty if it gave none.
    pub build_id: Vec<u8>,
    /// What is to be added to an address in the file's own numbering to get one in the process.
    pub bias: u64,
    /// Where its code is mapped.
    pub ranges: Vec<ModuleRange>,
}

/// A range of a module's code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModuleRange {
    /// The addresses.
    pub addresses: Range<u64>,
    /// Where in the file the first of them is.
    pub file_offset: u64,
}

/// Modules as they were last read.
pub(super) struct Modules {
    known: Vec<Known>,
    memory: Memory,
    /// How often libraries had been loaded and unloaded then.
    changes: Changes,
}

struct Known {
    module: Module,
    unwinding: Option<framehop::Module<Vec<u8>>>,
}

/// How often libraries have been loaded and unloaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    loaded: u64,
    unloaded: u64,
}

impl Modules {
    /// `changes` were asked for before: what changes meanwhile is read again.
    pub(super) fn read(changes: Changes) -> io::Result<Self> {
        let mut modules = Self { known: Vec::new(), memory: Memory::open()?, changes };
        modules.read_mappings()?;
        Ok(modules)
    }

    /// Reads them again if libraries have come or gone. Whether it has.
    pub(super) fn refresh(&mut self, changes: Changes) -> bool {
        if changes == self.changes {
            return false;
        }
        self.changes = changes;
        self.read_mappings().is_ok()
    }

    /// What is mapped now.
    pub(super) fn list(&self) -> impl Iterator<Item = &Module> {
        self.known.iter().map(|known| &known.module)
    }

    pub(super) fn unwinder(&self) -> Unwinder {
        let mut unwinder = Unwinder::new();
        let unwindings = self.known.iter().filter_map(|known| known.unwinding.clone());
        unwindings.for_each(|module| unwinder.add_module(module));
        unwinder
    }

    fn read_mappings(&mut self) -> io::Result<()> {
        let mappings = maps::read()?;
        let mut known: Vec<_> = grouped(&mappings).filter_map(|group| self.known(group)).collect();
        std::mem::swap(&mut self.known, &mut known);
        Ok(())
    }

    /// The module of these mappings: the one that was read before if it is the same.
    fn known(&self, mappings: &[Mapping]) -> Option<Known> {
        let image = Image::read(mappings, &self.memory)?;
        let module = image.module();
        let before = self.known.iter().find(|known| known.module == module);
        let unwinding = match before {
            Some(before) => before.unwinding.clone(),
            None => image.unwinding(),
        };
        Some(Known { module, unwinding })
    }
}

impl Changes {
    /// Asks the loader, which may be at work on another thread: no lock may be held that a library's constructor could want.
    #[allow(unsafe_code)]
    pub(super) fn now() -> Self {
        unsafe extern "C" fn note(
            info: *mut libc::dl_phdr_info,
            _: usize,
            data: *mut libc::c_void,
        ) -> libc::c_int {
            // SAFETY: the loader passes an entry and the pointer it was given, both good for this call.
            unsafe {
                let info = &*info;
                *data.cast::<Changes>() =
                    Changes { loaded: info.dlpi_adds, unloaded: info.dlpi_subs };
            }
            // The first entry tells all.
            1
        }
        let mut changes = Self::default();
        // SAFETY: a callback of the right type, and a place for what it notes.
        unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut changes).cast()) };
        changes
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
struct Image<'a> {
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

const LOAD: u32 = 1;
const NOTE: u32 = 4;
const UNWIND_INDEX: u32 = 0x6474_e550;

impl<'a> Image<'a> {
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

    fn module(&self) -> Module {
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

    fn unwinding(&self) -> Option<framehop::Module<Vec<u8>>> {
        let index = self.of_kind(UNWIND_INDEX).next()?.range();
        let index_bytes = self.bytes(index.clone())?;
        let frames_start = unwind_frames(index.start, &index_bytes)?;
        // Nothing says where they end, but for their own last entry: at the latest where the segment does.
        let loaded = self.of_kind(LOAD).find(|load| load.range().contains(&frames_start))?;
        let frames = frames_start..loaded.range().end;
        let code = || self.mappings.iter().filter(|mapping| mapping.executable);
        let code = code().next()?.range.start..code().next_back()?.range.end;
        let sections = ExplicitModuleSectionInfo {
            eh_frame: Some(self.bytes(frames.clone())?),
            eh_frame_svma: Some(frames),
            eh_frame_hdr: Some(index_bytes),
            eh_frame_hdr_svma: Some(index),
            ..ExplicitModuleSectionInfo::default()
        };
        Some(framehop::Module::new(self.mappings[0].path.clone(), code, self.bias, sections))
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
    fn the_program_itself_is_among_them_and_can_be_unwound_through() {
        let modules = Modules::read(Changes::now()).unwrap();
        let here = (build_id as fn(_) -> _ as *const ()).addr() as u64;
        let holds =
            |module: &Module| module.ranges.iter().any(|range| range.addresses.contains(&here));
        let own = modules.known.iter().find(|known| holds(&known.module)).unwrap();
        assert_eq!(own.module.path, std::env::current_exe().unwrap().to_str().unwrap());
        assert!(own.unwinding.is_some());
        assert!(modules.list().any(|module| module.path == "[vdso]"));
        assert!(modules.unwinder().max_known_code_address() > here);
    }

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

    #[test]
    fn nothing_is_read_again_while_nothing_changes() {
        let mut modules = Modules::read(Changes::now()).unwrap();
        assert!(!modules.refresh(Changes::now()));
        modules.changes = Changes::default();
        assert!(modules.refresh(Changes::now()));
    }
}
