//! The parts of a module's file that stay in memory: its debug information and its symbol table.

use crate::demangle::demangled;
use crate::frame::{Frame, Names};
use crate::memory::Memory;
use crate::module::Module;
use crate::problem::Reason;
use gimli::{DwLang, EndianReader, LittleEndian, SectionId};
use object::elf::{
    FileHeader64, SHN_UNDEF, SHT_DYNSYM, SHT_SYMTAB, STB_LOCAL, STT_FUNC, STT_GNU_IFUNC,
    STT_NOTYPE, Sym64,
};
use object::read::elf::{ElfFile64, FileHeader as _, SectionHeader as _, Sym as _};
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ReadCache, ReadRef};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

/// A section's bytes, shared by all their readers.
type Bytes = EndianReader<LittleEndian, Arc<[u8]>>;

/// An ELF file of this machine's kind.
type Elf<'d, R> = ElfFile64<'d, LittleEndianObject, R>;
type LittleEndianObject = object::LittleEndian;

/// A module's symbols.
pub(crate) struct Image {
    debug: Option<addr2line::Context<Bytes>>,
    table: Table,
}

/// Functions by address.
#[derive(Default)]
struct Table {
    /// The symbols, sorted by address.
    symbols: Vec<Symbol>,
    names: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Symbol {
    start: u64,
    /// The size in bytes, or 0 if the function extends to the next one.
    size: u64,
    name: u32,
}

impl Image {
    /// Reads the module's file, and returns what it lacks too.
    pub(crate) fn of(
        module: &Module,
        room_bytes: &mut usize,
    ) -> Result<(Self, Option<Reason>), Reason> {
        if module.path == "[vdso]" {
            let memory = module.ranges.first().and_then(|range| {
                memory(range.addresses.start - range.file_offset..range.addresses.end)
            });
            let memory = memory.ok_or_else(|| Reason::Unreadable(io::ErrorKind::Other.into()))?;
            // Nobody expects lines in the kernel's page.
            return Self::read(&memory[..], module, room_bytes).map(|(image, _)| (image, None));
        }
        let mut refused = None;
        for path in places(module) {
            let read = open(&path)
                .map_err(Reason::Unreadable)
                .and_then(|file| Self::read(&ReadCache::new(file), module, room_bytes));
            match read {
                // A separate file with debug information may be installed.
                Ok((image, Some(reason @ (Reason::NoDebugInfo | Reason::Stripped)))) => {
                    return Ok(Self::installed(module, room_bytes).unwrap_or((image, Some(reason))));
                }
                Ok(found) => return Ok(found),
                Err(reason) => refused = refused.or(Some(reason)),
            }
        }
        Err(refused.unwrap_or(Reason::Replaced))
    }

    /// Reads the file with debug information that a distribution installs separately.
    fn installed(module: &Module, room_bytes: &mut usize) -> Option<(Self, Option<Reason>)> {
        let digits: String = module.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let (first, rest) = digits.split_at_checked(2)?;
        let file = File::open(format!("/usr/lib/debug/.build-id/{first}/{rest}.debug")).ok()?;
        Self::read(&ReadCache::new(file), module, room_bytes).ok()
    }

    fn read<'d, R: ReadRef<'d>>(
        data: R,
        module: &Module,
        room_bytes: &mut usize,
    ) -> Result<(Self, Option<Reason>), Reason> {
        let elf = Elf::parse(data).map_err(malformed)?;
        let same = match &*module.build_id {
            [] => same_beginning(&elf, data, module),
            identity => elf.build_id().ok().flatten() == Some(identity),
        };
        if !same {
            return Err(Reason::Replaced);
        }
        let (debug, lacks) = match debug_info(&elf, room_bytes) {
            Ok(debug) => (Some(debug), None),
            Err(reason) => (None, Some(reason)),
        };
        let table = Table::read(data, room_bytes).unwrap_or_default();
        let stripped = debug.is_none() && table.symbols.is_empty();
        Ok((Self { debug, table }, if stripped { Some(Reason::Stripped) } else { lacks }))
    }

    /// Returns the functions at an address in the file's own numbering.
    pub(crate) fn frames(&self, address: u64, names: &mut Names) -> Vec<Frame> {
        let mut frames = Vec::new();
        // If the debug information is damaged, the functions found so far are still right.
        let _ = self.debug_frames(address, names, &mut frames);
        if frames.is_empty() {
            frames.extend(self.table.at(address).map(|name| frame(name, None, None, names)));
        }
        frames
    }

    fn debug_frames(
        &self,
        address: u64,
        names: &mut Names,
        to: &mut Vec<Frame>,
    ) -> Result<(), gimli::Error> {
        let Some(debug) = &self.debug else { return Ok(()) };
        let mut found = debug.find_frames(address).skip_all_loads()?;
        while let Some(each) = found.next()? {
            let name = match &each.function {
                Some(function) => Some((function.raw_name()?, function.language)),
                // Assembly has lines but no functions.
                None => self.table.at(address).map(|name| (name.into(), None)),
            };
            let Some((name, language)) = name else { continue };
            let mut frame = frame(&name, language, None, names);
            if let Some(place) = each.location {
                frame.file = place.file.map(|file| names.of(file));
                frame.line = place.line;
            }
            to.push(frame);
        }
        self.complete_outermost(address, names, to);
        Ok(())
    }

    /// Gives the outermost function its whole name, if debug information has only the last word of it.
    ///
    /// That is what rustc writes with `debug = "line-tables-only"` for a function into which others are inlined (seen in 1.95).
    /// Such a name is followed only if the symbol table agrees: another function may have the same code, and its symbol.
    fn complete_outermost(&self, address: u64, names: &mut Names, frames: &mut [Frame]) {
        let Some(outermost) = frames.last_mut() else { return };
        let Some(symbol) =
            self.table.at(address).filter(|symbol| **symbol != *outermost.system_name)
        else {
            return;
        };
        let whole = demangled(symbol, None);
        if last_word(&whole) == last_word(&outermost.function)
            && whole.len() > outermost.function.len()
        {
            outermost.function = names.of(&whole);
            outermost.system_name = names.of(symbol);
        }
    }
}

/// The last word of a path, without generic arguments: `run` of `<app::Worker<T>>::run::<u32>`.
fn last_word(path: &str) -> &str {
    let end = if path.ends_with('>') { opening(path) } else { path.len() };
    let path = path[..end].trim_end_matches("::");
    path.rsplit("::").next().unwrap_or(path)
}

/// Where the angle bracket opens that closes at the end of a path.
fn opening(path: &str) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in path.bytes().enumerate().rev() {
        match byte {
            // An arrow closes nothing.
            b'>' if !path[..at].ends_with('-') => depth += 1,
            b'<' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return at;
        }
    }
    path.len()
}

fn frame(name: &str, language: Option<DwLang>, line: Option<u32>, names: &mut Names) -> Frame {
    Frame {
        function: names.of(&demangled(name, language)),
        system_name: names.of(name),
        file: None,
        line,
    }
}

/// Opens a regular file. A pipe, for one, could keep its reader waiting.
fn open(path: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Returns paths that may lead to the mapped file, even if its name leads elsewhere by now.
fn places(module: &Module) -> Vec<String> {
    let mut places = vec![module.path.trim_end_matches(" (deleted)").to_owned()];
    // The kernel has links to the mapped files. The build id tells whether a link leads to the right file.
    if !module.build_id.is_empty() {
        places.push("/proc/self/exe".to_owned());
        let links = module.ranges.iter().map(|range| &range.addresses);
        places.extend(
            links.map(|range| format!("/proc/self/map_files/{:x}-{:x}", range.start, range.end)),
        );
    }
    places
}

/// Returns whether the file begins like the mapped one.
///
/// The first page says where the file's sections and segments are, so nearly any change of the file changes it.
fn same_beginning<'d, R: ReadRef<'d>>(elf: &Elf<'d, R>, data: R, module: &Module) -> bool {
    const PAGE: u64 = 4096;
    let first = elf.segments().find(|segment| segment.file_range().0 == 0);
    let Some(start) = first.map(|segment| segment.address().wrapping_add(module.bias)) else {
        return false;
    };
    let length = PAGE.min(data.len().unwrap_or(0));
    let mapped = start.checked_add(length).and_then(|end| memory(start..end));
    mapped.is_some() && mapped.as_deref() == data.read_bytes_at(0, length).ok()
}

/// Returns this process's memory at these addresses, if all of it is mapped.
fn memory(addresses: Range<u64>) -> Option<Vec<u8>> {
    Memory::open().ok()?.read(addresses)
}

fn malformed(what: object::Error) -> Reason {
    Reason::Malformed(what.to_string())
}

/// Reads the debug information into memory.
fn debug_info<'d, R: ReadRef<'d>>(
    elf: &Elf<'d, R>,
    room_bytes: &mut usize,
) -> Result<addr2line::Context<Bytes>, Reason> {
    if elf.section_by_name(".debug_info").is_none() || elf.section_by_name(".debug_line").is_none()
    {
        return Err(Reason::NoDebugInfo);
    }
    take_room(debug_bytes(elf), room_bytes)?;
    let section = |id: SectionId| -> Result<Bytes, Reason> {
        let Some(section) = elf.section_by_name(id.name()) else {
            return Ok(EndianReader::new(Arc::default(), LittleEndian));
        };
        let bytes = section.uncompressed_data().map_err(malformed)?;
        Ok(EndianReader::new(bytes.into(), LittleEndian))
    };
    let dwarf = gimli::Dwarf::load(section)?;
    addr2line::Context::from_dwarf(dwarf).map_err(|what| Reason::Malformed(what.to_string()))
}

/// Returns the memory that the debug information takes. Tables made from it take about as much again at worst.
fn debug_bytes<'d, R: ReadRef<'d>>(elf: &Elf<'d, R>) -> u64 {
    let sections = elf
        .sections()
        .filter(|section| section.name_bytes().is_ok_and(|name| name.starts_with(b".debug_")));
    let sizes = sections.filter_map(|section| section.compressed_file_range().ok());
    sizes.map(|range| range.uncompressed_size).fold(0, u64::saturating_add).saturating_mul(2)
}

fn take_room(needed_bytes: u64, room_bytes: &mut usize) -> Result<(), Reason> {
    let too_large = Reason::TooLarge { needed_bytes, room_bytes: *room_bytes };
    let left = usize::try_from(needed_bytes).ok().and_then(|needed| room_bytes.checked_sub(needed));
    *room_bytes = left.ok_or(too_large)?;
    Ok(())
}

impl Table {
    /// Reads the functions of the symbol table, or else of the dynamic linker's symbol table.
    fn read<'d, R: ReadRef<'d>>(data: R, room_bytes: &mut usize) -> Result<Self, Reason> {
        let header = FileHeader64::<LittleEndianObject>::parse(data).map_err(malformed)?;
        let endian = header.endian().map_err(malformed)?;
        let sections = header.sections(endian, data).map_err(malformed)?;
        for kind in [SHT_SYMTAB, SHT_DYNSYM] {
            let symbols = sections.symbols(endian, data, kind).map_err(malformed)?;
            if symbols.is_empty() {
                continue;
            }
            let strings = sections.section(symbols.string_section()).map_err(malformed)?;
            let names = strings.data(endian, data);
            let names = names.map_err(malformed)?;
            let bytes = names.len() + symbols.len() * size_of::<Symbol>();
            take_room(bytes as u64, room_bytes)?;
            let is_code = |symbol: &&Sym64<_>| {
                let kinds = [STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE];
                symbol.st_shndx(endian) != SHN_UNDEF && kinds.contains(&symbol.st_type())
            };
            let functions = symbols.iter().filter(is_code);
            let functions = functions.map(|symbol| {
                let name = symbol.st_name(endian);
                let is_private = names.get(name as usize) == Some(&b'_');
                // Of several symbols at one address, the last in this order is taken: one with a size, that is visible to
                // other files, and whose name is not a private one.
                let rank = (symbol.st_size(endian) > 0, symbol.st_bind() != STB_LOCAL, !is_private);
                let (start, size) = (symbol.st_value(endian), symbol.st_size(endian));
                (rank, Symbol { start, size, name })
            });
            let mut ranked: Vec<_> = functions.collect();
            ranked.sort_by_key(|(rank, symbol)| (symbol.start, *rank));
            let symbols = ranked.into_iter().map(|(_, symbol)| symbol).collect();
            return Ok(Self { symbols, names: names.to_vec() });
        }
        Ok(Self::default())
    }

    /// Returns the name of the function that has code at an address.
    fn at(&self, address: u64) -> Option<&str> {
        let behind = self.symbols.partition_point(|symbol| symbol.start <= address);
        let symbol = self.symbols[..behind].last()?;
        let next = self.symbols.get(behind).map_or(u64::MAX, |next| next.start);
        let end = match symbol.size {
            0 => next,
            size => symbol.start.saturating_add(size),
        };
        let name = self.names.get(symbol.name as usize..)?;
        let name = &name[..name.iter().position(|byte| *byte == 0)?];
        std::str::from_utf8(name).ok().filter(|name| address < end && !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_path_is_the_functions_own() {
        for (path, word) in [
            ("run", "run"),
            ("app::parse::run", "run"),
            ("run<u32>", "run"),
            ("app::run::<u32>", "run"),
            ("<app::Worker<T> as core::future::Future>::poll", "poll"),
            ("app::call::<fn(u32) -> Vec<u8>>", "call"),
            ("app::run::{{closure}}", "{{closure}}"),
            ("", ""),
        ] {
            assert_eq!(last_word(path), word, "{path}");
        }
    }
}
