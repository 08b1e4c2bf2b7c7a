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

/// One PMU's data for one task: who holds it, where it came from, and the PMU's payload behind it.
///
/// INVARIANT: `refcount` counts the [`CtxRef`]s to the object; one of them is the global event's exactly while
/// `global` is true. When the count reaches zero, whoever dropped the last reference retires the object, once.
#[repr(C)]
pub(crate) struct CtxData {
    rcu: rcu::Head,
    pub(crate) refcount: Refcount,
    /// Whether the global event holds a reference. Taken and given back by swapping, so that it is done once.
    pub(crate) global: AtomicBool,
    /// The last walk over counts that has seen this object, or [`FOLDED`].
    seen_in_walk: AtomicU64,
    cache: NonNull<CtxCache>,
    #[cfg(any(pertask_loom, pertask_shuttle))]
    life: Life,
}

/// A `CtxData` and its payload in one piece of memory.
#[repr(C)]
struct Object<D> {
    data: CtxData,
    payload: D,
}

/// `CtxData::seen_in_walk` once the task's end has been folded into the totals of those that have ended.
const FOLDED: u64 = u64::MAX;

/// One reference to a [`CtxData`].
///
/// It is not dropped but given back through the slot it came from, [`Slot::put`](crate::slot::Slot::put); forgotten,
/// it leaks the object and nothing else.
#[must_use = "a reference is given back with Slot::put"]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CtxRef(NonNull<CtxData>);

// SAFETY: a CtxData is shared between threads; what is not atomic in it never changes.
unsafe impl Send for CtxRef {}
// SAFETY: a `&CtxRef` gives no more than a `&CtxData`, which is shared between threads.
unsafe impl Sync for CtxRef {}

/// A [`CtxData`] that is not freed for the time of `'a`.
///
/// It is a pointer and no reference: it reaches the payload behind the header, and what frees the object frees all of it.
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

    /// A new object with one reference, which is the global event's if `global`. Its payload is zero.
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
        // SAFETY: freshly allocated with a layout that begins with a CtxData; the zeroed payload behind it stays.
        unsafe { object.write(header) };
        Ok(CtxRef(object))
    }

    /// Frees an object that nobody else can reach: it was never published, or its task has ended and nobody holds that.
    pub(crate) fn free_unshared(unshared: CtxRef, mine: Option<Mine<'_>>) {
        // SAFETY: nobody but the caller can reach it.
        unsafe { free(unshared.0, mine) };
    }

    /// Frees the object when its last reader is gone.
    ///
    /// # Safety
    /// The caller has dropped the last reference, and the object is in no slot.
    pub(crate) unsafe fn retire(dead: NonNull<Self>) {
        // SAFETY: the head is the object's first field; the rest is the caller's.
        unsafe { rcu::retire(dead.cast()) };
    }

    /// Whether the object came from that cache.
    pub(crate) fn is_from(&self, cache: &CtxCache) -> bool {
        std::ptr::eq(self.cache.as_ptr(), cache)
    }

    /// At a task's end: marks the object as folded. Which walk had seen it last; 0 for none. `None`: it has been folded.
    ///
    /// AcqRel: pairs with itself and with `see_in_walk`. Either the walk finds the mark, and the task among those that have
    /// ended; or this finds the walk.
    pub(crate) fn fold_once(&self) -> Option<u64> {
        let seen = self.seen_in_walk.swap(FOLDED, Ordering::AcqRel);
        (seen != FOLDED).then_some(seen)
    }

    /// [`fold_once`](Self::fold_once) where nobody else can reach the object.
    pub(crate) fn seen_unshared(&self) -> u64 {
        // Relaxed: whoever has marked it has unpinned the task since, which the end has found.
        self.seen_in_walk.load(Ordering::Relaxed)
    }

    /// Marks the object as seen in `walk`. False if its task has been folded: it is found among those that have ended.
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

    /// The reference that stands in a slot which nobody else can reach.
    pub(crate) fn from_slot(data: NonNull<CtxData>) -> Self {
        Self(data)
    }

    /// Ends the reference without counting: its count has been, or will be, dropped.
    pub(crate) fn into_ptr(self) -> NonNull<CtxData> {
        self.0
    }
}

impl<'a> CtxView<'a> {
    /// # Safety
    /// The object is not freed for the time of `'a`.
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
        // SAFETY: the memory is that of an `Object<D>` by the caller's word, and zeroed memory is a `D`.
        unsafe { &(*self.at.cast::<Object<D>>().as_ptr()).payload }
    }

    /// The object for another time.
    ///
    /// # Safety
    /// It is not freed for the time of `'b`.
    pub(crate) unsafe fn prolonged<'b>(self) -> CtxView<'b> {
        CtxView { at: self.at, stays: PhantomData }
    }

    /// The reference that the caller took by counting it.
    pub(crate) fn counted(self) -> CtxRef {
        CtxRef(self.at)
    }
}

impl Deref for CtxView<'_> {
    type Target = CtxData;

    #[inline(always)]
    fn deref(&self) -> &CtxData {
        // SAFETY: it is not freed for the time of `'a`.
        unsafe { self.at.as_ref() }
    }
}

unsafe fn free_retired(head: NonNull<rcu::Head>) {
    let object: NonNull<CtxData> = head.cast();
    // SAFETY: the head is the object's first field, and nobody can hold the object any more. The cache outlives its objects.
    unsafe { free(object, object.as_ref().cache.as_ref().here()) };
}

unsafe fn free(object: NonNull<CtxData>, mine: Option<Mine<'_>>) {
    // SAFETY: the caller alone can reach it. (Models and schedules keep the memory of freed objects.)
    #[cfg(any(pertask_loom, pertask_shuttle))]
    unsafe { object.as_ref() }.life.end();
    #[cfg(pertask_shuttle)]
    // SAFETY: the memory is kept. Whoever still looks at the payload is to see it.
    unsafe {
        let payload = object.as_ref().cache.as_ref().object_bytes() - size_of::<CtxData>();
        object.add(1).cast::<u8>().write_bytes(0xff, payload);
    }
    // SAFETY: the cache outlives its objects (it belongs to a registered PMU, and those stay), and this object came
    // from it. Its fields need no drop in a normal build; those of models and schedules are dropped where their memory ends.
    unsafe { object.as_ref().cache.as_ref().free(mine, object.cast()) };
}
