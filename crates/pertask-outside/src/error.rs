//! Why a process cannot be recorded.

use std::{fmt, io};

/// Why a process cannot be recorded, and what to do about it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is no process with this number.
    NoProcess(u32),
    /// Another user's process, or one that the kernel protects.
    NotAllowed {
        /// The process.
        process: u32,
        /// What was tried, and what the kernel said.
        cause: io::Error,
    },
    /// The kernel refuses perf events.
    Perf {
        /// What the kernel said.
        cause: io::Error,
        /// What to do about it.
        remedy: String,
    },
    /// A program cannot be started.
    Launch {
        /// The program.
        program: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// A file is none of `perf record`, or its samples cannot be used.
    PerfData(String),
    /// Something else went wrong.
    Other {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProcess(process) => write!(
                f,
                "there is no process {process}: check the number (it differs inside and outside a container)"
            ),
            Self::NotAllowed { process, cause } => write!(
                f,
                "process {process} cannot be recorded: {cause}; run as the user of that process, or as root"
            ),
            Self::Perf { cause, remedy } => {
                write!(f, "the kernel refuses perf events: {cause}; {remedy}")
            }
            Self::PerfData(why) => write!(f, "not a usable perf.data file: {why}"),
            Self::Launch { program, cause } => write!(f, "{program} cannot be started: {cause}"),
            Self::Other { what, cause } => write!(f, "{what}: {cause}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoProcess(_) | Self::PerfData(_) => None,
            Self::NotAllowed { cause, .. }
            | Self::Perf { cause, .. }
            | Self::Launch { cause, .. }
            | Self::Other { cause, .. } => Some(cause),
        }
    }
}
