//! The allocator of per-task data: one cache of equal-sized objects for each PMU (the kernel's `kmem_cache`).

use crate::books::{Cell64, Library, Mine};
use crate::error::Error;
use crate::magazine::{Depot, Magazine};
use crate::per_cpu::PerCpu;
use crate::primitive::plain::{AtomicU64, AtomicUsize};
use crate::primitive::{Mutex, Ordering, lock};
use std::alloc::Layout;
use std::fmt;
use std::ptr::NonNull;

/// How many batches of free objects the cache keeps in addition to those at hand on the CPUs.
const KEPT_BATCHES: usize = 64;

/// Allocates one PMU's per-task data: objects of one size, zeroed, counted, and optionally within a memory limit.
///
/// The cache keeps freed objects: some tens for each CPU, and a few thousand for all CPUs together. With a limit it keeps none.
/// Each object carries a pointer to its cache, and goes back to it.
pub struct CtxCache {
    pmu: &'static str,
    layout: Layout,
    library: &'static Library,
    cpus: PerCpu<OfCpu>,
    kept: Depot<u8>,
    /// Objects allocated by threads without books, minus objects freed by such threads. It wraps around.
    elsewhere: AtomicU64,
    limit_bytes: AtomicUsize,
    /// Held by a thread while it counts an allocation against the limit.
    limited: Mutex<()>,
}

/// One CPU's part of a cache. Only the thread that has the books of that number writes it.
#[derive(Default)]
#[repr(align(128))]
struct OfCpu {
    /// Objects allocated here, minus objects freed here. It wraps around.
    live: Cell64,
    at_hand: Magazine<u8>,
}

// SAFETY: `at_hand` is touched only with the books of its number, which one thread has at a time; `live` is atomic.
unsafe impl Sync for OfCpu {}

impl CtxCache {
    /// A cache of objects of a non-empty layout, for CPUs with books of `library`.
    pub(crate) fn new(pmu: &'static str, layout: Layout, library: &'static Library) -> Self {
        Self {
            pmu,
            layout,
            library,
            cpus: PerCpu::new(),
            kept: Depot::new(KEPT_BATCHES),
            elsewhere: AtomicU64::new(0),
            limit_bytes: AtomicUsize::new(usize::MAX),
            limited: Mutex::new(()),
        }
    }

    /// How many objects are allocated and not yet freed.
    ///
    /// This includes objects that wait for their last reader. The figure is exact only while no object is allocated or freed.
    #[must_use]
    pub fn live(&self) -> usize {
        let elsewhere = self.elsewhere.load(Ordering::Relaxed);
        let live = self.cpus.iter().fold(elsewhere, |live, cpu| live.wrapping_add(cpu.live.get()));
        // The sum may include an object's freeing but not its allocation.
        live.cast_signed().max(0) as usize
    }

    /// How much memory the live objects use.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.live() * self.object_bytes()
    }

    /// How much memory one object uses.
    #[must_use]
    pub fn object_bytes(&self) -> usize {
        self.layout.size()
    }

    /// Limits the memory of the live objects to `bytes`; `None` lifts the limit.
    ///
    /// Objects already beyond the new limit stay. With a limit, each allocation adds up all CPUs' counts under a lock, and
    /// freed objects are not kept. So the limit covers all of the cache's memory, except for some tens of free objects that a
    /// CPU gives back when it next allocates or frees.
    pub fn set_limit_bytes(&self, bytes: Option<usize>) {
        self.limit_bytes.store(bytes.unwrap_or(usize::MAX), Ordering::Relaxed);
        if bytes.is_some() {
            self.give_back(self.kept.empty());
        }
    }

    /// Allocates a zeroed object.
    ///
    /// # Errors
    /// [`Error::CacheLimit`] and [`Error::OutOfMemory`].
    #[inline]
    pub(crate) fn alloc(&self, mine: Option<Mine<'_>>) -> Result<NonNull<u8>, Error> {
        let object = match mine {
            Some(mine) if !self.is_limited() => self.alloc_at_hand(mine),
            _ => self.alloc_with_care(mine),
        }?;
        // Zeroed here and not with `calloc`: glibc's `calloc` bypasses the thread cache, and at this size costs several times
        // as much.
        // SAFETY: the object was just allocated with this layout, so that many bytes are ours to write.
        unsafe { object.write_bytes(0, self.layout.size()) };
        Ok(object)
    }

    /// The books with which this thread may use its objects at hand, if it has any.
    #[inline]
    pub(crate) fn here(&self) -> Option<Mine<'static>> {
        self.library.here()
    }

    /// Frees an object.
    ///
    /// # Safety
    /// The object came from this cache's `alloc`, and nobody holds it.
    #[inline]
    pub(crate) unsafe fn free(&self, mine: Option<Mine<'_>>, object: NonNull<u8>) {
        let Some(mine) = mine else {
            self.count_elsewhere(u64::MAX);
            return self.give_back([object]);
        };
        let cpu = self.cpus.of(mine.number());
        cpu.live.add(u64::MAX);
        if self.is_limited() || cfg!(any(pertask_loom, pertask_shuttle)) {
            self.give_back_at_hand(cpu);
            return self.give_back([object]);
        }
        if !cpu.at_hand.put(object) {
            self.make_room(cpu);
            cpu.at_hand.put(object);
        }
    }

    #[inline]
    fn is_limited(&self) -> bool {
        // Relaxed: an allocation that runs at the same time counts as earlier or later.
        self.limit_bytes.load(Ordering::Relaxed) != usize::MAX
    }

    #[inline]
    fn alloc_at_hand(&self, mine: Mine<'_>) -> Result<NonNull<u8>, Error> {
        let cpu = self.cpus.of(mine.number());
        let object = cpu.at_hand.take().map_or_else(|| self.alloc_new(cpu), Ok)?;
        cpu.live.add(1);
        Ok(object)
    }

    #[cold]
    fn alloc_new(&self, cpu: &OfCpu) -> Result<NonNull<u8>, Error> {
        self.kept.fill(&cpu.at_hand);
        cpu.at_hand.take().map_or_else(|| self.alloc_raw(), Ok)
    }

    /// Allocates where there is a limit, or for a thread without books.
    #[cold]
    fn alloc_with_care(&self, mine: Option<Mine<'_>>) -> Result<NonNull<u8>, Error> {
        if let Some(mine) = mine {
            self.give_back_at_hand(self.cpus.of(mine.number()));
        }
        self.count_within_limit(mine)?;
        // Not under the lock: an allocation may take long.
        let object = self.alloc_raw();
        if object.is_err() {
            self.count(mine, u64::MAX);
        }
        object
    }

    fn count_within_limit(&self, mine: Option<Mine<'_>>) -> Result<(), Error> {
        let _limited = lock(&self.limited);
        let limit_bytes = self.limit_bytes.load(Ordering::Relaxed);
        if (self.live() + 1).saturating_mul(self.object_bytes()) > limit_bytes {
            return Err(Error::CacheLimit { pmu: self.pmu, limit_bytes });
        }
        self.count(mine, 1);
        Ok(())
    }

    fn count(&self, mine: Option<Mine<'_>>, amount: u64) {
        match mine {
            Some(mine) => self.cpus.of(mine.number()).live.add(amount),
            None => self.count_elsewhere(amount),
        }
    }

    fn count_elsewhere(&self, amount: u64) {
        // Relaxed: for statistics.
        self.elsewhere.fetch_add(amount, Ordering::Relaxed);
    }

    #[cold]
    fn make_room(&self, cpu: &OfCpu) {
        if let Some(batch) = self.kept.make_room(&cpu.at_hand) {
            self.give_back(batch);
        }
    }

    fn give_back_at_hand(&self, cpu: &OfCpu) {
        self.give_back(std::iter::from_fn(|| cpu.at_hand.take()));
    }

    fn alloc_raw(&self) -> Result<NonNull<u8>, Error> {
        #[cfg(any(pertask_loom, pertask_shuttle))]
        if let Some(freed) = crate::quarantine::reused(self.layout) {
            return Ok(freed);
        }
        // SAFETY: the layout is not empty, by `new`'s contract.
        let object = NonNull::new(unsafe { std::alloc::alloc(self.layout) });
        object.ok_or(Error::OutOfMemory { pmu: self.pmu, bytes: self.object_bytes() })
    }

    /// Returns free objects to the allocator.
    fn give_back(&self, objects: impl IntoIterator<Item = NonNull<u8>>) {
        for object in objects {
            #[cfg(any(pertask_loom, pertask_shuttle))]
            crate::quarantine::keep(object, self.layout);
            // SAFETY: every object of a cache was allocated with its layout, and nobody holds a free one.
            #[cfg(not(any(pertask_loom, pertask_shuttle)))]
            unsafe {
                std::alloc::dealloc(object.as_ptr(), self.layout);
            }
        }
    }
}

impl Drop for CtxCache {
    fn drop(&mut self) {
        self.give_back(self.kept.empty());
        self.cpus.iter().for_each(|cpu| self.give_back_at_hand(cpu));
    }
}

impl fmt::Debug for CtxCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CtxCache")
            .field("pmu", &self.pmu)
            .field("object_bytes", &self.object_bytes())
            .field("live", &self.live())
            .finish_non_exhaustive()
    }
}
