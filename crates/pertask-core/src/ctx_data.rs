//! One PMU's data for one task (the kernel's `perf_ctx_data`).

use crate::books::Mine;
use crate::ctx_cache::CtxCache;
use crate::error::Error;
use crate::primitive::{AtomicBool, AtomicU64, Ordering};
#[cfg(pertask_shuttle)]
use crate::quarantine::Life;
use crate::rcu;
#[cfg(pertask_loom)]
use crate::rcu::stand_in::Life;
use crate::refcount::Refcount;
use bytemuck::Zeroable;
use std::alloc::Layout;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

/// One PMU's data for one task: a header with its owners and its cache, and the PMU's payload behind it.
///
/// INVARIANT: `refcount` counts the [`CtxRef`]s to the object; one of them belongs to the global event exactly while `global`
/// is true. When the count reaches zero, the thread that dropped the last reference retires the object, once.
#[repr(C)]
pub(crate) struct CtxData {
    rcu: rcu::Head,
    pub(crate) refcount: Refcount,
    /// Whether the global event holds a reference. Set and cleared by swaps, so that the reference is taken and dropped once.
    pub(crate) global: AtomicBool,
    /// The last walk over counts that saw this object, or [`FOLDED`].
    seen_in_walk: AtomicU64,
    cache: NonNull<CtxCache>,
    #[cfg(any(pertask_loom, pertask_shuttle))]
    life: Life,
}

/// A `CtxData` and its payload in one allocation.
#[repr(C)]
struct Object<D> {
    data: CtxData,
    payload: D,
}

/// The value of `CtxData::seen_in_walk` once the exiting task's counts have been folded into the totals.
const FOLDED: u64 = u64::MAX;

/// One reference to a [`CtxData`].
///
/// Give it back through the slot it came from, with [`Slot::put`](crate::slot::Slot::put). Dropping it leaks the object and
/// does no other harm.
#[must_use = "a reference is given back with Slot::put"]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CtxRef(NonNull<CtxData>);

// SAFETY: threads may share a CtxData; every field that is not atomic never changes.
unsafe impl Send for CtxRef {}
// SAFETY: a `&CtxRef` gives no more access than a `&CtxData`, which threads may share.
unsafe impl Sync for CtxRef {}

/// A [`CtxData`] that is not freed during `'a`.
///
/// It is a pointer and not a reference, so that it can reach the payload behind the header, and free the whole object.
#[derive(Clone, Copy)]
pub(crate) struct CtxView<'a> {
    at: NonNull<CtxData>,
    stays: PhantomData<&'a CtxData>,
}

impl CtxData {
    pub(crate) fn layout<D: Zeroable>() -> Layout {
        const {
            assert!(!std::mem::needs_drop::<D>(), "a payload is freed without being dropped");
        }
        Layout::new::<Object<D>>()
    }

    /// Allocates an object with a zeroed payload and one reference. If `global`, the reference is the global event's.
    pub(crate) fn alloc(
        cache: &CtxCache,
        mine: Option<Mine<'_>>,
        global: bool,
    ) -> Result<CtxRef, Error> {
        let object = cache.alloc(mine)?.cast::<Self>();
        let header = Self {
            rcu: rcu::Head::new(free_retired),
            refcount: Refcount::new(1),
            global: AtomicBool::new(global),
            seen_in_walk: AtomicU64::new(0),
            cache: NonNull::from(cache),
            #[cfg(any(pertask_loom, pertask_shuttle))]
            life: Life::new(),
        };
        // SAFETY: the memory was just allocated with a layout that begins with a CtxData. The zeroed payload behind it stays as
        // it is.
        unsafe { object.write(header) };
        Ok(CtxRef(object))
    }

    /// Frees an object that no other thread can reach: it was never published, or its task has ended and nobody holds the task.
    pub(crate) fn free_unshared(unshared: CtxRef, mine: Option<Mine<'_>>) {
        // SAFETY: only the caller can reach the object.
        unsafe { free(unshared.0, mine) };
    }

    /// Frees the object once no reader can hold it.
    ///
    /// # Safety
    /// The caller has dropped the last reference, and the object is in no slot.
    pub(crate) unsafe fn retire(dead: NonNull<Self>) {
        // SAFETY: the head is the object's first field. No reader can reach the object through a slot, and the one thread that
        // dropped the last reference retires it, by the caller's contract.
        unsafe { rcu::retire(dead.cast()) };
    }

    /// Whether the object came from `cache`.
    pub(crate) fn is_from(&self, cache: &CtxCache) -> bool {
        std::ptr::eq(self.cache.as_ptr(), cache)
    }

    /// Marks the object as folded, at the task's exit. Returns the last walk that saw the object, or 0 for none; `None` if the
    /// object was folded before.
    ///
    /// AcqRel: pairs with itself and with `see_in_walk`. If the fold comes first, the walk finds the mark and counts the task
    /// among the ended ones; if the walk comes first, the fold finds the walk's number.
    pub(crate) fn fold_once(&self) -> Option<u64> {
        let seen = self.seen_in_walk.swap(FOLDED, Ordering::AcqRel);
        (seen != FOLDED).then_some(seen)
    }

    /// The last walk that saw the object, or 0 for none. Only for an object that no other thread can reach.
    pub(crate) fn seen_unshared(&self) -> u64 {
        // Relaxed: a walk that marked the object has since unpinned the task, and the exit has seen the unpinning.
        self.seen_in_walk.load(Ordering::Relaxed)
    }

    /// Marks the object as seen in `walk`. Returns false if the object was folded: its counts are among those of the ended
    /// tasks.
    pub(crate) fn see_in_walk(&self, walk: u64) -> bool {
        let mark = |seen| (seen != FOLDED).then_some(walk);
        // AcqRel, and Acquire on failure: pairs with `fold_once`.
        self.seen_in_walk.fetch_update(Ordering::AcqRel, Ordering::Acquire, mark).is_ok()
    }

    pub(crate) fn assert_not_freed(&self) {
        #[cfg(any(pertask_loom, pertask_shuttle))]
        self.life.assert_not_freed();
    }
}

impl CtxRef {
    /// The object, for as long as the reference is held.
    pub(crate) fn data(&self) -> CtxView<'_> {
        let view = CtxView { at: self.0, stays: PhantomData };
        view.assert_not_freed();
        view
    }

    pub(crate) fn as_ptr(&self) -> *mut CtxData {
        self.0.as_ptr()
    }

    /// The reference in a slot that no other thread can reach.
    pub(crate) fn from_slot(data: NonNull<CtxData>) -> Self {
        Self(data)
    }

    /// Turns the reference into a pointer without dropping its count: the caller has dropped the count, or passes it on.
    pub(crate) fn into_ptr(self) -> NonNull<CtxData> {
        self.0
    }
}

impl<'a> CtxView<'a> {
    /// # Safety
    /// The object is not freed during `'a`.
    pub(crate) unsafe fn new(at: NonNull<CtxData>) -> Self {
        let view = Self { at, stays: PhantomData };
        view.assert_not_freed();
        view
    }

    /// The payload.
    ///
    /// # Safety
    /// The object came from a cache for payloads of type `D`.
    pub(crate) unsafe fn payload<D: Zeroable>(self) -> &'a D {
        self.assert_not_freed();
        // SAFETY: the caller promises that the memory is an `Object<D>`, and zeroed memory is a valid `D`.
        unsafe { &(*self.at.cast::<Object<D>>().as_ptr()).payload }
    }

    /// The view with another lifetime.
    ///
    /// # Safety
    /// The object is not freed during `'b`.
    pub(crate) unsafe fn prolonged<'b>(self) -> CtxView<'b> {
        CtxView { at: self.at, stays: PhantomData }
    }

    /// The reference whose count the caller has taken.
    pub(crate) fn counted(self) -> CtxRef {
        CtxRef(self.at)
    }
}

impl Deref for CtxView<'_> {
    type Target = CtxData;

    #[inline(always)]
    fn deref(&self) -> &CtxData {
        // SAFETY: by `new`'s contract, the object is not freed during `'a`.
        unsafe { self.at.as_ref() }
    }
}

unsafe fn free_retired(head: NonNull<rcu::Head>) {
    let object: NonNull<CtxData> = head.cast();
    // SAFETY: the head is the object's first field, and nobody can hold the object any more. The cache outlives its objects.
    unsafe { free(object, object.as_ref().cache.as_ref().here()) };
}

unsafe fn free(object: NonNull<CtxData>, mine: Option<Mine<'_>>) {
    // SAFETY: only the caller can reach the object. (Models and schedules keep the memory of freed objects.)
    #[cfg(any(pertask_loom, pertask_shuttle))]
    unsafe { object.as_ref() }.life.end();
    #[cfg(pertask_shuttle)]
    // SAFETY: the memory is kept. A late reader of the payload must notice that it was freed.
    unsafe {
        let payload = object.as_ref().cache.as_ref().object_bytes() - size_of::<CtxData>();
        object.add(1).cast::<u8>().write_bytes(0xff, payload);
    }
    // SAFETY: this object came from this cache, and the cache outlives it, because the cache belongs to a registered PMU, which
    // is never freed. In a normal build no field needs a drop; in models and schedules they are dropped when the memory is
    // released.
    unsafe { object.as_ref().cache.as_ref().free(mine, object.cast()) };
}
