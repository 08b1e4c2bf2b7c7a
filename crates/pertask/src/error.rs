//! Why a session could not be started.

use std::fmt;

/// Why an operation was refused: what was tried, and what was found.
#[derive(Debug)]
pub struct Error(pertask_core::Error);

impl Error {
    /// Whether memory was refused: by the allocator, or by a limit on per-task data.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        use pertask_core::Error::{CacheLimit, OutOfMemory};
        matches!(self.0, CacheLimit { .. } | OutOfMemory { .. })
    }

    /// Whether the task to attach to has ended.
    #[must_use]
    pub fn is_task_exited(&self) -> bool {
        self.0 == pertask_core::Error::TaskExited
    }
}

impl From<pertask_core::Error> for Error {
    fn from(error: pertask_core::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot attach to tasks: {}", self.0)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}
