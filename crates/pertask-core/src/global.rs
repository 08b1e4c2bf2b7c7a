//! Attaching a PMU to all tasks, and detaching it (the kernel's `attach_global_ctx_data` and its twin).
//!
//! Attach, in order: take the attach mutex; if the PMU is attached already, one reference and done. Set its bit under
//! the rwsem's write side: after that every fork installs data itself, and every fork that did not is in the table.
//! Walk the table once. A failure undoes what was done and is returned. Detach is the mirror image.

use crate::error::Error;
use crate::pmu::PmuState;
use crate::primitive::plain::AtomicU64;
use crate::primitive::{Mutex, Ordering, lock};
use crate::rcu;
use crate::refcount::Refcount;
use crate::slot::Marked;
use crate::task::Task;

/// One PMU's attachment to all tasks.
///
/// INVARIANT (*Whole*): while `users` is not zero, every live task has data with `global` set before it next runs,
/// but for those that `tasks_without_data` counts.
pub(crate) struct GlobalUse {
    /// How many global events there are. Leaves and returns to zero only under `attach`.
    users: Refcount,
    attach: Mutex<()>,
    tasks_without_data: AtomicU64,
}

impl GlobalUse {
    pub(crate) fn new() -> Self {
        Self {
            users: Refcount::new(0),
            attach: Mutex::new(()),
            tasks_without_data: AtomicU64::new(0),
        }
    }

    pub(crate) fn tasks_without_data(&self) -> u64 {
        // Relaxed: a figure.
        self.tasks_without_data.load(Ordering::Relaxed)
    }
}

impl PmuState {
    /// Adds a global event. The first walks all tasks, the others take a reference.
    pub(crate) fn attach_global(&self) -> Result<(), Error> {
        if self.global.users.inc_not_zero() {
            return Ok(());
        }
        if rcu::held() {
            return Err(Error::InsideHook);
        }
        let _attach = lock(&self.global.attach);
        // Another may have been faster.
        if self.global.users.inc_not_zero() {
            return Ok(());
        }
        if self.has_data
            && let Err(error) = self.give_data_to_all()
        {
            self.take_data_from_all();
            return Err(error);
        }
        self.global.users.set_one();
        Ok(())
    }

    /// Takes a global event away. The last walks all tasks.
    pub(crate) fn detach_global(&self) {
        if self.global.users.dec_not_one() {
            return;
        }
        let _attach = lock(&self.global.attach);
        if self.global.users.dec_and_test() && self.has_data {
            self.take_data_from_all();
        }
    }

    /// For fork, inside the rwsem's read side, once the child is in the table.
    pub(crate) fn fork_global(&self, child: &Task) {
        if child.slot(self.index).attach_global(&self.cache).is_err() {
            // Relaxed: a figure.
            self.global.tasks_without_data.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn give_data_to_all(&self) -> Result<(), Error> {
        self.system.global_use().set(self.bit())?;
        self.system.tasks().try_for_each(|task| {
            match task.slot(self.index).attach_global(&self.cache)? {
                // `Already`: fork was there first.
                Marked::Installed | Marked::Taken | Marked::Already | Marked::Exited => Ok(()),
            }
        })
    }

    fn take_data_from_all(&self) {
        // Should the barrier be refused, a fork under way may still install; its task gives the data back when it
        // ends, because it is marked.
        let _ = self.system.global_use().clear(self.bit());
        self.system.tasks().for_each(|task| task.slot(self.index).detach_global());
    }
}
