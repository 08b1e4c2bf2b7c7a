//! Attaching a PMU to all tasks, and detaching it (the kernel's `attach_global_ctx_data` and its counterpart).
//!
//! If the PMU is attached already, an attach takes one reference and is done. Otherwise the attaching thread takes the attach
//! mutex and checks again. It then sets the PMU's bit in the mask that forks read; from then on every fork installs data
//! itself, and every task forked without data is in the table. Then it walks the table once. If it fails, it undoes what it did
//! and returns the error. Detach is the mirror image.

use crate::ctx_cache::CtxCache;
use crate::error::Error;
use crate::global_mask::GlobalMask;
use crate::primitive::plain::{AtomicBool, AtomicU64};
use crate::primitive::{Mutex, Ordering, lock};
use crate::rcu;
use crate::refcount::Refcount;
use crate::slot::{Left, Marked, Slot};

/// One PMU's attachment to all tasks.
///
/// INVARIANT (*Whole*): while `users` is not zero, every live task has data with `global` set before it next runs, except tasks
/// whose slot is a hole.
pub(crate) struct GlobalUse {
    /// How many global events there are. It leaves and reaches zero only under `attach`.
    users: Refcount,
    attach: Mutex<()>,
    /// How many live tasks have a hole.
    holes: AtomicU64,
    /// How many tasks kept their hole until they ended, or until the last global event was detached.
    stayed_without: AtomicU64,
    /// Whether data stays until its task ends, even after the last event is detached.
    retains: AtomicBool,
}

/// One PMU's slots in all tasks, and the cache of their data.
pub(crate) trait Everywhere {
    /// Whether the PMU keeps data for tasks.
    fn has_data(&self) -> bool;
    /// The PMU's bit in the mask.
    fn bit(&self) -> u32;
    fn mask(&self) -> &GlobalMask;
    fn cache(&self) -> &CtxCache;
    /// Calls `f` with the slot of every task that lives for the whole call, until `f` fails.
    fn try_for_each(&self, f: &mut dyn FnMut(&Slot) -> Result<(), Error>) -> Result<(), Error>;
}

impl GlobalUse {
    pub(crate) fn new() -> Self {
        Self {
            users: Refcount::new(0),
            attach: Mutex::new(()),
            holes: AtomicU64::new(0),
            stayed_without: AtomicU64::new(0),
            retains: AtomicBool::new(false),
        }
    }

    /// How many tasks were forked without data and have got none since.
    pub(crate) fn tasks_without_data(&self) -> u64 {
        // Relaxed: for statistics.
        self.holes.load(Ordering::Relaxed) + self.stayed_without.load(Ordering::Relaxed)
    }

    /// Adds a global event. The first walks all tasks; later ones take a reference.
    pub(crate) fn attach(&self, all: &impl Everywhere) -> Result<(), Error> {
        if self.users.inc_not_zero() {
            self.mend(all);
            return Ok(());
        }
        if rcu::held() {
            return Err(Error::InsideHook);
        }
        let _attach = lock(&self.attach);
        // Another thread may have been faster.
        if self.users.inc_not_zero() {
            return Ok(());
        }
        if all.has_data()
            && let Err(error) = self.give_data_to_all(all)
        {
            self.take_data_from_all(all);
            return Err(error);
        }
        self.users.set_one();
        Ok(())
    }

    /// Removes a global event. The last one walks all tasks, unless data is retained.
    pub(crate) fn detach(&self, all: &impl Everywhere) {
        if self.users.dec_not_one() {
            return;
        }
        // Even in a hook, this does not deadlock with an attach or another detach: either waits for sections, with the lock
        // held, only while there are no users, and until here there was a user, our event.
        let _attach = lock(&self.attach);
        if self.users.dec_and_test() && all.has_data() {
            if self.retains() {
                let _ = all.mask().clear(all.bit());
            } else {
                self.take_data_from_all(all);
            }
        }
    }

    /// Whether data stays until its task ends.
    pub(crate) fn retains(&self) -> bool {
        // Relaxed: an attach that runs at the same time counts as earlier or later.
        self.retains.load(Ordering::Relaxed)
    }

    /// Sets whether data stays until its task ends, or is released with its last event.
    ///
    /// Data that is no longer retained is there until [`release_retained`](Self::release_retained), after a grace period.
    pub(crate) fn set_retains(&self, retains: bool) {
        let _attach = lock(&self.attach);
        // Relaxed: the grace period orders it. A thread that finds data retained marks the data in the same section.
        self.retains.store(retains, Ordering::Relaxed);
    }

    /// Releases the data that was retained, unless there is a global event, or data is retained again.
    pub(crate) fn release_retained(&self, all: &impl Everywhere) {
        let _attach = lock(&self.attach);
        if all.has_data() && !self.retains() && self.users.read() == 0 {
            self.release_all(all);
        }
    }

    /// Counts a hole that fork left.
    pub(crate) fn count_hole(&self) {
        // Relaxed, here and below: for statistics.
        self.holes.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a hole that stayed until the task ended, or until the last global event was detached.
    pub(crate) fn count_left(&self, left: Left) {
        if left == Left::Hole {
            self.holes.fetch_sub(1, Ordering::Relaxed);
            self.stayed_without.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a hole that was filled.
    pub(crate) fn count_filled(&self) {
        self.holes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Gives the global event its reference, after a task's own event has filled a hole, or where data is retained.
    pub(crate) fn share(&self, all: &impl Everywhere, slot: &Slot) {
        let section = rcu::enter();
        if self.retains() || all.mask().read(&section) & all.bit() != 0 {
            // There is data, or the task has ended: this allocates only if the task's own event has been dropped meanwhile.
            let _ = self.give_data_to(all, slot);
        }
    }

    /// Fills the holes, as far as there is memory now.
    fn mend(&self, all: &impl Everywhere) {
        if self.holes.load(Ordering::Relaxed) == 0 || rcu::held() {
            return;
        }
        let _attach = lock(&self.attach);
        let _ = self.walk(all);
    }

    fn give_data_to_all(&self, all: &impl Everywhere) -> Result<(), Error> {
        all.mask().set(all.bit())?;
        self.walk(all)
    }

    fn walk(&self, all: &impl Everywhere) -> Result<(), Error> {
        all.try_for_each(&mut |slot| self.give_data_to(all, slot))
    }

    fn give_data_to(&self, all: &impl Everywhere, slot: &Slot) -> Result<(), Error> {
        match slot.attach_global(all.cache())? {
            Marked::Filled => self.count_filled(),
            // `Already`: fork was first, or data was retained.
            Marked::Installed | Marked::Taken | Marked::Already | Marked::Exited => {}
        }
        Ok(())
    }

    fn take_data_from_all(&self, all: &impl Everywhere) {
        // If the barrier is refused, or this runs in a hook, a concurrent fork may still install data. Its task gives the data
        // back when it ends, because the data is marked.
        let _ = all.mask().clear(all.bit());
        self.release_all(all);
    }

    fn release_all(&self, all: &impl Everywhere) {
        let _ = all.try_for_each(&mut |slot| {
            self.count_left(slot.detach_global());
            Ok(())
        });
    }
}
