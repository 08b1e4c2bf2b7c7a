//! From addresses in a process to those in a file's own numbering.

use crate::files::Elf;
use crate::module::ModuleRange;
use object::ReadRef;
use object::elf::{PF_X, PT_LOAD};
use object::read::elf::ProgramHeader as _;

const PAGE: u64 = 4096;

/// How a file numbers its code.
pub(crate) enum Numbering {
    /// The difference to addresses in the process is known.
    Bias(u64),
    /// It follows from the segments of code.
    Segments(Vec<Segment>),
}

/// A segment of code: where it is in the file, and the address at which the file has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    offset: u64,
    length: u64,
    address: u64,
}

impl Numbering {
    pub(crate) fn with_bias(bias: u64) -> Self {
        Self::Bias(bias)
    }

    pub(crate) fn of<'d, R: ReadRef<'d>>(elf: &Elf<'d, R>) -> Self {
        let endian = elf.endian();
        let is_code = |segment: &&object::elf::ProgramHeader64<_>| {
            segment.p_type(endian) == PT_LOAD && segment.p_flags(endian).0 & PF_X.0 != 0
        };
        let segments = elf.elf_program_headers().iter().filter(is_code).map(|segment| Segment {
            offset: segment.p_offset(endian),
            length: segment.p_filesz(endian),
            address: segment.p_vaddr(endian),
        });
        Self::Segments(segments.collect())
    }

    /// Returns the file's own address of an address of the process, which is in this range.
    pub(crate) fn of_address(&self, address: u64, range: &ModuleRange) -> Option<u64> {
        let segments = match self {
            Self::Bias(bias) => return Some(address.wrapping_sub(*bias)),
            Self::Segments(segments) => segments,
        };
        let inside = address.checked_sub(range.addresses.start)?;
        let offset = inside.checked_add(range.file_offset)?;
        let holding = segments.iter().find(|segment| segment.holds(offset));
        if let Some(segment) = holding {
            return Some(segment.address.wrapping_add(offset.wrapping_sub(segment.offset)));
        }
        // A file with nothing but debug information keeps the addresses of its segments, and no offsets.
        match &segments[..] {
            [only] if only.length == 0 => (only.address & !(PAGE - 1)).checked_add(inside),
            _ => None,
        }
    }
}

impl Segment {
    fn holds(&self, offset: u64) -> bool {
        let end = self.offset.saturating_add(self.length);
        self.length > 0 && self.offset & !(PAGE - 1) <= offset && offset < end
    }
}
