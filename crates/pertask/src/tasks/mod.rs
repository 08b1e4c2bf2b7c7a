//! Making tasks: of any future, by tokio's spawn functions or its hooks; and what they carry, labels and scopes of spans.

pub(crate) mod labels;
pub(crate) mod run;
#[cfg(feature = "tokio")]
pub mod tokio;
#[cfg(feature = "tracing")]
pub mod tracing;
#[allow(unsafe_code)]
pub(crate) mod tracked;
