//! Making and running tasks on this thread, for all that makes tasks; and what could not be run as one.

use pertask_core::{Cpu, OwnedTask};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};

/// Polls that could not be switched in: tokio's hooks alone may come upon one.
static UNTRACKED: AtomicU64 = AtomicU64::new(0);

pub(crate) fn untracked_polls() -> u64 {
    UNTRACKED.load(Ordering::Relaxed)
}

#[cfg(all(tokio_unstable, feature = "tokio"))]
pub(crate) fn count_untracked() {
    UNTRACKED.fetch_add(1, Ordering::Relaxed);
}

/// Makes a task on this thread.
pub(crate) fn fork(name: Option<&str>, location: &'static Location<'static>) -> OwnedTask {
    Cpu::with(|cpu| cpu.fork(cpu.site(name, location)))
}

/// Runs `f` as `task`, on this thread.
#[inline(always)]
pub(crate) fn run_as<R>(task: &mut OwnedTask, f: impl FnOnce() -> R) -> R {
    Cpu::with(|cpu| cpu.run(task, f))
}
