//! A task's slot for one PMU's data (the kernel's `task->perf_ctx_data`), and every transition of that word.
//!
//! ```text
//!            attach, attach_global                       exit
//!   empty ──────────────────────────▶ data ─────────────────────────▶ tombstone
//!     ▲                              │    │ ▲                             ▲
//!     └──────────── put (last) ──────┘    └─┘ attach replaces dead data   │
//!     └───────────────────────────────── exit ────────────────────────────┘
//! ```
//!
//! A *hole* is an empty slot that should have data: the fork found no memory while the PMU was attached to all tasks. The fork
//! writes the hole before it publishes the task, and the next attach fills it.
//!
//! The rules, which the models check:
//! - *Dead stays dead*: data whose count is zero may be replaced or removed, but only by an exchange against the pointer that
//!   was loaded in the same RCU section. Outside the section the address might belong to a new object.
//! - The thread that drops the last reference removes the data from the slot if it is still there, and retires it. A thread
//!   that replaces dead data frees nothing.
//! - *Exit wins*: nothing follows the tombstone. There is no "exiting" flag to check: a late attach simply fails its exchange.
//! - A thread that marks live data `global` loads the slot once more, in a section that began before the mark, because from the
//!   mark on the reference is no longer the marking thread's alone. If exit has stored its tombstone in the meantime, exit may
//!   have read `global` too early. Then both threads swap `global` to false, and the one that reads true drops the reference.

use crate::books::Mine;
use crate::ctx_cache::CtxCache;
use crate::ctx_data::{CtxData, CtxRef, CtxView};
use crate::error::Error;
use crate::primitive::{AtomicPtr, Ordering};
use crate::rcu;
use std::ptr::{self, NonNull};

/// A task's slot for one PMU's data.
///
/// INVARIANT: empty; or the hole; or data whose memory is kept until every section that loaded it has ended; or the tombstone,
/// for ever.
pub(crate) struct Slot(AtomicPtr<CtxData>);

/// The outcome of an attach to one task.
#[must_use]
#[derive(Debug)]
pub(crate) enum Attached {
    /// The slot was empty, or its data was dead. New data is in the slot.
    Installed(CtxRef),
    /// The slot was a hole. New data is in the slot.
    Filled(CtxRef),
    /// The slot had live data. The event shares it.
    Shared(CtxRef),
    /// The task has ended.
    Exited,
}

/// The outcome of the global event's attach to one task.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marked {
    /// New data is in the slot. Its one reference is the global event's.
    Installed,
    /// The slot was a hole. New data is in the slot, and its one reference is the global event's.
    Filled,
    /// The slot had live data. The global event has taken a reference to it.
    Taken,
    /// The global event already held a reference.
    Already,
    /// The task has ended.
    Exited,
}

/// The outcome of giving a reference back.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detached {
    /// Other owners still hold the data.
    StillUsed,
    /// It was the last reference. The data has been retired.
    WasLast,
}

/// What the slot held when the global event was detached from the task, or when the task ended.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Data, or nothing.
    Ordinary,
    /// A hole: the task has had no data until now.
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

/// Whether the pointer is null or a marker. Markers are lower than every data address, so one comparison is enough.
#[inline(always)]
fn is_no_data(pointer: *mut CtxData) -> bool {
    pointer.addr() <= 2 * align_of::<CtxData>()
}

impl Slot {
    pub(crate) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The data in the slot, dead or alive, valid for as long as the section lasts.
    #[inline(always)]
    pub(crate) fn data<'g>(&self, section: rcu::Token<'g>) -> Option<CtxView<'g>> {
        // Acquire: pairs with the Release in `exchange`.
        deref(self.0.load(Ordering::Acquire), section)
    }

    /// Whether the slot holds data, dead or alive.
    #[inline]
    pub(crate) fn has_data(&self) -> bool {
        // Relaxed: data that another thread is installing right now has no counts yet.
        !is_no_data(self.0.load(Ordering::Relaxed))
    }

    /// Whether the slot is still in its initial state.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: the caller is the only holder of the task.
        self.0.load(Ordering::Relaxed).is_null()
    }

    /// Whether the task has ended.
    pub(crate) fn is_tombstone(&self) -> bool {
        // Relaxed: the answer may be stale as soon as it is given.
        self.0.load(Ordering::Relaxed) == tombstone()
    }

    /// Installs data in a new slot, for fork. Its one reference is the global event's. Without memory, leaves a hole.
    ///
    /// The slot is not published yet, so no other thread can reach it.
    pub(crate) fn install_unshared(&self, cache: &CtxCache, mine: Mine<'_>) -> Result<(), Error> {
        let data = CtxData::alloc(cache, Some(mine), true);
        let pointer = data.as_ref().map_or_else(|_| hole(), CtxRef::as_ptr);
        // Relaxed: entering the task into the table publishes it.
        self.0.store(pointer, Ordering::Relaxed);
        // From here on the object's `global` flag stands for the reference.
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

    /// Makes sure that the global event holds exactly one reference to live data in this slot.
    pub(crate) fn attach_global(&self, cache: &CtxCache) -> Result<Marked, Error> {
        let (held, marked) = match self.take_or_install(cache, Owner::Global)? {
            Found::Installed(held) => (held, Marked::Installed),
            Found::Filled(held) => (held, Marked::Filled),
            Found::Live(held) => return Ok(self.mark(held)),
            Found::Tombstone => return Ok(Marked::Exited),
        };
        // From here on the object's `global` flag stands for the reference.
        let _ = held.into_ptr();
        Ok(marked)
    }

    /// Makes `held` the global event's reference, unless it already has one or the task has ended meanwhile.
    fn mark(&self, held: CtxRef) -> Marked {
        // Once the mark is set, exit may find it and give `held` back in our place, and the thread that drops the last
        // reference retires the data. This section begins while we hold a reference, so the data stays alive for the accesses
        // below.
        let _section = rcu::enter();
        // AcqRel: all read-modify-writes of `global` are in one order, and each sees what came before it.
        if held.data().global.swap(true, Ordering::AcqRel) {
            let _ = self.put(held);
            return Marked::Already;
        }
        // Acquire: pairs with the AcqRel in `exit`. This is the one check that remains.
        if self.0.load(Ordering::Acquire) == held.as_ptr() {
            let _ = held.into_ptr();
            return Marked::Taken;
        }
        // AcqRel: in one order with all other swaps of `global`. Marked data that has a reference is never replaced, so the
        // task has ended.
        if held.data().global.swap(false, Ordering::AcqRel) {
            let _ = self.put(held);
        } else {
            // Exit found the mark and dropped the reference that went with it, which was ours.
            let _ = held.into_ptr();
        }
        Marked::Exited
    }

    /// Gives back the global event's reference, if it holds one, and turns a hole into an empty slot.
    pub(crate) fn detach_global(&self) -> Left {
        let guard = rcu::enter();
        // Acquire: pairs with the Release in `exchange`.
        let now = self.0.load(Ordering::Acquire);
        if let Some(data) = deref(now, guard.token()) {
            self.unmark(data);
        }
        // Relaxed: the exchange publishes nothing, and nobody dereferences the pointer.
        let close = || {
            self.0.compare_exchange(hole(), ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed)
        };
        if now == hole() && close().is_ok() { Left::Hole } else { Left::Ordinary }
    }

    /// Gives `held` back. If it was the last reference, removes the data from the slot and retires it.
    pub(crate) fn put(&self, held: CtxRef) -> Detached {
        if !held.data().refcount.dec_and_test() {
            let _ = held.into_ptr();
            return Detached::StillUsed;
        }
        let dead = held.into_ptr();
        // AcqRel, Relaxed on failure: if the exchange fails, another thread replaced the dead data or the task ended, and
        // nothing is left to do here. The address cannot have been reused, because only we free the object.
        let _ = self.0.compare_exchange(
            dead.as_ptr(),
            ptr::null_mut(),
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        // SAFETY: we dropped the last reference, and the slot no longer holds the data.
        unsafe { CtxData::retire(dead) };
        Detached::WasLast
    }

    /// Ends the slot: later operations find the tombstone. Gives back the global event's reference.
    pub(crate) fn exit(&self) -> Left {
        let guard = rcu::enter();
        // AcqRel: Acquire pairs with the Release in `exchange`; Release pairs with the Acquire load in `mark`.
        let last = self.0.swap(tombstone(), Ordering::AcqRel);
        if let Some(data) = deref(last, guard.token()) {
            self.unmark(data);
        }
        if last == hole() { Left::Hole } else { Left::Ordinary }
    }

    /// [`exit`](Self::exit) for a task that no other thread can reach now or later.
    ///
    /// Data that only the global event holds is freed at once, without RCU. That is safe because every user of the data holds
    /// the task, its pin or a reference: hooks run while the task does, a walk pins the task, and an event has its reference.
    /// A family holds both the task and a reference for each member until the member ends, so a member's exit is a shared
    /// one.
    #[inline]
    pub(crate) fn exit_unshared(&self, mine: Mine<'_>) -> Left {
        // Relaxed: the thread that installed the data has since unpinned the task or dropped its handle.
        let last = self.0.load(Ordering::Relaxed);
        if is_no_data(last) {
            return if last == hole() { Left::Hole } else { Left::Ordinary };
        }
        let Some(held) = NonNull::new(last).map(CtxRef::from_slot) else { return Left::Ordinary };
        let data = held.data();
        // Relaxed: emptying the table's entry acquired every walk's changes to the mark.
        if data.refcount.is_one() && data.global.load(Ordering::Relaxed) {
            // Relaxed: nobody reads the slot any more.
            self.0.store(ptr::null_mut(), Ordering::Relaxed);
            CtxData::free_unshared(held, Some(mine));
            return Left::Ordinary;
        }
        let _ = held.into_ptr();
        self.exit()
    }

    fn unmark(&self, data: CtxView<'_>) {
        // AcqRel: in one order with all other swaps of `global`. The thread that swaps it from true owns the reference it stood
        // for.
        if data.global.swap(false, Ordering::AcqRel) {
            let _ = self.put(data.counted());
        }
    }

    /// The loop behind both attaches: takes a reference to live data, or installs new data in an empty slot or over dead data.
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

    /// Makes one attempt, in one section. `None` means that the caller must allocate new data.
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
            // The slot is empty, or its data is dead and stays dead. Replace the pointer that we loaded in this section.
            match self.exchange(now, new.as_ref()?, section) {
                Ok(()) if now == hole() => return new.take().map(Found::Filled),
                Ok(()) => return new.take().map(Found::Installed),
                Err(changed) => now = changed,
            }
        }
    }

    /// Exchanges `expected` for `new`. `expected` must have been loaded in that section: later it might be a new object's
    /// address.
    fn exchange(
        &self,
        expected: *mut CtxData,
        new: &CtxRef,
        section: rcu::Token<'_>,
    ) -> Result<(), *mut CtxData> {
        // In models, this checks that `expected` has not been freed.
        let _ = deref(expected, section);
        // AcqRel: Release publishes the new object to every load of the slot. Acquire on failure: the caller dereferences the
        // pointer that the exchange found.
        self.0
            .compare_exchange(expected, new.as_ptr(), Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
    }
}

/// Holds a reference while foreign code runs: gives the reference back on drop, unless it is kept.
pub(crate) struct Holding<'a> {
    slot: &'a Slot,
    held: Option<CtxRef>,
}

impl<'a> Holding<'a> {
    pub(crate) fn new(slot: &'a Slot, held: CtxRef) -> Self {
        Self { slot, held: Some(held) }
    }

    /// Calls `f` with the object, and keeps the reference if `f` returns.
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
    // SAFETY: the data was in the slot during the section, so it is not freed before the section ends.
    Some(unsafe { CtxView::new(NonNull::new_unchecked(data)) })
}
