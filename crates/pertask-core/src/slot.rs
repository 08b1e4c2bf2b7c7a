//! A task's place for one PMU's data (the kernel's `task->perf_ctx_data`), and every transition of that word.
//!
//! ```text
//!            attach, attach_global                       exit
//!   empty ──────────────────────────▶ data ─────────────────────────▶ tombstone
//!     ▲                              │    │ ▲                             ▲
//!     └──────────── put (last) ──────┘    └─┘ attach replaces dead data   │
//!     └───────────────────────────────── exit ────────────────────────────┘
//! ```
//!
//! The rules, which the models check:
//! - *Dead stays dead*: data whose count is zero may be replaced or taken out, only by an exchange against the
//!   pointer loaded in the same RCU section; outside it the address might be that of a new object.
//! - Whoever drops the last reference takes the data out of the slot if it is still there, and retires it. Who
//!   replaces dead data frees nothing.
//! - *Exit wins*: nothing follows the tombstone. There is no "exiting" flag to look at: the exchange of whoever comes
//!   late simply fails.
//! - Who marks live data `global` looks at the slot once more, in a section that began before the mark: from then on the
//!   reference is no longer the marker's alone. If exit has put its tombstone there in the meantime, exit may have looked at
//!   `global` too early; both swap `global` to false, and the one who finds true drops the reference.

use crate::ctx_cache::CtxCache;
use crate::ctx_data::{CtxData, CtxRef};
use crate::error::Error;
use crate::primitive::{AtomicPtr, Ordering};
use crate::rcu;
use std::ptr;

/// A task's place for one PMU's data.
///
/// INVARIANT: empty, or data whose memory is kept until every section that loaded it has ended, or the tombstone for
/// ever.
pub(crate) struct Slot(AtomicPtr<CtxData>);

/// What came of an attach to one task.
#[must_use]
#[derive(Debug)]
pub(crate) enum Attached {
    /// The slot was empty, or its data dead: new data is in it.
    Installed(CtxRef),
    /// There was live data; the event shares it.
    Shared(CtxRef),
    /// The task has ended.
    Exited,
}

/// What came of the global event's attach to one task.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marked {
    /// New data is in the slot; its one reference is the global event's.
    Installed,
    /// There was live data; the global event has taken a reference to it.
    Taken,
    /// The global event held one already.
    Already,
    /// The task has ended.
    Exited,
}

/// What came of giving a reference back.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detached {
    /// Others still hold the data.
    StillUsed,
    /// It was the last; the data is on its way to be freed.
    WasLast,
}

/// The pointer that stands for "this task has ended".
fn tombstone() -> *mut CtxData {
    ptr::without_provenance_mut(align_of::<CtxData>())
}

impl Slot {
    pub(crate) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The data in the slot, dead or alive, for as long as the section lasts.
    #[inline(always)]
    pub(crate) fn data<'g>(&self, guard: &'g rcu::Guard) -> Option<&'g CtxData> {
        // Acquire: pairs with the Release in `exchange`.
        deref(self.0.load(Ordering::Acquire), guard)
    }

    /// Whether there is no data.
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: data that another thread is installing at this moment has no counts yet.
        self.0.load(Ordering::Relaxed).is_null()
    }

    /// Whether the task has ended.
    pub(crate) fn is_tombstone(&self) -> bool {
        // Relaxed: the answer may be old as soon as it is given.
        self.0.load(Ordering::Relaxed) == tombstone()
    }

    /// Takes a reference to live data, or installs new data.
    pub(crate) fn attach(&self, cache: &CtxCache) -> Result<Attached, Error> {
        let (found, held) = self.take_or_install(cache, Owner::Event)?;
        Ok(match (found, held) {
            (Found::Installed, Some(held)) => Attached::Installed(held),
            (Found::Live, Some(held)) => Attached::Shared(held),
            (_, None) | (Found::Tombstone, _) => Attached::Exited,
        })
    }

    /// Sees to it that the global event holds exactly one reference to live data in this slot.
    pub(crate) fn attach_global(&self, cache: &CtxCache) -> Result<Marked, Error> {
        let (found, held) = self.take_or_install(cache, Owner::Global)?;
        let Some(held) = held else { return Ok(Marked::Exited) };
        if matches!(found, Found::Installed) {
            // The reference lives on as the object's `global`.
            let _ = held.into_ptr();
            return Ok(Marked::Installed);
        }
        Ok(self.mark(held))
    }

    /// Makes `held` the global event's reference, unless it has one or the task has ended meanwhile.
    fn mark(&self, held: CtxRef) -> Marked {
        // From the mark on, exit may find it and give `held` back for us, and whoever is last retires the data. This section
        // has begun while we held it, so the data stays for the looks that follow.
        let _section = rcu::enter();
        // AcqRel: read-modify-writes of `global` are in one order for all, and each sees what came before.
        if held.data().global.swap(true, Ordering::AcqRel) {
            let _ = self.put(held);
            return Marked::Already;
        }
        // The one look that remains. Acquire: pairs with the AcqRel in `exit`.
        if self.0.load(Ordering::Acquire) == held.as_ptr() {
            let _ = held.into_ptr();
            return Marked::Taken;
        }
        // Marked data with a reference is not replaced: the task has ended. AcqRel: as above.
        if held.data().global.swap(false, Ordering::AcqRel) {
            let _ = self.put(held);
        } else {
            // Exit has found the mark and dropped the reference that went with it: ours.
            let _ = held.into_ptr();
        }
        Marked::Exited
    }

    /// Gives back the global event's reference, if it holds one.
    pub(crate) fn detach_global(&self) {
        let guard = rcu::enter();
        if let Some(data) = self.data(&guard) {
            self.unmark(data);
        }
    }

    /// Gives `held` back. The last one takes the data out of the slot and retires it.
    pub(crate) fn put(&self, held: CtxRef) -> Detached {
        if !held.data().refcount.dec_and_test() {
            let _ = held.into_ptr();
            return Detached::StillUsed;
        }
        let dead = held.into_ptr();
        // The address cannot have been used again: nobody but us frees it. AcqRel, Relaxed: if the exchange fails,
        // somebody has replaced the dead data or the task has ended, and there is nothing left to do here.
        let _ = self.0.compare_exchange(
            dead.as_ptr(),
            ptr::null_mut(),
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        // SAFETY: we dropped the last reference, and the slot does not hold the data any more.
        unsafe { CtxData::retire(dead) };
        Detached::WasLast
    }

    /// Ends the slot: whatever comes later finds the tombstone. Gives back the global event's reference.
    pub(crate) fn exit(&self) {
        let guard = rcu::enter();
        // AcqRel: Acquire pairs with the Release in `exchange`; Release pairs with the look in `mark`.
        let last = self.0.swap(tombstone(), Ordering::AcqRel);
        if let Some(data) = deref(last, &guard) {
            self.unmark(data);
        }
    }

    fn unmark(&self, data: &CtxData) {
        // AcqRel: as in `mark`. Whoever swaps it from true owns the reference that it stood for.
        if data.global.swap(false, Ordering::AcqRel) {
            let _ = self.put(CtxRef::counted(data));
        }
    }

    /// The one loop behind both attaches: a reference to live data, or new data in place of none or of dead data.
    fn take_or_install(
        &self,
        cache: &CtxCache,
        owner: Owner,
    ) -> Result<(Found, Option<CtxRef>), Error> {
        let mut new = None;
        let outcome = loop {
            match self.try_take_or_install(&mut new) {
                Try::Done(outcome) => break outcome,
                // Outside the section: an allocation may take long.
                Try::NeedsNew => new = Some(CtxData::alloc(cache, owner == Owner::Global)?),
            }
        };
        if let Some(unused) = new {
            CtxData::free_unused(unused);
        }
        Ok(outcome)
    }

    fn try_take_or_install(&self, new: &mut Option<CtxRef>) -> Try {
        let guard = rcu::enter();
        // Acquire: pairs with the Release in `exchange`.
        let mut now = self.0.load(Ordering::Acquire);
        loop {
            if now == tombstone() {
                return Try::Done((Found::Tombstone, None));
            }
            if let Some(data) = deref(now, &guard)
                && data.refcount.inc_not_zero()
            {
                return Try::Done((Found::Live, Some(CtxRef::counted(data))));
            }
            // Empty, or dead, and dead it stays: replace what we loaded in this section.
            let Some(ours) = new.as_ref() else { return Try::NeedsNew };
            match self.exchange(now, ours, &guard) {
                Ok(()) => return Try::Done((Found::Installed, new.take())),
                Err(changed) => now = changed,
            }
        }
    }

    /// `expected` was loaded in that section: else it might be the address of a new object.
    fn exchange(
        &self,
        expected: *mut CtxData,
        new: &CtxRef,
        guard: &rcu::Guard,
    ) -> Result<(), *mut CtxData> {
        // In the models, this looks whether it has been freed.
        let _ = deref(expected, guard);
        // AcqRel: Release publishes the new object to every load of the slot. Acquire on failure: what is found there
        // is looked at.
        self.0
            .compare_exchange(expected, new.as_ptr(), Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Event,
    Global,
}

enum Found {
    Installed,
    Live,
    Tombstone,
}

enum Try {
    Done((Found, Option<CtxRef>)),
    NeedsNew,
}

#[inline(always)]
fn deref(data: *mut CtxData, _guard: &rcu::Guard) -> Option<&CtxData> {
    #[cfg(pertask_loom)]
    rcu::stand_in::assert_held();
    if data == tombstone() {
        return None;
    }
    // SAFETY: null, or data that was in the slot while the section ran; it is not freed before the section ends.
    let data = unsafe { data.as_ref() }?;
    data.assert_not_freed();
    Some(data)
}
