//! The kernel's versions of this protocol, as models that show each version's faults, and show that ours does not have them.
//!
//! ```text
//! RUSTFLAGS="--cfg pertask_loom" cargo test -p pertask-core --lib --release models::history -- --nocapture
//! ```
//!
//! A version is a handful of functions, in our own words, with the kernel's names and steps: `v4.rs`, `sketch.rs`, `merged.rs`,
//! `repaired.rs`. They run on as much of a kernel as they need: `kernel.rs` and `memory.rs`. The scenarios are in `faults/`, in
//! pairs. One test shows that a version has the fault, and prints the interleaving that leads to it. Its twin runs the same
//! scenario on the code that ships, and passes every interleaving. `docs/KERNEL_FAULTS.md` has the table, with the sources.
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

/// A version of the protocol: the functions that perf calls when events come and go, and when tasks are made and end.
struct Version {
    /// For an event on one task. Closing the event calls `detach_task`.
    attach_task: fn(&Cpu, &Task) -> Result<(), Refused>,
    detach_task: fn(&Cpu, &Task),
    attach_global: fn(&Cpu) -> Result<(), Refused>,
    detach_global: fn(&Cpu),
    /// Called by fork once the child is in the list of tasks.
    fork_hook: fn(&Cpu, child: &Task, parent: &Task),
    /// Called by a task that ends, before it leaves the list of tasks.
    exit_hook: fn(&Cpu, &Task),
}
