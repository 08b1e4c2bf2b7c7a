//! Where functions begin, by the tables that modules have for unwinding.

use pertask_symbols::UnwindSections;
use std::ops::Range;

/// The functions of a module that its unwind tables know.
pub(super) struct Functions {
    code: Range<u64>,
    /// The address of the index in the process.
    index: u64,
    bytes: Vec<u8>,
}

/// The length of the index's head, and that of an entry: where a function begins and where its description is, both relative to
/// the index.
const HEAD: usize = 12;
const ENTRY: usize = 8;

impl Functions {
    /// Returns `None` if the index has no table that can be searched.
    pub(super) fn of(sections: &UnwindSections) -> Option<Self> {
        const UNSIGNED_4: u8 = 0x03;
        const RELATIVE_TO_INDEX_SIGNED_4: u8 = 0x3b;
        let bytes = sections.index_bytes.clone();
        let is_table = bytes.get(2..4)? == [UNSIGNED_4, RELATIVE_TO_INDEX_SIGNED_4];
        let index = sections.index.start.wrapping_add(sections.bias);
        is_table.then(|| Self { code: sections.code.clone(), index, bytes })
    }

    /// The code from the beginning of the function at an address to that of the next one.
    pub(super) fn at(&self, address: u64) -> Option<Range<u64>> {
        if !self.code.contains(&address) {
            return None;
        }
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.start(middle)? <= address {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let start = self.start(low.checked_sub(1)?)?;
        Some(start..self.start(low).unwrap_or(self.code.end).max(start))
    }

    fn count(&self) -> usize {
        let said = self.bytes.get(8..HEAD).and_then(|bytes| bytes.first_chunk());
        let said = said.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
        said.min(self.bytes.len().saturating_sub(HEAD) / ENTRY)
    }

    fn start(&self, at: usize) -> Option<u64> {
        let at = HEAD + at * ENTRY;
        let relative = i32::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?);
        Some(self.index.wrapping_add_signed(relative.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pertask_symbols::{MappedElf, Memory, mappings};

    #[test]
    fn an_address_is_in_its_function_and_not_in_the_next() {
        let (mappings, memory) = (mappings().unwrap(), Memory::open().unwrap());
        let sections = MappedElf::all(&mappings, &memory).filter_map(|elf| elf.unwind_sections());
        let all: Vec<_> = sections.filter_map(|sections| Functions::of(&sections)).collect();
        let start = (Functions::of as fn(_) -> _ as *const ()).addr() as u64;
        let found: Vec<_> = all.iter().filter_map(|module| module.at(start + 5)).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].start, start);
        assert_ne!(all.iter().find_map(|module| module.at(start - 1)).unwrap().start, start);
        assert!(all.iter().all(|module| module.at(7).is_none()));
    }

    #[test]
    fn rubbish_has_no_functions() {
        let functions = Functions { code: 0..100, index: 0, bytes: vec![255; 20] };
        assert_eq!(functions.at(50), None);
    }
}
