//! The threads of the process, as far as they can be listed.

use crate::os::threads;
use pertask_core::System;
use std::collections::BTreeSet;
use std::io::ErrorKind;

/// The threads of the process at one moment.
pub(super) enum Census {
    /// All threads, but for those that the kernel's list skips while others end.
    All(BTreeSet<u32>),
    /// The threads that run tasks. `/proc` is not mounted, so nobody knows the others.
    Workers(BTreeSet<u32>),
    /// No list can be had at this moment. The process may be out of file descriptors.
    Unknown,
}

impl Census {
    /// Lists the threads.
    pub(super) fn take() -> Self {
        match threads::list() {
            Ok(all) => Self::All(all.into_iter().collect()),
            Err(why) if why.kind() == ErrorKind::NotFound => Self::Workers(workers()),
            Err(_) => Self::Unknown,
        }
    }
}

/// The threads that run tasks.
fn workers() -> BTreeSet<u32> {
    let mut threads = BTreeSet::new();
    System::global().for_each_cpu(|cpu| threads.extend(cpu.thread()));
    threads
}
