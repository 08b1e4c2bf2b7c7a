//! Making and running tasks on the calling thread, and the count of polls that could not be followed.

use super::accounts::{self, Held};
use crate::pmus::life::Life;
use crate::pmus::waker;
use pertask_core::{Cpu, OwnedTask};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};

/// Polls whose task could not be switched in. Only tokio's hooks meet them.
static UNTRACKED: AtomicU64 = AtomicU64::new(0);

pub(crate) fn untracked_polls() -> u64 {
    // Relaxed: a figure.
    UNTRACKED.load(Ordering::Relaxed)
}

#[cfg(all(tokio_unstable, feature = "tokio"))]
pub(crate) fn count_untracked() {
    // Relaxed: a figure.
    UNTRACKED.fetch_add(1, Ordering::Relaxed);
}

/// Makes a task on the calling thread, with the account of the labels that it inherits. Who has the task keeps the account.
pub(crate) fn fork(
    name: Option<&str>,
    location: &'static Location<'static>,
) -> (OwnedTask, Option<Held>) {
    let task = Cpu::with(|cpu| cpu.fork(cpu.site(name, location)));
    let account = accounts::inherit(task.handle_ref());
    if waker::is_wanted() {
        Life::begin(task.handle_ref());
    }
    (task, account)
}

/// Runs `f` as `task` on the calling thread.
#[inline(always)]
pub(crate) fn run_as<R>(task: &mut OwnedTask, f: impl FnOnce() -> R) -> R {
    Cpu::with(|cpu| cpu.run(task, f))
}
