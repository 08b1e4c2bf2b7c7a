//! Which PMUs are attached to all tasks: forks read this word, and global attaches write it. The kernel has
//! `global_ctx_data_rwsem`, a per-CPU rwsem, in its place.
//!
//! The kernel's write side shuts readers out while it changes the state. This state is one word and changes in one step, so no
//! reader need be kept out. The protocol asks one thing of the write side: when it returns, every fork that could have seen the
//! old word has left its section. That is a grace period. Forks never wait, not even for the change of the word, and the walk
//! over tasks that follows is not part of the write side.

use crate::error::Error;
use crate::primitive::{AtomicU32, Ordering};
use crate::rcu;

/// One bit for each PMU that is attached to all tasks.
///
/// INVARIANT: when `set` or `clear` has returned `Ok`, every fork's section that saw the old mask has ended.
pub(crate) struct GlobalMask(AtomicU32);

impl GlobalMask {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The mask. The caller must finish what it does for the mask's bits before the section ends.
    pub(crate) fn read(&self, _section: &rcu::Guard) -> u32 {
        // Acquire: pairs with the AcqRel in `set` and `clear`. The grace period makes later sections see the new mask.
        self.0.load(Ordering::Acquire)
    }

    /// Sets `bits`, then waits for the sections that may have missed them.
    pub(crate) fn set(&self, bits: u32) -> Result<(), Error> {
        // AcqRel: pairs with the Acquire in `read`.
        self.0.fetch_or(bits, Ordering::AcqRel);
        rcu::synchronize()
    }

    /// Clears `bits`, then waits for the sections that may have seen them.
    pub(crate) fn clear(&self, bits: u32) -> Result<(), Error> {
        // AcqRel: pairs with the Acquire in `read`.
        self.0.fetch_and(!bits, Ordering::AcqRel);
        rcu::synchronize()
    }
}
