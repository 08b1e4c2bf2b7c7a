//! Sessions: they measure from a start to a stop, and make reports.

#[cfg(feature = "sampler")]
mod clocked;
mod labels;
mod lives;
mod longest;
mod measured;
mod memory;
mod reading;
mod rows;
mod session;
mod site;
mod threads;
mod tree;

#[cfg(feature = "sampler")]
pub(crate) use clocked::Clocked;
#[cfg(feature = "sampler")]
pub(crate) use memory::MemorySource;
#[cfg(feature = "agent")]
pub(crate) use reading::TaskUsage;
#[cfg(feature = "sampler")]
pub(crate) use session::adopt_running;
pub use session::{Session, SessionOptions};
