//! The PMUs: what is measured of tasks, each by hooks at their switches.

#[allow(unsafe_code)]
pub(crate) mod call_stack;
#[allow(unsafe_code)]
pub(crate) mod counters;
pub(crate) mod cpu_time;
pub(crate) mod stint;
#[allow(unsafe_code)]
pub(crate) mod wake;
