//! Addresses of what has a name: the symbols of an image that is mapped into another process.

use crate::contents::{Limited, Source};
use crate::demangle::of_rust;
use crate::elf::MappedElf;
use crate::memory::Memory;
use crate::problem::Reason;
use crate::table::{name_at, symbols};
use object::LittleEndian;
use object::elf::{SHN_UNDEF, STT_FUNC, STT_NOTYPE, STT_OBJECT};
use object::read::elf::Sym as _;
use std::fs::File;
use std::ops::Range;

/// A function or a variable, as it is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Symbol {
    /// The name, demangled. One of many kilobytes is cut.
    pub name: String,
    /// The addresses in the process.
    pub addresses: Range<u64>,
}

/// The most bytes of a name. Those of generic functions can be long, and what they are stands at the end.
const LONGEST: usize = 64 << 10;

/// The most memory that the symbol table takes while it is read.
const ROOM: usize = 512 << 20;

impl MappedElf<'_> {
    /// The most symbols that [`symbols`](Self::symbols) returns.
    pub const MOST_SYMBOLS: usize = 1 << 16;

    /// Returns Rust's functions and variables whose linker's names are wanted. `is_wanted` is asked for each symbol, so it should be quick.
    ///
    /// There are [`MOST_SYMBOLS`](Self::MOST_SYMBOLS) at most. There are none if the file is stripped or damaged, and none if the memory is that of this process.
    #[must_use]
    pub fn symbols(&self, is_wanted: impl Fn(&[u8]) -> bool) -> Vec<Symbol> {
        let file = match (self.memory, self.mappings.first()) {
            (Memory::Files(files), Some(first)) => files.file_at(first.range.start),
            _ => None,
        };
        let found = file.and_then(|file| in_file(file, is_wanted).ok()).unwrap_or_default();
        let here = |address: u64| address.wrapping_add(self.bias);
        let mapped = |Symbol { name, addresses }: Symbol| Symbol {
            name,
            addresses: here(addresses.start)..here(addresses.end),
        };
        found.into_iter().map(mapped).collect()
    }
}

/// Returns the symbols with addresses in the file's own numbering.
fn in_file(file: &File, is_wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<Symbol>, Reason> {
    let (endian, mut room_bytes) = (LittleEndian, ROOM);
    let data = Limited::new(file, room_bytes);
    let Some((symbols, names)) = symbols(&data, Source::File(&data), &mut room_bytes)? else {
        return Ok(Vec::new());
    };
    let symbol = |symbol: &object::elf::Sym64<LittleEndian>| {
        let kinds = [STT_FUNC, STT_OBJECT, STT_NOTYPE];
        if symbol.st_shndx(endian) == SHN_UNDEF || !kinds.contains(&symbol.st_type()) {
            return None;
        }
        let name = name_at(&names, symbol.st_name(endian)).filter(|name| is_wanted(name))?;
        let name = of_rust(std::str::from_utf8(name).ok()?, LONGEST)?;
        let start = symbol.st_value(endian);
        Some(Symbol { name, addresses: start..start.checked_add(symbol.st_size(endian))? })
    };
    Ok(symbols.iter().filter_map(symbol).take(MappedElf::MOST_SYMBOLS).collect())
}
