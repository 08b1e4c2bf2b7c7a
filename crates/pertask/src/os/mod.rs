//! The kernel and the processor: clocks, perf events, threads, and a process's end.

#[allow(unsafe_code)]
pub(crate) mod clock;
#[cfg(feature = "agent")]
#[allow(unsafe_code)]
pub(crate) mod exit;
#[allow(unsafe_code)]
pub(crate) mod perf;
pub(crate) mod threads;
