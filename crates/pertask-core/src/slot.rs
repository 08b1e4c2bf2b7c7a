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
//! A *hole* is an empty slot that should have data: a fork found no memory while the PMU was attached to all tasks. It is
//! written before the task is published, and filled by whoever attaches next.
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

use crate::books::Mine;
use crate::ctx_cache::CtxCache;
use crate::ctx_data::{CtxData, CtxRef, CtxView};
use crate::error::Error;
use crate::primitive::{AtomicPtr, Ordering};
use crate::rcu;
use std::ptr::{self, NonNull};

/// A task's place for one PMU's data.
///
/// INVARIANT: empty, or the hole; or data whose memory is kept until every section that loaded it has ended; or the tombstone,
/// for ever.
pub(crate) struct Slot(AtomicPtr<CtxData>);

/// What came of an attach to one task.
#[must_use]
#[derive(Debug)]
pub(crate) enum Attached {
    /// The slot was empty, or its data dead: new data is in it.
    Installed(CtxRef),
    /// The slot was a hole: new data is in it.
    Filled(CtxRef),
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
    /// The slot was a hole: as `Installed`.
    Filled,
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

/// What came of the global event's detach from one task, or of a task's end.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Data, or nothing.
    Ordinary,
    /// A hole: the task has been without data until now.
    Hole,
}

/// The pointer that stands for "this task has ended".
fn tombstone() -> *mut CtxData {
    ptr::without_provenance_mut(align_of::<CtxData>())
}

/// The pointer that stands for "this task should have data".
fn hole() -> *mut CtxData {
    ptr::without_provenance_mut(2 * align_of::<CtxData>())
}

/// Whether it is one of those that stand for something, or null. They are below all data, so that it takes one comparison.
#[inline(always)]
fn is_no_data(pointer: *mut CtxData) -> bool {
    pointer.addr() <= 2 * align_of::<CtxData>()
}

impl Slot {
    pub(crate) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The data in the slot, dead or alive, for as long as the section lasts.
    #[inline(always)]
    pub(crate) fn data<'g>(&self, section: rcu::Token<'g>) -> Option<CtxView<'g>> {
        // Acquire: pairs with the Release in `exchange`.
        deref(self.0.load(Ordering::Acquire), section)
    }

    /// Whether there is data, dead or alive.
    #[inline]
    pub(crate) fn has_data(&self) -> bool {
        // Relaxed: data that another thread is installing at this moment has no counts yet.
        !is_no_data(self.0.load(Ordering::Relaxed))
    }

    /// Whether nothing has happened to it.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: asked by whoever holds the task alone.
        self.0.load(Ordering::Relaxed).is_null()
    }

    /// Whether the task has ended.
    pub(crate) fn is_tombstone(&self) -> bool {
        // Relaxed: the answer may be old as soon as it is given.
        self.0.load(Ordering::Relaxed) == tombstone()
    }

    /// For fork: data in a new slot, whose one reference is the global event's; or a hole, where there is no memory.
    ///
    /// The slot is not published yet: nobody else can reach it.
    pub(crate) fn install_unshared(&self, cache: &CtxCache, mine: Mine<'_>) -> Result<(), Error> {
        let data = CtxData::alloc(cache, Some(mine), true);
        let pointer = data.as_ref().map_or_else(|_| hole(), CtxRef::as_ptr);
        // Relaxed: the task's entering into the table publishes it.
        self.0.store(pointer, Ordering::Relaxed);
        // The reference lives on as the object's `global`.
        data.map(|held| {
            let _ = held.into_ptr();
        })
    }

    /// Takes a reference to live data, or installs new data.
    pub(crate) fn attach(&self, cache: &CtxCache) -> Result<Attached, Error> {
        Ok(match self.take_or_install(cache, Owner::Event)? {
            Found::Installed(held) => Attached::Installed(held),
            Found::Filled(held) => Attached::Filled(held),
            Found::Live(held) => Attached::Shared(held),
            Found::Tombstone => Attached::Exited,
        })
    }

    /// Sees to it that the global event holds exactly one reference to live data in this slot.
    pub(crate) fn attach_global(&self, cache: &CtxCache) -> Result<Marked, Error> {
        let (held, marked) = match self.take_or_install(cache, Owner::Global)? {
            Found::Installed(held) => (held, Marked::Installed),
            Found::Filled(held) => (held, Marked::Filled),
            Found::Live(held) => return Ok(self.mark(held)),
            Found::Tombstone => return Ok(Marked::Exited),
        };
        // The reference lives on as the object's `global`.
        let _ = held.into_ptr();
        Ok(marked)
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
        // Marked data with a reference is not replaced: the task has ended. AcqRel: in one order with all other swaps of the mark.
        if held.data().global.swap(false, Ordering::AcqRel) {
            let _ = self.put(held);
        } else {
            // Exit has found the mark and dropped the reference that went with it: ours.
            let _ = held.into_ptr();
        }
        Marked::Exited
    }

    /// Gives back the global event's reference, if it holds one. A hole is one no more.
    pub(crate) fn detach_global(&self) -> Left {
        let guard = rcu::enter();
        // Acquire: pairs with the Release in `exchange`.
        let now = self.0.load(Ordering::Acquire);
        if let Some(data) = deref(now, guard.token()) {
            self.unmark(data);
        }
        // Relaxed: nothing is published, and nothing looked at.
        let close = || {
            self.0.compare_exchange(hole(), ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed)
        };
        if now == hole() && close().is_ok() { Left::Hole } else { Left::Ordinary }
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
    pub(crate) fn exit(&self) -> Left {
        let guard = rcu::enter();
        // AcqRel: Acquire pairs with the Release in `exchange`; Release pairs with the look in `mark`.
        let last = self.0.swap(tombstone(), Ordering::AcqRel);
        if let Some(data) = deref(last, guard.token()) {
            self.unmark(data);
        }
        if last == hole() { Left::Hole } else { Left::Ordinary }
    }

    /// [`exit`](Self::exit) of a task that nobody else can reach, nor will: data that is the global event's alone is freed here
    /// and now, without RCU. Whoever looks at data holds the task, its pin or a reference: hooks run while the task does, a walk
    /// pins it, an event has its reference, and a family holds both for each member, until that ends while it is shared.
    #[inline]
    pub(crate) fn exit_unshared(&self, mine: Mine<'_>) -> Left {
        // Relaxed: whoever installed it has unpinned the task, or dropped its handle, since.
        let last = self.0.load(Ordering::Relaxed);
        if is_no_data(last) {
            return if last == hole() { Left::Hole } else { Left::Ordinary };
        }
        let Some(held) = NonNull::new(last).map(CtxRef::from_slot) else { return Left::Ordinary };
        let data = held.data();
        // Relaxed: the table's entry is empty, and what walks did to the mark has been acquired with it.
        if data.refcount.is_one() && data.global.load(Ordering::Relaxed) {
            // Relaxed: nobody reads it.
            self.0.store(ptr::null_mut(), Ordering::Relaxed);
            CtxData::free_unshared(held, Some(mine));
            return Left::Ordinary;
        }
        let _ = held.into_ptr();
        self.exit()
    }

    fn unmark(&self, data: CtxView<'_>) {
        // AcqRel: as in `mark`. Whoever swaps it from true owns the reference that it stood for.
        if data.global.swap(false, Ordering::AcqRel) {
            let _ = self.put(data.counted());
        }
    }

    /// The one loop behind both attaches: a reference to live data, or new data in place of none or of dead data.
    fn take_or_install(&self, cache: &CtxCache, owner: Owner) -> Result<Found, Error> {
        let mut new = None;
        let found = loop {
            if let Some(found) = self.try_take_or_install(&mut new) {
                break found;
            }
            // Outside the section: an allocation may take long.
            new = Some(CtxData::alloc(cache, cache.here(), owner == Owner::Global)?);
        };
        if let Some(unused) = new {
            CtxData::free_unshared(unused, cache.here());
        }
        Ok(found)
    }

    /// `None`: new data is needed.
    fn try_take_or_install(&self, new: &mut Option<CtxRef>) -> Option<Found> {
        let guard = rcu::enter();
        let section = guard.token();
        // Acquire: pairs with the Release in `exchange`.
        let mut now = self.0.load(Ordering::Acquire);
        loop {
            if now == tombstone() {
                return Some(Found::Tombstone);
            }
            if let Some(data) = deref(now, section)
                && data.refcount.inc_not_zero()
            {
                return Some(Found::Live(data.counted()));
            }
            // Empty, or dead, and dead it stays: replace what we loaded in this section.
            match self.exchange(now, new.as_ref()?, section) {
                Ok(()) if now == hole() => return new.take().map(Found::Filled),
                Ok(()) => return new.take().map(Found::Installed),
                Err(changed) => now = changed,
            }
        }
    }

    /// `expected` was loaded in that section: else it might be the address of a new object.
    fn exchange(
        &self,
        expected: *mut CtxData,
        new: &CtxRef,
        section: rcu::Token<'_>,
    ) -> Result<(), *mut CtxData> {
        // In the models, this looks whether it has been freed.
        let _ = deref(expected, section);
        // AcqRel: Release publishes the new object to every load of the slot. Acquire on failure: what is found there
        // is looked at.
        self.0
            .compare_exchange(expected, new.as_ptr(), Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
    }
}

/// A reference that is given back when this is dropped, unless it is kept: for the time in which code runs that is not ours.
pub(crate) struct Holding<'a> {
    slot: &'a Slot,
    held: Option<CtxRef>,
}

impl<'a> Holding<'a> {
    pub(crate) fn new(slot: &'a Slot, held: CtxRef) -> Self {
        Self { slot, held: Some(held) }
    }

    /// Calls `f` with the object, and keeps the reference if it returns.
    pub(crate) fn keep_after<R>(mut self, f: impl FnOnce(CtxView<'_>) -> R) -> (CtxRef, R) {
        let held = self.held.as_ref().unwrap_or_else(|| unreachable!("it is taken below"));
        let result = f(held.data());
        let held = self.held.take().unwrap_or_else(|| unreachable!("it is taken once"));
        (held, result)
    }
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            let _ = self.slot.put(held);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Event,
    Global,
}

enum Found {
    Installed(CtxRef),
    Filled(CtxRef),
    Live(CtxRef),
    Tombstone,
}

#[inline(always)]
fn deref(data: *mut CtxData, _section: rcu::Token<'_>) -> Option<CtxView<'_>> {
    #[cfg(pertask_loom)]
    rcu::stand_in::assert_held();
    if is_no_data(data) {
        return None;
    }
    // SAFETY: data that was in the slot while the section ran; it is not freed before the section ends.
    Some(unsafe { CtxView::new(NonNull::new_unchecked(data)) })
}
