//! Why nothing is published.

use std::fmt;
use std::io;

/// Why nothing is published.
#[derive(Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// The program does not export the symbol by which readers find a thread's context.
    NotExported,
    /// Another library of this process has published a process context, and readers take only one.
    Another,
    /// The attributes of the resource are longer than a reader takes.
    TooLong {
        /// Their bytes, encoded.
        bytes: usize,
        /// The most bytes that they may have.
        limit: usize,
    },
    /// The kernel gives no memory that others can find.
    NoMemory(io::Error),
    /// The core could not attach to tasks.
    Attach(crate::Error),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotExported => f.write_str(
                "the program does not export otel_thread_ctx_v1: its build.rs must print \
                 cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol=otel_thread_ctx_v1",
            ),
            Self::Another => f.write_str(
                "another library of this process has published an OpenTelemetry process context, and readers take only one",
            ),
            Self::TooLong { bytes, limit } => {
                write!(f, "the resource has {bytes} bytes, and may have {limit}")
            }
            Self::NoMemory(why) => write!(f, "cannot map memory for the process context: {why}"),
            Self::Attach(why) => write!(f, "cannot follow tasks: {why}"),
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoMemory(why) => Some(why),
            Self::Attach(why) => Some(why),
            Self::NotExported | Self::Another | Self::TooLong { .. } => None,
        }
    }
}
