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

/// A range of a module's code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModuleRange {
    /// The addresses in the process.
    pub addresses: Range<u64>,
    /// The offset in the file of the first address.
    pub file_offset: u64,
}
