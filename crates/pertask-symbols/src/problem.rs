//! The reasons why functions of a module have no names or no lines.

use crate::module::Module;
use std::{fmt, io};

/// A module whose functions are not all known, and the reason.
#[derive(Debug)]
#[non_exhaustive]
pub struct Problem {
    /// The module's file.
    pub path: String,
    /// The reason why functions are not known.
    pub reason: Reason,
}

/// The reason why a module's file does not name all functions.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The file cannot be read.
    Unreadable(io::Error),
    /// The file is not the one that is mapped, because it was replaced later.
    Replaced,
    /// The file is damaged, or is not an ELF file.
    Malformed(String),
    /// The file has neither debug information nor a symbol table.
    Stripped,
    /// The file has no debug information. Names come from the symbol table, without lines and without inlined functions.
    NoDebugInfo,
    /// The debug information needs more memory than the limit leaves.
    TooLarge {
        /// The memory that it needs.
        needed_bytes: u64,
        /// The memory that is left.
        room_bytes: usize,
    },
}

impl Problem {
    pub(crate) fn of(module: &Module, reason: Reason) -> Self {
        Self { path: module.path.clone(), reason }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.reason {
            Reason::Unreadable(cause) => {
                write!(
                    f,
                    "no symbols of {path}: it cannot be read: {cause}; make it readable to this process"
                )
            }
            Reason::Replaced => write!(
                f,
                "no symbols of {path}: the file was replaced after it was loaded; restart the program, or look symbols up by build id"
            ),
            Reason::Malformed(what) => {
                write!(
                    f,
                    "no symbols of {path}: it is damaged or not an ELF file: {what}; install it again"
                )
            }
            Reason::Stripped => write!(
                f,
                "no symbols of {path}: it is stripped; keep its symbols, or install its debug package"
            ),
            Reason::NoDebugInfo => write!(
                f,
                "no lines or inlined functions of {path}: it has no debug information; build it with debug = \"limited\", or install its debug package"
            ),
            Reason::TooLarge { needed_bytes, room_bytes } => write!(
                f,
                "no lines or inlined functions of {path}: its debug information needs {needed_bytes} bytes of memory, and the limit leaves {room_bytes}; raise the limit"
            ),
        }
    }
}
