//! The kernel and the processor: clocks, perf events, threads.

#[allow(unsafe_code)]
pub(crate) mod clock;
#[allow(unsafe_code)]
pub(crate) mod perf;
pub(crate) mod threads;
