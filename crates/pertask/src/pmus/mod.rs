//! The PMUs. Each measures something of tasks, by hooks that the core calls when it switches them.

pub(crate) mod by_tag;
#[allow(unsafe_code)]
pub(crate) mod call_stack;
#[allow(unsafe_code)]
pub(crate) mod counters;
pub(crate) mod cpu_time;
pub(crate) mod life;
pub(crate) mod memory;
pub(crate) mod stint;
#[cfg_attr(
    not(feature = "sampler"),
    allow(dead_code, reason = "the sampler decides what is done with them")
)]
pub(crate) mod waits;
#[allow(unsafe_code)]
pub(crate) mod wake;
#[allow(unsafe_code)]
pub(crate) mod waker;
