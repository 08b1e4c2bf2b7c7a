//! Where panics lead: a function's calls, and the code that goes on after a panic in one of them, its landing pad.
//!
//! The function's entry in the unwind tables has the address of a table of them, as the Itanium C++ ABI has it, and LLVM writes it.

use gimli::{
    BaseAddresses, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, Pointer, Reader, UnwindSection,
};
use pertask_symbols::{Memory, UnwindSections};
use std::ops::Range;

/// Calls, and the landing pad of a panic in one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallSite {
    pub(crate) calls: Range<u64>,
    pub(crate) landing_pad: u64,
}

/// The bytes of a table that are read: the most, and fewer where the file ends before.
const BYTES: [u64; 5] = [16 << 10, 4 << 10, 1 << 10, 256, 64];

/// The encodings of numbers (`DW_EH_PE`).
const ABSENT: u8 = 0xff;
const ULEB128: u8 = 0x01;
const UDATA4: u8 = 0x03;

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Returns a function's calls that have a landing pad: none where it has no table. `None` if the table is not understood.
pub(crate) fn of_function(
    start: u64,
    sections: &UnwindSections,
    memory: &Memory,
) -> Option<Vec<CallSite>> {
    let Some(table) = table_of(start, sections)? else { return Some(Vec::new()) };
    let read = |bytes: u64| memory.read(table..table.checked_add(bytes)?);
    let bytes = BYTES.into_iter().find_map(read)?;
    call_sites(EndianSlice::new(&bytes, LittleEndian), start).ok()?
}

/// Returns the address of a function's table, if it has one. `None` if there is no entry for the function.
fn table_of(start: u64, sections: &UnwindSections) -> Option<Option<u64>> {
    let bases = BaseAddresses::default()
        .set_eh_frame(sections.frames.start)
        .set_eh_frame_hdr(sections.index.start);
    let frames = EhFrame::new(&sections.frames_bytes, LittleEndian);
    let index = EhFrameHdr::new(&sections.index_bytes, LittleEndian).parse(&bases, 8).ok()?;
    let entry = index
        .table()?
        .fde_for_address(
            &frames,
            &bases,
            start.wrapping_sub(sections.bias),
            EhFrame::<Bytes<'_>>::cie_from_offset,
        )
        .ok()?;
    match entry.lsda() {
        None => Some(None),
        Some(Pointer::Direct(address)) => Some(Some(address.wrapping_add(sections.bias))),
        Some(Pointer::Indirect(_)) => None,
    }
}

/// Reads the table of a function that begins at `start`.
fn call_sites(mut bytes: Bytes<'_>, start: u64) -> gimli::Result<Option<Vec<CallSite>>> {
    if bytes.read_u8()? != ABSENT {
        // Landing pads would be counted from elsewhere.
        return Ok(None);
    }
    if bytes.read_u8()? != ABSENT {
        bytes.read_uleb128()?;
    }
    let encoding = bytes.read_u8()?;
    let length = bytes.read_uleb128()?;
    let Ok(length) = usize::try_from(length) else { return Ok(None) };
    let mut sites = bytes.split(length)?;
    let mut all = Vec::new();
    while !sites.is_empty() {
        let mut number = || match encoding {
            ULEB128 => sites.read_uleb128().map(Some),
            UDATA4 => sites.read_u32().map(|number| Some(number.into())),
            _ => Ok(None),
        };
        let [Some(from), Some(length), Some(pad)] = [number()?, number()?, number()?] else {
            return Ok(None);
        };
        sites.read_uleb128()?;
        if pad != 0 {
            let calls = start.wrapping_add(from)..start.wrapping_add(from).wrapping_add(length);
            all.push(CallSite { calls, landing_pad: start.wrapping_add(pad) });
        }
    }
    Ok(Some(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Option<Vec<CallSite>> {
        call_sites(EndianSlice::new(bytes, LittleEndian), 0x1000).unwrap()
    }

    #[test]
    fn calls_with_a_landing_pad_are_found_in_both_encodings() {
        let wanted = vec![CallSite { calls: 0x1002..0x1005, landing_pad: 0x1080 }];
        // No base, no types; two calls, the second without a landing pad.
        let short = [0xff, 0xff, 1, 9, 2, 3, 0x80, 1, 1, 7, 2, 0, 0];
        assert_eq!(read(&short), Some(wanted.clone()));
        let typed = [0xff, 0x9b, 0x20, 1, 9, 2, 3, 0x80, 1, 1, 7, 2, 0, 0];
        assert_eq!(read(&typed), Some(wanted.clone()));
        let long = [0xff, 0xff, 3, 13, 2, 0, 0, 0, 3, 0, 0, 0, 0x80, 0, 0, 0, 1];
        assert_eq!(read(&long), Some(wanted));
    }

    #[test]
    fn another_base_and_other_encodings_are_not_understood() {
        assert_eq!(read(&[0x00, 0xff, 1, 0]), None);
        assert_eq!(read(&[0xff, 0xff, 0x0b, 4, 1, 1, 1, 1]), None);
        call_sites(EndianSlice::new(&[0xff, 0xff, 1, 9, 2], LittleEndian), 0).unwrap_err();
    }
}
