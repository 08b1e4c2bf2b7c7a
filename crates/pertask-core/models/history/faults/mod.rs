//! The faults, in pairs: the kernel's versions have them, and ours does not.

mod address;
mod exit;
mod fork;
mod posted;
mod references;
mod walk;

use super::Version;
use super::kernel::{Cpu, Task, boot};
use super::merged::{self, MERGED};
use super::repaired::REPAIRED;
use super::sketch::SKETCH;
use super::trace::{Fault, finds, passes};
use super::v4::{self, V4};
use crate::models::{World, check};
use std::sync::Arc;

/// Ends a task: perf's hook runs, then the task is gone.
fn exit(version: &Version, cpu: &Cpu, task: &Task) {
    (version.exit_hook)(cpu, task);
    cpu.leave_list(task);
}

/// A task makes another, without inherited events.
fn fork(version: &Version, cpu: &Cpu, parent: &Task) -> Arc<Task> {
    let child = cpu.new_task();
    cpu.enter_list(&child, Some(parent));
    (version.fork_hook)(cpu, &child, parent);
    child
}
