//! How tasks are made (from any future, by tokio's spawn functions, by its hooks), and what they carry: labels, and scopes
//! from spans.

pub(crate) mod accounts;
pub(crate) mod job;
pub(crate) mod label_set;
pub(crate) mod labels;
#[cfg(all(feature = "sampler", feature = "tracing"))]
mod lock_layer;
#[cfg(all(feature = "sampler", feature = "tracing"))]
pub(crate) mod locks;
pub(crate) mod past;
pub(crate) mod run;
pub(crate) mod standing;
#[cfg(feature = "tokio")]
pub mod tokio;
#[cfg(feature = "tracing")]
pub mod tracing;
#[allow(unsafe_code)]
pub(crate) mod tracked;
pub(crate) mod used;
