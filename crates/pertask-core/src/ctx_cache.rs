//! Where per-task data comes from: one cache of equal objects for each PMU (the kernel's `kmem_cache`).

use crate::ctx_data::CtxData;
use crate::error::Error;
use crate::primitive::Ordering;
use crate::primitive::plain::AtomicUsize;
use std::alloc::Layout;
use std::ptr::NonNull;

/// Allocates one PMU's `CtxData`, payload included: always the same size, always zeroed, counted, and within
/// a limit if there is one.
///
/// Objects go back to the cache that they came from; each carries a pointer to it.
#[derive(Debug)]
pub struct CtxCache {
    pmu: &'static str,
    layout: Layout,
    live: AtomicUsize,
    limit_bytes: AtomicUsize,
}

impl CtxCache {
    /// A cache of objects for payloads of type `D`.
    pub(crate) fn new<D: bytemuck::Zeroable>(pmu: &'static str) -> Self {
        Self {
            pmu,
            layout: CtxData::layout::<D>(),
            live: AtomicUsize::new(0),
            limit_bytes: AtomicUsize::new(usize::MAX),
        }
    }

    /// Objects allocated and not yet freed. Those that wait for the last reader are among them.
    #[must_use]
    pub fn live(&self) -> usize {
        // Relaxed: a figure.
        self.live.load(Ordering::Relaxed)
    }

    /// The memory of the live objects.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.live() * self.object_bytes()
    }

    /// The memory of one object.
    #[must_use]
    pub fn object_bytes(&self) -> usize {
        self.layout.size()
    }

    /// Limits the cache to `bytes`; what is beyond it now stays. `None` lifts the limit.
    pub fn set_limit_bytes(&self, bytes: Option<usize>) {
        self.limit_bytes.store(bytes.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// A zeroed object.
    ///
    /// # Errors
    /// [`Error::CacheLimit`] and [`Error::OutOfMemory`].
    pub(crate) fn alloc(&self) -> Result<NonNull<u8>, Error> {
        // Relaxed: the sum of the counter's own changes is what is limited.
        let live = self.live.fetch_add(1, Ordering::Relaxed) + 1;
        let limit_bytes = self.limit_bytes.load(Ordering::Relaxed);
        if live.saturating_mul(self.object_bytes()) > limit_bytes {
            self.live.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::CacheLimit { pmu: self.pmu, limit_bytes });
        }
        // Zeroed here: glibc's `calloc` passes its thread's cache by, and at this size costs several times as much.
        let Some(object) = self.alloc_raw() else {
            self.live.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::OutOfMemory { pmu: self.pmu, bytes: self.object_bytes() });
        };
        // SAFETY: so many bytes have just been allocated.
        unsafe { object.write_bytes(0, self.layout.size()) };
        Ok(object)
    }

    fn alloc_raw(&self) -> Option<NonNull<u8>> {
        #[cfg(any(pertask_loom, pertask_shuttle))]
        if let Some(freed) = crate::quarantine::reused(self.layout) {
            return Some(freed);
        }
        // SAFETY: the layout is that of a `CtxData`, which is not empty.
        NonNull::new(unsafe { std::alloc::alloc(self.layout) })
    }

    /// Takes an object back.
    ///
    /// # Safety
    /// It came from this cache's `alloc`, and nobody holds it.
    pub(crate) unsafe fn free(&self, object: NonNull<u8>) {
        // SAFETY: the caller's; all objects of a cache have its layout.
        #[cfg(not(any(pertask_loom, pertask_shuttle)))]
        unsafe {
            std::alloc::dealloc(object.as_ptr(), self.layout);
        }
        #[cfg(any(pertask_loom, pertask_shuttle))]
        crate::quarantine::keep(object, self.layout);
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}
