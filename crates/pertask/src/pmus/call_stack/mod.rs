//! The call-stack PMU: in which scopes a task is, innermost last, wherever it is polled.
//!
//! A CPU has a register file of scopes, as a processor has last-branch records. Guards push and pop it; the core's switches
//! save it with the task that leaves and load that of the task which comes, so that a guard held across `.await` is the
//! task's and not the thread's.

mod names;
mod pmu;
mod registers;
mod scope;

pub use names::ScopeName;
#[cfg(feature = "sampler")]
pub(crate) use names::name_of;
#[cfg(feature = "tracing")]
pub(crate) use names::number_of;
pub use pmu::{CallStack, CallStackCpu, CallStackData, CallStacks};
pub use registers::MAX_SCOPES;
pub use scope::{Scope, current_scopes};
#[cfg(feature = "tracing")]
pub(crate) use scope::{enter_number, leave_number};
