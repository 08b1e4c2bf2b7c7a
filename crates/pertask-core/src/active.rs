//! Which PMUs have events: the one word that a switch looks at while nothing is attached.

use crate::error::Error;
use crate::primitive::{AtomicU32, Mutex, Ordering, lock};
use crate::rcu;
use crate::refcount::Refcount;

/// How many PMUs a [`System`](crate::System) has room for: each task has a slot of one word for each.
///
/// 6, or 12 with the feature `pmus-12`, or 24 with `pmus-24`.
pub const MAX_PMUS: usize = if cfg!(pertask_loom) {
    // So that an exit is one step.
    1
} else if cfg!(pertask_shuttle) {
    2
} else if cfg!(feature = "pmus-24") {
    24
} else if cfg!(feature = "pmus-12") {
    12
} else {
    6
};

/// A bit for each PMU that has an event.
pub(crate) struct ActivePmus {
    /// INVARIANT: a PMU's bit is set while it has an event. It changes under the lock of its [`Events`].
    mask: AtomicU32,
}

/// How many events one PMU has. It belongs to the PMU, and not to its place: whoever finds events here finds a PMU that is
/// registered.
///
/// INVARIANT: while `count` is not zero, `open` is true.
pub(crate) struct Events {
    count: Refcount,
    /// Whether events may come. Held by whoever takes the count to or from zero.
    open: Mutex<bool>,
}

/// One event counted, unless it comes to nothing.
pub(crate) struct Counted<'a> {
    active: &'a ActivePmus,
    events: &'a Events,
    place: usize,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self { count: Refcount::new(0), open: Mutex::new(false) }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.count.read()
    }

    /// Lets events come.
    pub(crate) fn open(&self) {
        *lock(&self.open) = true;
    }

    /// Calls `f` while the PMU stays registered: events that come or go meanwhile wait for it.
    pub(crate) fn while_open(&self, f: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        if rcu::held() {
            return Err(Error::InsideHook);
        }
        let open = lock(&self.open);
        if *open { f() } else { Err(Error::Unregistered) }
    }

    /// Lets no more events come. `Err`: there are some, or none may come already.
    pub(crate) fn close(&self) -> Result<(), Error> {
        let mut open = lock(&self.open);
        match self.count() {
            _ if !*open => Err(Error::Unregistered),
            0 => {
                *open = false;
                Ok(())
            }
            events => Err(Error::InUse { events }),
        }
    }
}

impl ActivePmus {
    pub(crate) fn new() -> Self {
        Self { mask: AtomicU32::new(0) }
    }

    /// The PMUs that have an event.
    #[inline(always)]
    pub(crate) fn mask(&self) -> u32 {
        // Relaxed: the first global event of a PMU with data passes a barrier that all threads take part in before its attach
        // returns; any other event counts from the next switch that sees it.
        self.mask.load(Ordering::Relaxed)
    }

    /// Counts an event of the PMU in that place among those for which switches call hooks.
    pub(crate) fn count<'a>(
        &'a self,
        place: usize,
        events: &'a Events,
    ) -> Result<Counted<'a>, Error> {
        if !events.count.inc_not_zero() {
            let open = lock(&events.open);
            if !*open {
                return Err(Error::Unregistered);
            }
            // Another may have been faster.
            if !events.count.inc_not_zero() {
                // Before the count, so that whoever finds that above zero also finds the bit. Relaxed: `set_one` is Release.
                self.mask.fetch_or(1 << place, Ordering::Relaxed);
                events.count.set_one();
            }
        }
        Ok(Counted { active: self, events, place })
    }

    pub(crate) fn uncount(&self, place: usize, events: &Events) {
        if events.count.dec_not_one() {
            return;
        }
        let _open = lock(&events.open);
        if events.count.dec_and_test() {
            // Relaxed: a switch that still sees the bit calls a hook that finds no data.
            self.mask.fetch_and(!(1 << place), Ordering::Relaxed);
        }
    }
}

impl Counted<'_> {
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.active.uncount(self.place, self.events);
    }
}

#[cfg(all(test, not(any(pertask_loom, pertask_shuttle))))]
mod tests;
