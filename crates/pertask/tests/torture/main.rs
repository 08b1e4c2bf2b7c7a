//! The sampler tortured: whatever the program does meanwhile, it goes on as it would have without.
//!
//! Each scenario runs in a process of its own, once for each mechanism, so that a crash and a hang are a failed test and no
//! dead harness. `PERTASK_TORTURE_ROUNDS=10` does ten times as much in each.

#![cfg(target_os = "linux")]

mod harness;

mod children;
mod handlers;
mod libraries;
mod limits;
mod memory;
mod sessions;
mod stacks;
mod states;
// It knows this processor's registers and instructions.
#[cfg(target_arch = "x86_64")]
mod steps;
mod threads;
mod waits;
