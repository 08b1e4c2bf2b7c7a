//! Why a pprof file could not be read.

use std::{fmt, io};

/// Why a pprof file could not be read: what was tried, what was found, and what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// The reader failed.
    Read(io::Error),
    /// There was nothing to read.
    Empty,
    /// It begins as gzip and does not unpack.
    Gzip(io::Error),
    /// It is larger than the caller's limits.
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much of it is allowed.
        limit: u64,
    },
    /// It is not pprof, or damaged.
    Malformed {
        /// Which part, such as `sample 3`.
        part: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is pprof, and says nothing about CPU time.
    NotCpuTime {
        /// What its samples say instead, such as `alloc_space/bytes`.
        found: Vec<String>,
    },
}

impl ReadError {
    /// Whether it is larger than the caller's limits.
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
            Self::Empty => write!(f, "{cannot}: it is empty; was its recording cut off?"),
            Self::Gzip(why) => write!(
                f,
                "{cannot}: it begins as gzip and does not unpack ({why}); it is cut short or damaged: fetch it again"
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
                    "{cannot}: {part}: {why}; it is not pprof, cut short or damaged: fetch it again"
                )
            }
            Self::NotCpuTime { found } => write!(
                f,
                "{cannot}: a sample type cpu in nanoseconds is needed, and found was {}; record a CPU profile",
                if found.is_empty() { "none".to_owned() } else { printable(found) }
            ),
        }
    }
}

/// Names from the file, of which nothing is known, in a line that steers no terminal and has an end.
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
