//! One PMU's data for one task (the kernel's `perf_ctx_data`).

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
    /// Whether the task's end has been folded into its spawn path's totals. Changes under the lock of those.
    folded: AtomicBool,
    /// The last walk over counts that has seen this object. Changes under the lock of the path's totals.
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

/// One reference to a [`CtxData`].
///
/// It is not dropped but given back through the slot it came from, [`Slot::put`](crate::slot::Slot::put); forgotten,
/// it leaks the object and nothing else.
#[must_use = "a reference is given back with Slot::put"]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CtxRef(NonNull<CtxData>);

// SAFETY: a CtxData is shared between threads; what is not atomic in it never changes.
unsafe impl Send for CtxRef {}
// SAFETY: as above.
unsafe impl Sync for CtxRef {}

impl CtxData {
    pub(crate) fn layout<D: Zeroable>() -> Layout {
        const {
            assert!(!std::mem::needs_drop::<D>(), "a payload is freed without being dropped");
        }
        Layout::new::<Object<D>>()
    }

    /// A new object with one reference, which is the global event's if `global`. Its payload is zero.
    pub(crate) fn alloc(cache: &CtxCache, global: bool) -> Result<CtxRef, Error> {
        let object = cache.alloc()?.cast::<Self>();
        let header = Self {
            rcu: rcu::Head::new(free_retired),
            refcount: Refcount::new(1),
            global: AtomicBool::new(global),
            folded: AtomicBool::new(false),
            seen_in_walk: AtomicU64::new(0),
            cache: NonNull::from(cache),
            #[cfg(any(pertask_loom, pertask_shuttle))]
            life: Life::new(),
        };
        // SAFETY: freshly allocated with a layout that begins with a CtxData; the zeroed payload behind it stays.
        unsafe { object.write(header) };
        Ok(CtxRef(object))
    }

    /// Frees an object that was never published.
    pub(crate) fn free_unused(unused: CtxRef) {
        // SAFETY: nobody but the caller has seen it.
        unsafe { free(unused.0) };
    }

    /// Frees the object when its last reader is gone.
    ///
    /// # Safety
    /// The caller has dropped the last reference, and the object is in no slot.
    pub(crate) unsafe fn retire(dead: NonNull<Self>) {
        // SAFETY: the head is the object's first field; the rest is the caller's.
        unsafe { rcu::retire(dead.cast()) };
    }

    /// The payload.
    ///
    /// # Safety
    /// The object came from a cache for payloads of type `D`.
    pub(crate) unsafe fn payload<D: Zeroable>(&self) -> &D {
        self.assert_not_freed();
        let object: *const Object<D> = std::ptr::from_ref(self).cast();
        // SAFETY: the memory is that of an `Object<D>` by the caller's word, and zeroed memory is a `D`.
        unsafe { &(*object).payload }
    }

    /// For totals, under their lock: marks the end of the task. False if it had been marked.
    pub(crate) fn fold_once(&self) -> bool {
        // Relaxed: the lock orders it.
        let first = !self.folded.load(Ordering::Relaxed);
        self.folded.store(true, Ordering::Relaxed);
        first
    }

    /// For totals, under their lock: marks the object as seen in `walk`. False if its task has been folded.
    pub(crate) fn see_in_walk(&self, walk: u64) -> bool {
        // Relaxed: the lock orders both.
        let live = !self.folded.load(Ordering::Relaxed);
        if live {
            self.seen_in_walk.store(walk, Ordering::Relaxed);
        }
        live
    }

    /// For totals, under their lock.
    pub(crate) fn seen_in_walk(&self) -> u64 {
        // Relaxed: the lock orders it.
        self.seen_in_walk.load(Ordering::Relaxed)
    }

    pub(crate) fn assert_not_freed(&self) {
        #[cfg(any(pertask_loom, pertask_shuttle))]
        self.life.assert_not_freed();
    }
}

impl CtxRef {
    /// The object, for as long as the reference is held.
    pub(crate) fn data(&self) -> &CtxData {
        // SAFETY: an object with a reference is not freed.
        let data = unsafe { self.0.as_ref() };
        data.assert_not_freed();
        data
    }

    pub(crate) fn as_ptr(&self) -> *mut CtxData {
        self.0.as_ptr()
    }

    /// The reference that the caller took by counting it.
    pub(crate) fn counted(data: &CtxData) -> Self {
        Self(NonNull::from(data))
    }

    /// Ends the reference without counting: its count has been, or will be, dropped.
    pub(crate) fn into_ptr(self) -> NonNull<CtxData> {
        self.0
    }
}

unsafe fn free_retired(head: NonNull<rcu::Head>) {
    // SAFETY: the head is the object's first field, and nobody can hold the object any more.
    unsafe { free(head.cast()) };
}

unsafe fn free(object: NonNull<CtxData>) {
    // SAFETY: models and schedules keep the memory of freed objects.
    #[cfg(any(pertask_loom, pertask_shuttle))]
    unsafe { object.as_ref() }.life.end();
    #[cfg(pertask_shuttle)]
    // SAFETY: as above. Whoever still looks at the payload is to see it.
    unsafe {
        let payload = object.as_ref().cache.as_ref().object_bytes() - size_of::<CtxData>();
        object.add(1).cast::<u8>().write_bytes(0xff, payload);
    }
    // SAFETY: the cache outlives its objects (it belongs to a registered PMU, and those stay), and this object came
    // from it. Its fields need no drop in a normal build; those of models and schedules are dropped where their memory ends.
    unsafe { object.as_ref().cache.as_ref().free(object.cast()) };
}
