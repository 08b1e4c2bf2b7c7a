//! The PMUs. Each measures something of tasks, by hooks that the core calls when it switches them.

#[allow(unsafe_code)]
pub(crate) mod call_stack;
#[allow(unsafe_code)]
pub(crate) mod counters;
pub(crate) mod cpu_time;
pub(crate) mod memory;
pub(crate) mod stint;
#[allow(unsafe_code)]
pub(crate) mod wake;
