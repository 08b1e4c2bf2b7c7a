//! What is mapped of a file with code in it: plain data.

use std::ops::Range;

/// A program, a library, or the kernel's own page of code, as it is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Module {
    /// The file, or a name in brackets.
    pub path: String,
    /// The linker's identity of the file; empty if it gave none.
    pub build_id: Vec<u8>,
    /// What is to be added to an address in the file's own numbering to get one in the process.
    pub bias: u64,
    /// Where its code is mapped.
    pub ranges: Vec<ModuleRange>,
}

/// A range of a module's code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModuleRange {
    /// The addresses.
    pub addresses: Range<u64>,
    /// Where in the file the first of them is.
    pub file_offset: u64,
}
