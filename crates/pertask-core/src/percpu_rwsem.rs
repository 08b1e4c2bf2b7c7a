//! What fork reads and a global attach writes: which PMUs are attached to all tasks (the kernel's
//! `global_ctx_data_rwsem`, a per-CPU rwsem).
//!
//! The kernel's write side shuts readers out while it changes the state. Here the state is one word, so no reader
//! need be kept out while it changes; all that the protocol asks of the write side is that, when it returns, every
//! reader that could have seen the old word has left. That is a grace period: readers never wait, not even for the
//! flip, and the walk over tasks that follows is no part of it.

use crate::error::Error;
use crate::primitive::{AtomicU32, Ordering};
use crate::rcu;

/// A word that is read in sections, and whose writer waits for the sections that may have read the old one.
///
/// INVARIANT: after a `set` or `clear` has returned, every section of a reader that saw the word without it has ended.
pub(crate) struct PercpuRwsem {
    word: AtomicU32,
}

/// The read side: the word as it was at the beginning.
pub(crate) struct ReadGuard {
    _section: rcu::Guard,
    word: u32,
}

impl PercpuRwsem {
    pub(crate) fn new() -> Self {
        Self { word: AtomicU32::new(0) }
    }

    /// Enters the read side. Never waits.
    pub(crate) fn read(&self) -> ReadGuard {
        let section = rcu::enter();
        // Acquire: pairs with the AcqRel in `set` and `clear`. That a section which begins after the grace period sees
        // the new word is the section's doing.
        let word = self.word.load(Ordering::Acquire);
        ReadGuard { _section: section, word }
    }

    /// The write side: sets `bits`, then waits for the readers that may have missed them.
    pub(crate) fn set(&self, bits: u32) -> Result<(), Error> {
        self.word.fetch_or(bits, Ordering::AcqRel);
        rcu::synchronize()
    }

    /// The write side: clears `bits`, then waits for the readers that may still have seen them.
    pub(crate) fn clear(&self, bits: u32) -> Result<(), Error> {
        self.word.fetch_and(!bits, Ordering::AcqRel);
        rcu::synchronize()
    }
}

impl ReadGuard {
    pub(crate) fn word(&self) -> u32 {
        self.word
    }
}
