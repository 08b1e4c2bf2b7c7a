//! The error of all operations that can be refused.

use std::fmt;

/// Why an operation was refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The core could not attach an event.
    Attach(pertask_core::Error),
    /// The caller asked for more events than one set can count.
    TooManyEvents {
        /// The number of events that the caller asked for.
        wanted: usize,
        /// The number of events that a set can count.
        limit: usize,
    },
    /// No mechanism to sample threads works on this machine.
    CannotSample {
        /// Each mechanism that was tried, and the reason why it does not work.
        refused: Vec<String>,
    },
    /// Other sets of events are being counted, and one more set cannot be.
    CountersBusy {
        /// The number of sets that are being counted.
        sets: usize,
    },
}

impl Error {
    /// Whether the allocator, or a limit on per-task data, refused memory.
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
                "cannot count {wanted} events at once: a set has at most {limit}; count some of them in another session"
            ),
            Self::CountersBusy { sets } => {
                let others = match sets {
                    1 => "another set is being counted".to_owned(),
                    sets => format!("{sets} other sets are being counted"),
                };
                write!(
                    f,
                    "cannot count these events: {others}, and no more can be; wait until one ends, or ask for the same events"
                )
            }
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
