//! The reasons why functions of a module have no names or no lines.

use crate::module::Module;
use std::path::Path;
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
    /// The file has another build id than the code that ran.
    OtherBuild {
        /// The file that was found.
        file: String,
        /// Its build id, or nothing if it has none.
        found: Vec<u8>,
        /// The build id of the code that ran.
        wanted: Vec<u8>,
    },
    /// The code that ran has no build id, so nothing shows that the file is the one that ran. Its names are used.
    NotIdentified,
    /// A part of the debug information is in a file of its own, which is missing. Names without inlined functions are left.
    SplitMissing {
        /// The first such file.
        file: String,
    },
    /// Debug information that dwz has shared between files is missing. Functions may lack names, lines and inlined functions.
    SharedMissing {
        /// The file that has it.
        file: String,
    },
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
    /// The symbol table, or another table of the file, needs more memory than the limit leaves.
    TableTooLarge {
        /// The memory that it needs.
        needed_bytes: u64,
        /// The memory that is left.
        room_bytes: usize,
    },
}

impl Reason {
    pub(crate) fn is_other_build(&self) -> bool {
        matches!(self, Self::OtherBuild { .. })
    }

    pub(crate) fn is_stripped(&self) -> bool {
        matches!(self, Self::Stripped)
    }

    /// Whether a separate file with debug information could help.
    pub(crate) fn is_without_lines(&self) -> bool {
        matches!(self, Self::NoDebugInfo | Self::Stripped)
    }

    /// Says that it is about a table of symbols, if it is about memory.
    pub(crate) fn of_table(self) -> Self {
        match self {
            Self::TooLarge { needed_bytes, room_bytes } => {
                Self::TableTooLarge { needed_bytes, room_bytes }
            }
            other => other,
        }
    }

    /// Says which file it is about.
    pub(crate) fn of_file(self, path: &Path) -> Self {
        match self {
            Self::OtherBuild { found, wanted, .. } => {
                Self::OtherBuild { file: path.display().to_string(), found, wanted }
            }
            other => other,
        }
    }
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
                // What the system has not refused was not tried.
                let remedy = match cause.raw_os_error() {
                    Some(_) => "; make it readable to this process",
                    None => "",
                };
                write!(f, "no symbols of {path}: it cannot be read: {cause}{remedy}")
            }
            Reason::Replaced => write!(
                f,
                "no symbols of {path}: the file was replaced after it was loaded; restart the program, or look symbols up by build id"
            ),
            Reason::OtherBuild { file, found, wanted } => write!(
                f,
                "no symbols of {path}: the build id of the code that ran is {}, and {} has {}; find the file that ran, or restart the program if it was replaced since",
                hex(wanted),
                if file.is_empty() { "the file" } else { file },
                if found.is_empty() { "none".to_owned() } else { hex(found) },
            ),
            Reason::NotIdentified => write!(
                f,
                "symbols of {path} may be wrong: it has no build id, so nothing shows that the file is the one that ran; link it with --build-id"
            ),
            Reason::SplitMissing { file } => write!(
                f,
                "no inlined functions of {path}, at least in part: its debug information is split, and {file} is missing; keep the .dwp or .dwo files beside it"
            ),
            Reason::SharedMissing { file } => write!(
                f,
                "names and inlined functions of {path} are missing in part: dwz has moved debug information to {file}, which cannot be read; install it"
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
            Reason::TableTooLarge { needed_bytes, room_bytes } => write!(
                f,
                "no symbols of {path}: one of its tables needs {needed_bytes} bytes of memory, and the limit leaves {room_bytes}; raise the limit"
            ),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
