//! Sessions: from when to when is measured, and what of it goes into a report.

#[cfg(feature = "sampler")]
mod clocked;
mod measured;
mod reading;
mod rows;
mod session;
mod threads;
mod tree;

#[cfg(feature = "sampler")]
pub(crate) use clocked::Clocked;
pub use session::{Session, SessionOptions};
