//! Which PMUs have events: the one word that a switch loads while nothing is attached.

use crate::error::Error;
use crate::primitive::{AtomicU32, Mutex, Ordering, lock};
use crate::rcu;
use crate::refcount::Refcount;

/// How many PMUs a [`System`](crate::System) has room for. Each task has a one-word slot for each.
///
/// The default is 8; the feature `pmus-12` makes it 12, and `pmus-24` makes it 24.
pub const MAX_PMUS: usize = if cfg!(pertask_loom) {
    // One, so that exit is a single step.
    1
} else if cfg!(pertask_shuttle) {
    2
} else if cfg!(feature = "pmus-24") {
    24
} else if cfg!(feature = "pmus-12") {
    12
} else {
    8
};

/// One bit for each PMU that has an event.
pub(crate) struct ActivePmus {
    /// INVARIANT: a PMU's bit is set while the PMU has an event. It changes only under the lock of the PMU's [`Events`].
    mask: AtomicU32,
}

/// How many events one PMU has.
///
/// The count belongs to the PMU and not to its place, so a nonzero count always means a registered PMU.
///
/// INVARIANT: while `count` is not zero, `open` is true.
pub(crate) struct Events {
    count: Refcount,
    /// Whether the PMU accepts events. Locked by a thread that takes the count to or from zero.
    open: Mutex<bool>,
}

/// A counted event. Dropping it takes the count back, unless it is kept.
pub(crate) struct Counted<'a> {
    active: &'a ActivePmus,
    events: &'a Events,
    place: usize,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self { count: Refcount::new(0), open: Mutex::new(false) }
    }

    /// How many events the PMU has.
    pub(crate) fn count(&self) -> u32 {
        self.count.read()
    }

    /// Accepts events from now on.
    pub(crate) fn open(&self) {
        *lock(&self.open) = true;
    }

    /// Calls `f` while the PMU stays registered. The PMU's first attach and last detach wait for `f`, which waits for no section.
    pub(crate) fn while_open(&self, f: impl FnOnce()) -> Result<(), Error> {
        if rcu::held() {
            return Err(Error::InsideHook);
        }
        let open = lock(&self.open);
        if *open {
            f();
            Ok(())
        } else {
            Err(Error::Unregistered)
        }
    }

    /// Refuses events from now on. Fails if the PMU has events, or refuses them already.
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
        // Relaxed: the first global event of a PMU with data passes a barrier that all threads take part in, before its attach
        // returns. Any other event counts from the first switch that sees its bit.
        self.mask.load(Ordering::Relaxed)
    }

    /// Counts an event of the PMU in that place, so that switches call the PMU's hooks.
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
            // Another thread may have been faster.
            if !events.count.inc_not_zero() {
                // Relaxed: `set_one` is Release. The bit is set before the count, so that a thread that sees the nonzero count
                // also sees the bit.
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
            // Relaxed: a switch that still sees the bit calls a hook, which finds no data.
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
