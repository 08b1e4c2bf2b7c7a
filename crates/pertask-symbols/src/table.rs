//! A symbol table: functions by address.

use crate::contents::{Bytes, Source, malformed, take_room};
use crate::problem::Reason;
use object::elf::{
    FileHeader64, SHN_UNDEF, SHT_DYNSYM, SHT_SYMTAB, STB_LOCAL, STT_FUNC, STT_GNU_IFUNC,
    STT_NOTYPE, Sym64,
};
use object::read::elf::{FileHeader as _, SectionHeader as _, Sym as _};
use object::{LittleEndian, ReadRef};

/// Functions by address.
#[derive(Default)]
pub(crate) struct Table {
    /// The symbols, sorted by address.
    symbols: Vec<Symbol>,
    names: Option<Bytes>,
}

#[derive(Clone, Copy)]
struct Symbol {
    start: u64,
    /// The size in bytes, or 0 if the function extends to the next one.
    size: u64,
    name: u32,
}

impl Table {
    /// Reads the functions of the symbol table, or else of the dynamic linker's symbol table.
    pub(crate) fn read<'d, R: ReadRef<'d>>(
        data: R,
        source: Source<'_>,
        room_bytes: &mut usize,
    ) -> Result<Self, Reason> {
        let header = FileHeader64::<LittleEndian>::parse(data).map_err(malformed)?;
        let endian = header.endian().map_err(malformed)?;
        let sections = header.sections(endian, data).map_err(malformed)?;
        for kind in [SHT_SYMTAB, SHT_DYNSYM] {
            let symbols = sections.symbols(endian, data, kind).map_err(malformed)?;
            if symbols.is_empty() {
                continue;
            }
            let strings = sections.section(symbols.string_section()).map_err(malformed)?;
            let (offset, size) = strings.file_range(endian).unwrap_or_default();
            let names = source.bytes(offset..offset.saturating_add(size), room_bytes)?;
            take_room((symbols.len() * size_of::<Symbol>()) as u64, room_bytes)?;
            let symbols = sorted(symbols.iter(), &names);
            return Ok(Self { symbols, names: Some(names) });
        }
        Ok(Self::default())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// Returns the name of the function that has code at an address.
    pub(crate) fn at(&self, address: u64) -> Option<&str> {
        let behind = self.symbols.partition_point(|symbol| symbol.start <= address);
        let symbol = self.symbols[..behind].last()?;
        let next = self.symbols.get(behind).map_or(u64::MAX, |next| next.start);
        let end = match symbol.size {
            0 => next,
            size => symbol.start.saturating_add(size),
        };
        let name = self.names.as_ref()?.bytes().get(symbol.name as usize..)?;
        let name = &name[..name.iter().position(|byte| *byte == 0)?];
        std::str::from_utf8(name).ok().filter(|name| address < end && !name.is_empty())
    }
}

/// Returns the functions among the symbols, by address. Of several at one address, the last is the best.
fn sorted<'d>(
    symbols: impl Iterator<Item = &'d Sym64<LittleEndian>>,
    names: &Bytes,
) -> Vec<Symbol> {
    let endian = LittleEndian;
    let is_code = |symbol: &&Sym64<_>| {
        let kinds = [STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE];
        symbol.st_shndx(endian) != SHN_UNDEF && kinds.contains(&symbol.st_type())
    };
    let functions = symbols.filter(is_code).map(|symbol| {
        let name = symbol.st_name(endian);
        let is_private = names.bytes().get(name as usize) == Some(&b'_');
        // Better is one with a size, that is visible to other files, and whose name is not a private one.
        let rank = (symbol.st_size(endian) > 0, symbol.st_bind() != STB_LOCAL, !is_private);
        let (start, size) = (symbol.st_value(endian), symbol.st_size(endian));
        (rank, Symbol { start, size, name })
    });
    let mut ranked: Vec<_> = functions.collect();
    ranked.sort_by_key(|(rank, symbol)| (symbol.start, *rank));
    ranked.into_iter().map(|(_, symbol)| symbol).collect()
}
