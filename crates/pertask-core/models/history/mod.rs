//! The kernel's versions of this protocol, as models: each of their faults can be seen, and that ours has it not.
//!
//! ```text
//! RUSTFLAGS="--cfg pertask_loom" cargo test -p pertask-core --lib --release models::history -- --nocapture
//! ```
//!
//! A version is a handful of functions, in our words, of the kernel's names and steps: `v4.rs`, `sketch.rs`, `merged.rs`,
//! `repaired.rs`. They stand on as much of a kernel as they need: `kernel.rs` and `memory.rs`. The scenarios are in
//! `faults/`, in pairs: one test shows that a version has the fault, and prints the interleaving that does it; its twin is
//! the same scenario on the code that ships, and passes every interleaving. The table, with the sources, is
//! `docs/KERNEL_FAULTS.md`.
//!
//! The bounds are those of the other models: two threads and at most three preemptions, unless a model says otherwise.

mod faults;
mod kernel;
mod memory;
mod merged;
mod repaired;
mod sketch;
mod trace;
mod v4;

use kernel::{Cpu, Task};
use memory::Refused;

/// A version of the protocol: what perf calls when events come and go, tasks are made and end.
struct Version {
    /// For an event on one task, whoever closes it calls `detach_task`.
    attach_task: fn(&Cpu, &Task) -> Result<(), Refused>,
    detach_task: fn(&Cpu, &Task),
    attach_global: fn(&Cpu) -> Result<(), Refused>,
    detach_global: fn(&Cpu),
    /// What fork calls when the child is in the list of tasks.
    fork_hook: fn(&Cpu, child: &Task, parent: &Task),
    /// What a task calls when it ends, before it leaves the list of tasks.
    exit_hook: fn(&Cpu, &Task),
}
