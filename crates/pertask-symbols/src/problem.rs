//! Why functions of a module have no names, or no lines.

use crate::module::Module;
use std::{fmt, io};

/// A module whose functions are not all known, and why.
#[derive(Debug)]
#[non_exhaustive]
pub struct Problem {
    /// The module's file.
    pub path: String,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a module's file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It is not the file that is mapped: it was replaced since.
    Replaced,
    /// It is no ELF file, or a damaged one.
    Malformed(String),
    /// It has neither debug information nor a symbol table.
    Stripped,
    /// It has no debug information: functions are known by the symbol table, without lines and inlined functions.
    NoDebugInfo,
    /// Its debug information needs more memory than is left.
    TooLarge {
        /// What it needs.
        needed_bytes: u64,
        /// What is left.
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
                "no symbols of {path}: the file was replaced since it was loaded; restart the program, or symbolize by build identity"
            ),
            Reason::Malformed(what) => {
                write!(
                    f,
                    "no symbols of {path}: it is damaged, or no ELF file: {what}; install it again"
                )
            }
            Reason::Stripped => write!(
                f,
                "no symbols of {path}: it is stripped; keep its symbols, or install its debug package"
            ),
            Reason::NoDebugInfo => write!(
                f,
                "no lines or inlined functions of {path}: it has no debug information; build it with debug = \"line-tables-only\", or install its debug package"
            ),
            Reason::TooLarge { needed_bytes, room_bytes } => write!(
                f,
                "no lines or inlined functions of {path}: its debug information needs {needed_bytes} bytes of memory, and the limit leaves {room_bytes}; raise the limit"
            ),
        }
    }
}
