//! Attaching a PMU to all tasks, and detaching it (the kernel's `attach_global_ctx_data` and its twin).
//!
//! Attach, in order: if the PMU is attached already, one reference and done. Else take the attach mutex, and look again. Set its bit in the mask that
//! forks read: after that every fork installs data itself, and every fork that did not is in the table. Walk the table once. A
//! failure undoes what was done and is returned. Detach is the mirror image.

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
/// INVARIANT (*Whole*): while `users` is not zero, every live task has data with `global` set before it next runs,
/// but for those whose slot is a hole.
pub(crate) struct GlobalUse {
    /// How many global events there are. Leaves and returns to zero only under `attach`.
    users: Refcount,
    attach: Mutex<()>,
    /// Live tasks whose slot is a hole.
    holes: AtomicU64,
    /// Tasks that were left a hole until they ended, or until the last global event went.
    stayed_without: AtomicU64,
    /// Whether data stays until its task ends, also when the last event goes.
    retains: AtomicBool,
}

/// All tasks' slots of one PMU, and where their data comes from.
pub(crate) trait Everywhere {
    /// Whether the PMU keeps data for tasks at all.
    fn has_data(&self) -> bool;
    /// The PMU's bit in the mask.
    fn bit(&self) -> u32;
    fn mask(&self) -> &GlobalMask;
    fn cache(&self) -> &CtxCache;
    /// Calls `f` with the slot of every task that lives for the whole of the call, until it fails.
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

    /// Tasks that were born without data and have not been given any.
    pub(crate) fn tasks_without_data(&self) -> u64 {
        // Relaxed: figures.
        self.holes.load(Ordering::Relaxed) + self.stayed_without.load(Ordering::Relaxed)
    }

    /// Adds a global event. The first walks all tasks, the others take a reference.
    pub(crate) fn attach(&self, all: &impl Everywhere) -> Result<(), Error> {
        if self.users.inc_not_zero() {
            self.mend(all);
            return Ok(());
        }
        if rcu::held() {
            return Err(Error::InsideHook);
        }
        let _attach = lock(&self.attach);
        // Another may have been faster.
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

    /// Takes a global event away. The last walks all tasks, unless data is retained.
    pub(crate) fn detach(&self, all: &impl Everywhere) {
        if self.users.dec_not_one() {
            return;
        }
        // Not even in a hook does this wait for itself: whoever holds the lock and waits for sections has found no user or
        // left none, and until here there was one, ours.
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
        // Relaxed: whoever attaches at this moment does so before or after.
        self.retains.load(Ordering::Relaxed)
    }

    /// Has data stay until its task ends, or go with its last event.
    pub(crate) fn set_retains(&self, all: &impl Everywhere, retains: bool) -> Result<(), Error> {
        if rcu::held() {
            return Err(Error::InsideHook);
        }
        let _attach = lock(&self.attach);
        // Relaxed: what orders it is the grace period. Whoever has found that data is retained marks it in the same section.
        self.retains.store(retains, Ordering::Relaxed);
        if all.has_data() && !retains {
            rcu::synchronize()?;
            if self.users.read() == 0 {
                self.release_all(all);
            }
        }
        Ok(())
    }

    /// For fork and exit: what became of the slot of a task.
    pub(crate) fn count_hole(&self) {
        // Relaxed, here and below: figures.
        self.holes.fetch_add(1, Ordering::Relaxed);
    }

    /// A hole has been left as it was.
    pub(crate) fn count_left(&self, left: Left) {
        if left == Left::Hole {
            self.holes.fetch_sub(1, Ordering::Relaxed);
            self.stayed_without.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A hole has been filled.
    pub(crate) fn count_filled(&self) {
        self.holes.fetch_sub(1, Ordering::Relaxed);
    }

    /// After an event of a task's own has filled its hole, or wherever data is to stay: the global event has its reference, too.
    pub(crate) fn share(&self, all: &impl Everywhere, slot: &Slot) {
        let section = rcu::enter();
        if self.retains() || all.mask().read(&section) & all.bit() != 0 {
            // There is data, or the task has ended: this allocates nothing unless the event has gone meanwhile.
            let _ = self.give_data_to(all, slot);
        }
    }

    /// Fills the holes that there are, as far as there is memory now.
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
            // `Already`: fork was there first, or data was retained.
            Marked::Installed | Marked::Taken | Marked::Already | Marked::Exited => {}
        }
        Ok(())
    }

    fn take_data_from_all(&self, all: &impl Everywhere) {
        // Should the barrier be refused, or this be inside a hook, a fork under way may still install; its task gives the data
        // back when it ends, because it is marked.
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
