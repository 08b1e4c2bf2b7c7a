//! Where per-task data comes from: one cache of equal objects for each PMU (the kernel's `kmem_cache`).

use crate::books::{Cell64, Library, Mine};
use crate::error::Error;
use crate::magazine::{Depot, Magazine};
use crate::per_cpu::PerCpu;
use crate::primitive::plain::{AtomicU64, AtomicUsize};
use crate::primitive::{Mutex, Ordering, lock};
use std::alloc::Layout;
use std::fmt;
use std::ptr::NonNull;

/// Batches of free objects that no CPU has at hand and that are kept all the same.
const KEPT_BATCHES: usize = 64;

/// Allocates one PMU's data for tasks: objects of one size, zeroed, counted, and within a limit if there is one.
///
/// Freed objects stay at hand: some tens for each CPU, and some thousand for all of them together. Where there is a limit none
/// do. Objects go back to the cache that they came from; each carries a pointer to it.
pub struct CtxCache {
    pmu: &'static str,
    layout: Layout,
    library: &'static Library,
    cpus: PerCpu<OfCpu>,
    kept: Depot<u8>,
    /// What threads without books have allocated, less what they have freed. It wraps around.
    elsewhere: AtomicU64,
    limit_bytes: AtomicUsize,
    /// Held by whoever allocates within a limit.
    limited: Mutex<()>,
}

/// What one CPU has of a cache. The thread that has the books of that number writes it.
#[derive(Default)]
#[repr(align(128))]
struct OfCpu {
    /// Allocated here, less freed here. It wraps around.
    live: Cell64,
    at_hand: Magazine<u8>,
}

// SAFETY: `at_hand` is touched only with the books of its number, which one thread has at a time; `live` is atomic.
unsafe impl Sync for OfCpu {}

impl CtxCache {
    /// A cache of objects of that layout, which is not empty, for those who have books of that library.
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
    /// Those that wait for their last reader are among them. The figure is exact only while none is allocated or freed.
    #[must_use]
    pub fn live(&self) -> usize {
        let elsewhere = self.elsewhere.load(Ordering::Relaxed);
        let live = self.cpus.iter().fold(elsewhere, |live, cpu| live.wrapping_add(cpu.live.get()));
        // An object may be seen to be freed and not to be allocated.
        live.cast_signed().max(0) as usize
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

    /// Limits the memory of the live objects to `bytes`; `None` lifts the limit.
    ///
    /// What is beyond it now stays. Within a limit, each allocation adds up all CPUs' counts under a lock, and nothing that is
    /// freed is kept: the limit is that of all the memory, but for some tens of free objects that a CPU gives back when it
    /// next allocates or frees.
    pub fn set_limit_bytes(&self, bytes: Option<usize>) {
        self.limit_bytes.store(bytes.unwrap_or(usize::MAX), Ordering::Relaxed);
        if bytes.is_some() {
            self.give_back(self.kept.empty());
        }
    }

    /// A zeroed object.
    ///
    /// # Errors
    /// [`Error::CacheLimit`] and [`Error::OutOfMemory`].
    #[inline]
    pub(crate) fn alloc(&self, mine: Option<Mine<'_>>) -> Result<NonNull<u8>, Error> {
        let object = match mine {
            Some(mine) if !self.is_limited() => self.alloc_at_hand(mine),
            _ => self.alloc_with_care(mine),
        }?;
        // Zeroed here: glibc's `calloc` passes its thread's cache by, and at this size costs several times as much.
        // SAFETY: so many bytes have just been allocated.
        unsafe { object.write_bytes(0, self.layout.size()) };
        Ok(object)
    }

    /// The books with which this thread may use what is at hand, if it has any.
    #[inline]
    pub(crate) fn here(&self) -> Option<Mine<'static>> {
        self.library.here()
    }

    /// Takes an object back.
    ///
    /// # Safety
    /// It came from this cache's `alloc`, and nobody holds it.
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
        // Relaxed: whoever allocates at this moment does so before or after.
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

    /// Where there is a limit, or the thread has no books.
    #[cold]
    fn alloc_with_care(&self, mine: Option<Mine<'_>>) -> Result<NonNull<u8>, Error> {
        if let Some(mine) = mine {
            self.give_back_at_hand(self.cpus.of(mine.number()));
        }
        self.count_within_limit(mine)?;
        // Under no lock: an allocation may take long.
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
        // Relaxed: a figure.
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

    /// Gives free objects back to the allocator.
    fn give_back(&self, objects: impl IntoIterator<Item = NonNull<u8>>) {
        for object in objects {
            #[cfg(any(pertask_loom, pertask_shuttle))]
            crate::quarantine::keep(object, self.layout);
            // SAFETY: all objects of a cache were allocated with its layout, and nobody holds a free one.
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
