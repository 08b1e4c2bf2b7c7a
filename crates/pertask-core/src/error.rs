//! The reasons why the core refuses an operation.

use std::fmt;

/// Why an operation of the core was refused.
///
/// An operation that fails leaves nothing behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The PMU's cache has reached its byte limit.
    CacheLimit {
        /// The PMU that the cache belongs to.
        pmu: &'static str,
        /// The limit in force.
        limit_bytes: usize,
    },
    /// The allocator returned no memory.
    OutOfMemory {
        /// The PMU whose data could not be allocated.
        pmu: &'static str,
        /// How many bytes were requested.
        bytes: usize,
    },
    /// The task has ended, so it gets no new data.
    TaskExited,
    /// The task and the PMU belong to different systems.
    OtherSystem,
    /// An inherited event has no single zero to reset to; attach a new one.
    Inherited,
    /// All places are taken: a system has room for [`MAX_PMUS`](crate::MAX_PMUS) PMUs.
    TooManyPmus,
    /// The call would wait for other threads, and those would wait for the PMU's hook that made the call.
    InsideHook,
    /// The PMU has been unregistered; register it again.
    Unregistered,
    /// The PMU has events, and cannot be unregistered until they are dropped.
    InUse {
        /// How many events it has.
        events: u32,
    },
    /// The kernel refuses `membarrier(2)` although it granted it at start-up: a seccomp filter has been installed since.
    BarrierRefused,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CacheLimit { pmu, limit_bytes } => write!(
                f,
                "{pmu}: the limit of {limit_bytes} bytes for per-task data is reached; raise it, or attach to fewer tasks"
            ),
            Self::OutOfMemory { pmu, bytes } => {
                write!(f, "{pmu}: no memory for {bytes} bytes of per-task data")
            }
            Self::TaskExited => f.write_str("the task has ended"),
           Self::OtherSystem => f.write_str("the task and the PMU belong to different systems"),
            Self::Inherited => f.write_str("an inherited event cannot be reset; attach a new one"),
            Self::TooManyPmus => {
                write!(
                    f,
                    "all {} places for PMUs are taken; the features pmus-12 and pmus-24 of pertask-core give more",
                    crate::MAX_PMUS
                )
            }
            Self::InsideHook => f.write_str("called from inside a PMU's hook, where it would wait for itself"),
           Self::Unregistered => f.write_str("the PMU has been unregistered; register it again"),
            Self::InUse { events } => {
               write!(f, "the PMU has {events} events attached; drop them before you unregister it")
            }
            Self::BarrierRefused => f.write_str(
                "membarrier(2) is refused, though it was granted at start-up; allow it in the seccomp filter",
            ),
        }
    }
}

impl std::error::Error for Error {}
