//! A file with code, as it is mapped: plain data.

use std::ops::Range;

/// A program, a library or the kernel's page of code, as it is mapped into this process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Module {
    /// The path of the file, or a name in brackets.
    pub path: String,
    /// The build id that the linker gave the file, or an empty vector if it gave none.
    pub build_id: Vec<u8>,
    /// The number to add to an address in the file's own numbering to get the address in the process.
    pub bias: u64,
    /// The ranges where the module's code is mapped.
    pub ranges: Vec<ModuleRange>,
}

impl Module {
    /// Makes a module that another process had mapped. Its bias is not known.
    #[must_use]
    pub fn new(path: impl Into<String>, build_id: Vec<u8>, ranges: Vec<ModuleRange>) -> Self {
        Self { path: path.into(), build_id, bias: 0, ranges }
    }
}

/// A range of a module's code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModuleRange {
    /// The addresses in the process.
    pub addresses: Range<u64>,
    /// The offset in the file of the first address.
    pub file_offset: u64,
}

impl ModuleRange {
    /// Makes a range of code at these addresses.
    #[must_use]
    pub fn new(addresses: Range<u64>, file_offset: u64) -> Self {
        Self { addresses, file_offset }
    }
}
