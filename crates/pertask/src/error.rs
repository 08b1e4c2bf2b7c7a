//! Why an operation was refused.

use std::fmt;

/// Why an operation was refused: what was tried, and what was found.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An event could not be attached.
    Attach(pertask_core::Error),
    /// More events were asked for than a set has room for.
    TooManyEvents {
        /// How many.
        wanted: usize,
        /// How many there is room for.
        limit: usize,
    },
    /// No way to sample threads works here.
    CannotSample {
        /// Each way that was tried, and why it does not work.
        refused: Vec<String>,
    },
    /// Other sets of events are being counted, and there is room for no more.
    CountersBusy {
        /// How many.
        sets: usize,
    },
}

impl Error {
    /// Whether memory was refused: by the allocator, or by a limit on per-task data.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        use pertask_core::Error::{CacheLimit, OutOfMemory};
        matches!(self, Self::Attach(CacheLimit { .. } | OutOfMemory { .. }))
    }

    /// Whether the task to attach to has ended.
    #[must_use]
    pub fn is_task_exited(&self) -> bool {
        matches!(self, Self::Attach(pertask_core::Error::TaskExited))
    }
}

impl From<pertask_core::Error> for Error {
    fn from(error: pertask_core::Error) -> Self {
        Self::Attach(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attach(refused) => write!(f, "cannot attach to tasks: {refused}"),
            Self::CannotSample { refused } => {
                write!(f, "cannot sample threads: {}", refused.join("; "))
            }
            Self::TooManyEvents { wanted, limit } => write!(
                f,
                "cannot count {wanted} events at once: a set has room for {limit}; count some of them in a session of their own"
            ),
            Self::CountersBusy { sets } => write!(
                f,
                "cannot count these events: {sets} other sets are being counted, and there is room for no more; wait for one to end, or ask for the same events"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Attach(refused) => Some(refused),
            Self::TooManyEvents { .. } | Self::CountersBusy { .. } | Self::CannotSample { .. } => {
                None
            }
        }
    }
}
