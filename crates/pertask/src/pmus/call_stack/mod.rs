//! The call-stack PMU: the scopes in which a task is, innermost last, on whatever thread it is polled.
//!
//! A CPU has a register file of scopes, as a processor has last-branch records. Guards push scopes and pop them. The core's
//! switches save the registers of the task that is switched out and load those of the task that is switched in. So a guard that
//! is held across `.await` belongs to the task and not to the thread.

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
