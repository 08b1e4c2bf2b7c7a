//! The error of reading a pprof file.

use std::{fmt, io};

/// The reason why a pprof file could not be read.
///
/// Its message says what was tried, what was found, and what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// The underlying reader failed.
    Read(io::Error),
    /// The file is empty.
    Empty,
    /// The file begins like gzip, but cannot be unpacked.
    Gzip(io::Error),
    /// The file exceeds a limit.
    TooLarge {
        /// What there is too much of, in the plural, such as `samples`.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The file is damaged, or is not pprof.
    Malformed {
        /// The part with the fault, such as `sample 3`.
        part: String,
        /// The fault.
        why: String,
    },
    /// The file is pprof, but does not contain CPU time.
    NotCpuTime {
        /// The types of its samples, such as `alloc_space/bytes`.
        found: Vec<String>,
    },
}

impl ReadError {
    /// Returns whether the file exceeds a limit.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge { .. })
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cannot = "cannot read the pprof profile";
        match self {
            Self::Read(why) => write!(f, "{cannot}: {why}"),
            Self::Empty => write!(f, "{cannot}: the file is empty; was its recording cut off?"),
            Self::Gzip(why) => write!(
                f,
                "{cannot}: it begins like gzip and cannot be unpacked ({why}); it is cut short or damaged: fetch it again"
            ),
            Self::TooLarge { what, limit } => {
                write!(
                    f,
                    "{cannot}: it has too many {what}, more than {limit}; if you trust the file, raise the limit"
                )
            }
            Self::Malformed { part, why } => {
                write!(
                    f,
                    "{cannot}: {part}: {why}; it is not pprof, or it is cut short or damaged: fetch it again"
                )
            }
            Self::NotCpuTime { found } => write!(
                f,
                "{cannot}: its sample types ({}) do not include CPU time; record a CPU profile",
                if found.is_empty() { "none".to_owned() } else { printable(found) }
            ),
        }
    }
}

/// Returns names from the file in one short line, with characters escaped that could control a terminal.
fn printable(names: &[String]) -> String {
    let some: String = names.join(", ").chars().take(200).collect();
    some.escape_debug().to_string()
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(why) | Self::Gzip(why) => Some(why),
            _ => None,
        }
    }
}
