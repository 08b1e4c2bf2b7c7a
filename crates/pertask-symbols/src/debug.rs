//! A file's debug information, and the functions that it has at an address.
//!
//! What is made of it is kept until it is larger than a limit, and then made again as it is needed.

use crate::contents::{Bytes, Source, take_room};
use crate::declaration::Declared;
use crate::files::Elf;
use crate::problem::Reason;
use crate::shared;
use crate::split::Split;
use addr2line::{Context, LookupContinuation, LookupResult};
use gimli::{AbbreviationsCacheStrategy, AttributeValue, DwLang, Dwarf, SectionId, UnitRef};
use object::{Object as _, ObjectSection as _, ReadRef};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most memory for what is made of debug information, as it is estimated. A single unit may need more.
const TABLES: usize = 16 << 20;

/// The debug information of one file.
pub(crate) struct Debug {
    dwarf: Arc<Dwarf<Bytes>>,
    context: Context<Bytes>,
    /// The files that have the rest.
    pub(crate) split: Split,
    /// The units of which tables were made, and how large these are.
    used: (HashSet<(usize, usize)>, usize),
}

/// Where to look for the parts of debug information that are in other files.
pub(crate) struct Places<'a> {
    /// The path at which the module was mapped.
    pub(crate) module: &'a str,
    /// The file that is read.
    pub(crate) file: &'a Path,
    pub(crate) folders: &'a [PathBuf],
}

/// A function at an address, as debug information has it.
pub(crate) struct Found<'a> {
    /// The name, or `None` if debug information has none.
    pub(crate) name: Option<(String, Option<DwLang>)>,
    pub(crate) file: Option<&'a str>,
    pub(crate) line: Option<u32>,
}

impl Debug {
    /// Reads the debug information of a file, and returns what it lacks too.
    pub(crate) fn read<'d, R: ReadRef<'d>>(
        elf: &Elf<'d, R>,
        source: Source<'_>,
        places: &Places<'_>,
        room_bytes: &mut usize,
    ) -> Result<(Self, Option<Reason>), Reason> {
        let has = |name| elf.section_by_name(name).is_some();
        if !has(".debug_info") || !has(".debug_line") {
            return Err(Reason::NoDebugInfo);
        }
        let section = |id: SectionId| match elf.section_by_name(id.name()) {
            Some(section) => source.section(&section, room_bytes),
            None => source.bytes(0..0, room_bytes),
        };
        let mut dwarf = Dwarf::load(section)?;
        take_room(tables_bytes(elf, &dwarf), room_bytes)?;
        // Many units share their abbreviations. Kept once for each, they would take most of the memory.
        dwarf.populate_abbreviations_cache(AbbreviationsCacheStrategy::All);
        take_room(ranges_bytes(&dwarf, *room_bytes), room_bytes)?;
        let lacks = shared::add(&mut dwarf, elf, places.file, places.folders, room_bytes).err();
        let dwarf = Arc::new(dwarf);
        let context = Context::from_arc_dwarf(Arc::clone(&dwarf));
        let context = context.map_err(|what| Reason::Malformed(what.to_string()))?;
        let split = Split::of(places.module, places.folders);
        Ok((Self { dwarf, context, split, used: (HashSet::new(), 0) }, lacks))
    }

    /// Passes the functions at an address to `add`, the innermost first. After an error, those that were found are right.
    pub(crate) fn find(
        &mut self,
        address: u64,
        room_bytes: &mut usize,
        mut add: impl FnMut(Found<'_>),
    ) -> Result<(), gimli::Error> {
        self.renew_if_large()?;
        self.note_use(address, room_bytes);
        let mut frames = found(self.context.find_frames(address), &mut self.split, room_bytes)?;
        let mut is_assembly = None;
        while let Some(frame) = frames.next()? {
            let name = match &frame.function {
                Some(function) => Some((function.raw_name()?.into_owned(), function.language)),
                None => None,
            };
            // Assembly has lines but no functions. Elsewhere a line without a function may be another function's.
            let is_own = name.is_some()
                || *is_assembly
                    .get_or_insert_with(|| self.unit(address).is_some_and(is_assembly_unit));
            let place = frame.location.filter(|_| is_own);
            let file = place.as_ref().and_then(|place| place.file);
            add(Found { name, file, line: place.as_ref().and_then(|place| place.line) });
        }
        Ok(())
    }

    /// Returns how the functions at an address are declared, the innermost first: as many as [`find`](Self::find) finds.
    pub(crate) fn declarations(
        &mut self,
        address: u64,
        room_bytes: &mut usize,
    ) -> Result<Vec<Declared>, gimli::Error> {
        self.renew_if_large()?;
        self.note_use(address, room_bytes);
        let mut frames = found(self.context.find_frames(address), &mut self.split, room_bytes)?;
        let mut entries = Vec::new();
        while let Some(frame) = frames.next()? {
            entries.push(frame.dw_die_offset);
        }
        let Some(unit) = self.unit(address) else { return Ok(Vec::new()) };
        let mut all: Vec<_> = (entries.iter())
            .map(|entry| {
                entry.map_or_else(Declared::default, |it| {
                    Declared::read(unit, it).unwrap_or_default()
                })
            })
            .collect();
        if let Some(outermost) = all.last_mut().filter(|it| it.line.is_none()) {
            self.begin(unit, entries.last().copied().flatten(), outermost)?;
        }
        Ok(all)
    }

    /// Takes the line of a function's first instruction for its declaration. With line tables only, there is no other.
    fn begin(
        &self,
        unit: UnitRef<'_, Bytes>,
        entry: Option<gimli::UnitOffset>,
        declared: &mut Declared,
    ) -> Result<(), gimli::Error> {
        let entry = entry.map(|entry| unit.entry(entry)).transpose()?;
        let start = entry.and_then(|entry| entry.attr_value(gimli::DW_AT_low_pc));
        let start = start.map(|start| unit.attr_address(start)).transpose()?.flatten();
        let place = start.map(|start| self.context.find_location(start)).transpose()?.flatten();
        if let Some(place) = place {
            declared.file = place.file.map(str::to_owned);
            declared.line = place.line;
        }
        Ok(())
    }

    /// Drops what was made so far, if it is too large.
    fn renew_if_large(&mut self) -> Result<(), gimli::Error> {
        if self.used.1 > TABLES {
            self.context = Context::from_arc_dwarf(Arc::clone(&self.dwarf))?;
            self.used = (HashSet::new(), 0);
        }
        Ok(())
    }

    /// Notes the unit of an address, of which tables are made now if there are none yet.
    fn note_use(&mut self, address: u64, room_bytes: &mut usize) {
        let unit = self.context.find_dwarf_and_unit(address);
        let Some(unit) = found(unit, &mut self.split, room_bytes) else { return };
        let info = unit.header.length_including_self();
        let lines = unit.line_program.as_ref().map_or(0, |lines| lines.header().unit_length());
        let key = (unit.header.debug_info_offset().map_or(0, |offset| offset.0), info);
        // A row of lines takes some three bytes in the file and 24 in memory.
        if self.used.0.insert(key) {
            self.used.1 = self.used.1.saturating_add(info).saturating_add(lines.saturating_mul(8));
        }
    }

    fn unit(&self, address: u64) -> Option<UnitRef<'_, Bytes>> {
        self.context.find_dwarf_and_unit(address).skip_all_loads()
    }
}

/// Ends a lookup, and reads the files that it needs.
fn found<L: LookupContinuation<Buf = Bytes>>(
    mut lookup: LookupResult<L>,
    split: &mut Split,
    room_bytes: &mut usize,
) -> L::Output {
    loop {
        lookup = match lookup {
            LookupResult::Output(found) => return found,
            LookupResult::Load { load, continuation } => {
                continuation.resume(split.load(&load, room_bytes))
            }
        };
    }
}

/// Returns the memory for what is made of debug information at once and later, as it is estimated.
///
/// Measured in a program with 1,247 units: 16 bytes for each byte of abbreviations, and 5 KB for each unit.
fn tables_bytes<'d, R: ReadRef<'d>>(elf: &Elf<'d, R>, dwarf: &Dwarf<Bytes>) -> u64 {
    let abbreviations = elf.section_by_name(".debug_abbrev");
    let abbreviations = abbreviations.and_then(|it| it.compressed_file_range().ok());
    let abbreviations = abbreviations.map_or(0, |it| it.uncompressed_size);
    let (mut units, mut headers) = (0_u64, dwarf.units());
    while let Ok(Some(_)) = headers.next() {
        units += 1;
    }
    let at_once = abbreviations.saturating_mul(16).saturating_add(units * 5_000);
    at_once.saturating_add(TABLES as u64)
}

/// Returns the memory for the units' ranges of addresses, as far as it is no more than `most`. Units may share their lists, so a small
/// file may have many.
fn ranges_bytes(dwarf: &Dwarf<Bytes>, most: usize) -> u64 {
    // A range has 32 bytes in addr2line 0.26, in a table that grows by doubling.
    const RANGE: u64 = 64;
    let (mut bytes, mut headers) = (0, dwarf.units());
    while let Ok(Some(header)) = headers.next() {
        let Ok(unit) = dwarf.unit(header) else { continue };
        let Ok(mut ranges) = dwarf.unit_ranges(&unit) else { continue };
        while bytes <= most as u64 && matches!(ranges.next(), Ok(Some(_))) {
            bytes += RANGE;
        }
    }
    bytes
}

fn is_assembly_unit(unit: UnitRef<'_, Bytes>) -> bool {
    let mut entries = unit.entries();
    let root = entries.next_dfs().ok().flatten();
    let language = root.and_then(|root| root.attr_value(gimli::DW_AT_language));
    matches!(language, Some(AttributeValue::Language(gimli::DW_LANG_Mips_Assembler)))
}
