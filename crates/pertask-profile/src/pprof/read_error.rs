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
        /// The limit's name, one of [`ReadLimits::NAMES`](super::ReadLimits::NAMES).
        name: &'static str,
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
    /// The file is of another kind.
    NotPprof {
        /// What it is, such as `a web page`.
        what: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The file is the difference of two profiles: some of its numbers are negative.
    Difference,
    /// The file holds several profiles, one after another.
    Several,
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
        f.write_str("cannot read the pprof profile: ")?;
        match self {
            Self::Read(why) => write!(f, "{why}"),
            Self::Empty => f.write_str("the file is empty; was its recording cut off?"),
            Self::Gzip(why) => write!(
                f,
                "it begins like gzip and cannot be unpacked ({why}); it is cut short or damaged: fetch it again"
            ),
            Self::TooLarge { what, name, limit } => write!(
                f,
                "it has too many {what}, more than {limit}; if you trust the file, raise the limit ({name})"
            ),
            Self::Malformed { part, why } => write!(
                f,
                "{part}: {why}; it is not pprof, or it is cut short or damaged: fetch it again"
            ),
            Self::NotPprof { what, remedy } => write!(f, "it is not pprof, but {what}; {remedy}"),
            Self::Difference => f.write_str(
                "it is the difference of two profiles, with negative CPU time or counts; read it as one (PprofFile), or see it with pertask report FILE",
            ),
            Self::Several => f.write_str(
                "it holds several profiles, one after another; read each alone, or add up the files that they came from: go tool pprof -proto FILE FILE > sum.pb.gz",
            ),
            Self::NotCpuTime { found } => write!(
                f,
                "its sample types ({}) do not include CPU time; record a CPU profile",
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
