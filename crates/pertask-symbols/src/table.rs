//! A symbol table: functions by address.

use crate::contents::{Bytes, Source, malformed, take_room};
use crate::problem::Reason;
use object::elf::{
    FileHeader64, SHN_UNDEF, SHT_DYNSYM, SHT_SYMTAB, STB_LOCAL, STT_FUNC, STT_GNU_IFUNC,
    STT_NOTYPE, Sym64,
};
use object::read::elf::{FileHeader as _, SectionHeader as _, Sym as _, SymbolTable};
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

/// What a symbol takes at most while its table is sorted: the symbol, its rank beside it, and half as much to sort them.
const SORTING_BYTES: usize = size_of::<Symbol>() + size_of::<(Rank, Symbol)>() * 3 / 2;

/// Whether a symbol has a size, is visible to other files, and has a name that is not a private one. The greater is the better.
type Rank = (bool, bool, bool);

impl Table {
    /// Reads the functions of the symbol table, or else of the dynamic linker's symbol table.
    pub(crate) fn read<'d, R: ReadRef<'d>>(
        data: R,
        source: Source<'_>,
        room_bytes: &mut usize,
    ) -> Result<Self, Reason> {
        let Some((symbols, names)) = symbols(data, source, room_bytes)? else {
            return Ok(Self::default());
        };
        let functions = symbols.iter().filter(|symbol| is_code(symbol, &names));
        let symbols = sorted(functions, &names, room_bytes).map_err(Reason::of_table)?;
        Ok(Self { symbols, names: Some(names) })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// Returns how many functions of different names begin where the function at an address does. There are several where the
    /// compiler or the linker has kept one copy of equal code.
    pub(crate) fn functions_at(&self, address: u64) -> usize {
        let behind = self.symbols.partition_point(|symbol| symbol.start <= address);
        let Some(last) = self.symbols[..behind].last() else { return 0 };
        let before = self.symbols.partition_point(|symbol| symbol.start < last.start);
        let names = self.symbols[before..behind].iter().map(|symbol| self.name(symbol));
        names.collect::<std::collections::HashSet<_>>().len()
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
        let name = std::str::from_utf8(self.name(symbol)?).ok();
        name.filter(|name| address < end && !name.is_empty())
    }

    fn name(&self, symbol: &Symbol) -> Option<&[u8]> {
        name_at(self.names.as_ref()?, symbol.name)
    }
}

/// Symbols, and the bytes of their names.
pub(crate) type Named<'d, R> = (SymbolTable<'d, FileHeader64<LittleEndian>, R>, Bytes);

/// Returns what is in a file's symbol table, or else in the dynamic linker's symbol table.
pub(crate) fn symbols<'d, R: ReadRef<'d>>(
    data: R,
    source: Source<'_>,
    room_bytes: &mut usize,
) -> Result<Option<Named<'d, R>>, Reason> {
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
        let names = source.bytes(offset..offset.saturating_add(size), room_bytes);
        return Ok(Some((symbols, names.map_err(Reason::of_table)?)));
    }
    Ok(None)
}

/// Returns the name that begins there.
pub(crate) fn name_at(names: &Bytes, start: u32) -> Option<&[u8]> {
    let name = names.bytes().get(start as usize..)?;
    Some(&name[..name.iter().position(|byte| *byte == 0)?])
}

/// Returns the functions by address, and takes room for them. Of several at one address, the last is the best.
fn sorted<'d>(
    functions: impl Iterator<Item = &'d Sym64<LittleEndian>> + Clone,
    names: &Bytes,
    room_bytes: &mut usize,
) -> Result<Vec<Symbol>, Reason> {
    let count = functions.clone().count();
    // What only sorting needs is dropped at once, and takes no room that lasts.
    take_room(count as u64 * SORTING_BYTES as u64, &mut room_bytes.clone())?;
    take_room(count as u64 * size_of::<Symbol>() as u64, room_bytes)?;
    let mut ranked = Vec::with_capacity(count);
    ranked.extend(functions.map(|symbol| ranked_symbol(symbol, names)));
    ranked.sort_by_key(|(rank, symbol)| (symbol.start, *rank));
    let mut symbols = Vec::with_capacity(count);
    symbols.extend(ranked.into_iter().map(|(_, symbol)| symbol));
    Ok(symbols)
}

fn is_code(symbol: &Sym64<LittleEndian>, names: &Bytes) -> bool {
    let kinds = [STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE];
    // On aarch64, `$x` and `$d` mark where code and data begin.
    let is_marker = names.bytes().get(symbol.st_name(LittleEndian) as usize) == Some(&b'$');
    symbol.st_shndx(LittleEndian) != SHN_UNDEF && kinds.contains(&symbol.st_type()) && !is_marker
}

fn ranked_symbol(symbol: &Sym64<LittleEndian>, names: &Bytes) -> (Rank, Symbol) {
    let endian = LittleEndian;
    let name = symbol.st_name(endian);
    let is_private = names.bytes().get(name as usize) == Some(&b'_');
    let (start, size) = (symbol.st_value(endian), symbol.st_size(endian));
    ((size > 0, symbol.st_bind() != STB_LOCAL, !is_private), Symbol { start, size, name })
}
