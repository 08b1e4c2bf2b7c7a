//! The edges: code that is not the core's panics, and calls the core from places where it should not; runs end in another
//! order than they began; threads end, and processes fork, in the middle of things. Nothing of it reaches freed memory, hangs,
//! or makes a count wrong in silence.
//!
//! Run under AddressSanitizer by `ci/stress.sh`, and under Miri by `ci/miri.sh`: all but what needs coroutines or `fork(2)`, which
//! Miri does not have.

#![cfg(not(any(pertask_loom, pertask_shuttle)))]

#[path = "../common/mod.rs"]
mod common;

mod cpus;
mod ends;
#[cfg(all(unix, not(miri)))]
mod forks;
mod holes;
mod hooks;
#[cfg(not(miri))]
mod moves;
mod panics;
#[cfg(not(miri))]
mod runs;
mod scene;
