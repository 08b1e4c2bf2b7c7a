//! The algorithm: epochs, one record for each reading thread, and an asymmetric barrier.
//!
//! A reader announces the current epoch in its record and passes the light barrier, and does no more. A reclaimer takes the
//! retired objects out of the threads' bags, opens a new epoch (the batch's *tag*), passes the heavy barrier and then reads the
//! records. A reader whose epoch is at least the tag began after the objects were unlinked; a reader outside any section holds
//! nothing. When no record shows an older epoch, the reclaimer frees the batch.
//!
//! This is enough in both cases. If a reader's announcement comes before the heavy barrier, the reclaimer's scan after the
//! barrier sees it, and the batch waits. If the announcement comes after, the reader's loads also come after the heavy barrier
//! and see the objects unlinked. A reader that announces the new epoch loaded it with Acquire, and so sees the unlinking too.

use super::Head;
use crate::membarrier;
use crate::primitive::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, lock, yield_now,
};
use std::ptr::{self, NonNull};

/// How many objects a thread puts into its bag before it tries to reclaim.
///
/// This bounds what one thread holds back, and spreads the cost of a heavy barrier over many objects.
#[cfg(not(pertask_shuttle))]
const BATCH: u32 = 128;
/// Small enough that a schedule reclaims now and then.
#[cfg(pertask_shuttle)]
const BATCH: u32 = 4;

/// The state that all readers and reclaimers share.
pub(crate) struct Domain {
    /// INVARIANT: never zero; it only grows.
    epoch: AtomicU64,
    /// INVARIANT: a list that only grows. Records are reused, and never freed while the domain lives.
    readers: AtomicPtr<Reader>,
    waiting: Mutex<Waiting>,
}

/// One thread's record. Its owner writes it; reclaimers read it.
#[repr(align(128))]
pub(crate) struct Reader {
    /// Zero outside a section, otherwise the epoch that the section announced at its beginning.
    section: AtomicU64,
    /// How many sections are nested. The owner alone touches it.
    depth: AtomicU32,
    /// Retired objects. The owner pushes them; the reclaimer takes all of them at once.
    bag: AtomicPtr<Head>,
    /// How many objects the owner has pushed since it last tried to reclaim. The owner alone touches it.
    pushed: AtomicU32,
    /// Whether the owner has the record only for one section and those nested in it. The owner alone touches it.
    is_lent: AtomicBool,
    claimed: AtomicBool,
    /// Fixed once the record is in the list.
    next: *mut Reader,
}

/// Objects taken out of the bags, in batches tagged with the epoch from which on no reader can hold them.
#[derive(Default)]
struct Waiting {
    batches: Vec<Batch>,
}

struct Batch {
    /// `None` if the kernel refused the heavy barrier that would make the tag valid. Such a batch is kept.
    tag: Option<u64>,
    objects: *mut Head,
}

// SAFETY: the batch points to retired objects, which belong to the domain and may be freed on any thread.
unsafe impl Send for Batch {}

// SAFETY: `next` is fixed before the record is shared; the other fields are atomics.
unsafe impl Sync for Reader {}
// SAFETY: nothing in a record is bound to a thread.
unsafe impl Send for Reader {}

impl Domain {
    pub(crate) fn new() -> Self {
        Self {
            epoch: AtomicU64::new(1),
            readers: AtomicPtr::new(ptr::null_mut()),
            waiting: Mutex::new(Waiting::default()),
        }
    }

    /// Claims a record for the calling thread: a free one if there is one, otherwise a new one.
    pub(crate) fn claim(&self) -> &Reader {
        self.readers().find(|reader| reader.try_claim()).unwrap_or_else(|| self.add_reader())
    }

    fn add_reader(&self) -> &Reader {
        let reader = Box::into_raw(Box::new(Reader::new()));
        // Acquire: pairs with the Release below, so that we see the `next` of the record we link to.
        let mut head = self.readers.load(Ordering::Acquire);
        loop {
            // SAFETY: no other thread can reach the record until the exchange succeeds.
            unsafe { (*reader).next = head };
            // Release: publishes the record. Acquire on failure: pairs with that Release, so that we see the `next` of the
            // record we link to.
            match self.readers.compare_exchange(head, reader, Ordering::Release, Ordering::Acquire)
            {
                // SAFETY: records live as long as the domain.
                Ok(_) => return unsafe { &*reader },
                Err(now) => head = now,
            }
        }
    }

    fn readers(&self) -> impl Iterator<Item = &Reader> {
        // Acquire: pairs with the Release in `add_reader`, so that we see the `next` that was written before it.
        let mut at = self.readers.load(Ordering::Acquire);
        std::iter::from_fn(move || {
            // SAFETY: the pointer is null or points to a record, and records live as long as the domain.
            let reader = unsafe { at.as_ref()? };
            at = reader.next;
            Some(reader)
        })
    }

    /// Begins a section on the thread that owns the record. Sections nest, and may end in any order.
    ///
    /// A section announces an epoch whenever none is announced, whatever the depth. So a section is complete even if a signal
    /// handler runs between any two of these steps and enters a section of its own. Either the handler finds the announcement
    /// and leaves it in place, because the depth shows an outer section. Or the handler announces an epoch itself, and the
    /// interrupted thread then finds that announcement, or makes it again, before it loads anything else.
    #[inline(always)]
    pub(crate) fn enter(&self, reader: &Reader) {
        // Relaxed: only the owner writes these words.
        let depth = reader.depth.load(Ordering::Relaxed);
        reader.depth.store(depth + 1, Ordering::Relaxed);
        if reader.section.load(Ordering::Relaxed) == 0 {
            // Acquire: pairs with the Release in `open_epoch`. A reader that announces an epoch sees everything that was
            // unlinked before the epoch was opened.
            let epoch = self.epoch.load(Ordering::Acquire);
            // Release: pairs with the Acquire in `Reader::section`. A reclaimer may see this section's young epoch without
            // having seen the end of the previous section; the Release orders the previous section's accesses before it. The
            // barrier below orders the announcement before this section's loads.
            reader.section.store(epoch, Ordering::Release);
            membarrier::light();
        }
    }

    /// Queues `object` to be freed, and now and then tries to free objects that are ready.
    ///
    /// # Safety
    /// The object is no longer reachable for new readers, and the caller retires it once.
    pub(crate) unsafe fn retire(&self, reader: &Reader, object: NonNull<Head>) {
        let mut head = reader.bag.load(Ordering::Relaxed);
        loop {
            // Relaxed: the exchange below publishes the store.
            // SAFETY: a retired object's link belongs to the domain.
            unsafe { object.as_ref() }.next.store(head, Ordering::Relaxed);
            // Release: pairs with the Acquire in `collect`, and carries the unlinking of the object with it.
            match reader.bag.compare_exchange(
                head,
                object.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        // Relaxed: only the owner uses this count.
        let pushed = reader.pushed.load(Ordering::Relaxed) + 1;
        reader.pushed.store(pushed % BATCH, Ordering::Relaxed);
        if pushed == BATCH {
            self.try_reclaim();
        }
    }

    /// Frees what can be freed, unless another thread is already reclaiming.
    pub(crate) fn try_reclaim(&self) {
        if let Ok(mut waiting) = self.waiting.try_lock() {
            // A refused barrier is not the caller's problem: the untagged batches wait until the next attempt.
            let _ = self.collect(&mut waiting);
            free_all(self.ripe(&mut waiting));
        }
    }

    /// Waits until every section that runs now has ended. The caller must be outside any section.
    pub(crate) fn synchronize(&self) -> Result<(), membarrier::Refused> {
        let tag = self.open_epoch()?;
        for reader in self.readers() {
            let mut wait = Backoff::default();
            while reader.older_than(tag) {
                wait.pause();
            }
        }
        Ok(())
    }

    /// Waits until everything retired before the call has been freed. The caller, whose record is `reader`, must be outside any
    /// section.
    pub(crate) fn barrier(&self, reader: &Reader) -> Result<(), membarrier::Refused> {
        self.collect(&mut lock(&self.waiting))?;
        // Acquire: the objects just collected have this tag or an older one.
        let tag = self.epoch.load(Ordering::Acquire);
        loop {
            self.synchronize()?;
            // Under the lock: a thread that took batches out before us has also freed them.
            let mut waiting = lock(&self.waiting);
            // In a section: a foreign destructor may call `barrier`, which would wait for us; inside a section the call is
            // refused.
            self.enter(reader);
            free_all(self.ripe(&mut waiting));
            // The caller gives a lent record back.
            let _ = reader.leave();
            // A reader may announce an epoch long after it loaded it, and so hold up a batch that it cannot hold: wait for that
            // reader too.
            if !waiting.batches.iter().any(|batch| batch.tag.is_some_and(|old| old <= tag)) {
                return Ok(());
            }
        }
    }

    /// How many objects wait to be freed; exact only while nothing else runs.
    ///
    /// `inside` says that the caller is in a section. The section may belong to the reclaimer itself, so the caller must not
    /// wait for the reclaimer; `pending` then returns 0 while somebody reclaims.
    pub(crate) fn pending(&self, inside: bool) -> usize {
        let waiting = match self.waiting.try_lock() {
            Ok(waiting) => waiting,
            Err(_) if inside => return 0,
            Err(_) => lock(&self.waiting),
        };
        let in_bags = self.readers().map(|reader| {
            // Acquire: pairs with the Release in `retire`, so that we see the links. We hold `waiting`, so nobody frees
            // meanwhile.
            length(reader.bag.load(Ordering::Acquire))
        });
        in_bags.sum::<usize>()
            + waiting.batches.iter().map(|batch| length(batch.objects)).sum::<usize>()
    }

    /// Opens a new epoch. Once the barrier has passed, only a reader whose epoch is older can hold an object that was unlinked
    /// before the call.
    fn open_epoch(&self) -> Result<u64, membarrier::Refused> {
        // AcqRel: Release pairs with the Acquire in `enter`; Acquire orders the epochs of concurrent reclaimers.
        let tag = self.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        membarrier::heavy()?;
        Ok(tag)
    }

    /// Moves the bags into new batches, and tags every untagged batch with one new epoch. If the kernel refuses the barrier,
    /// the batches stay untagged until the next call.
    fn collect(&self, waiting: &mut MutexGuard<'_, Waiting>) -> Result<(), membarrier::Refused> {
        for reader in self.readers() {
            if reader.bag.load(Ordering::Relaxed).is_null() {
                continue;
            }
            // Acquire: pairs with the Release in `retire`.
            let objects = reader.bag.swap(ptr::null_mut(), Ordering::Acquire);
            waiting.batches.push(Batch { tag: None, objects });
        }
        if waiting.batches.iter().any(|batch| batch.tag.is_none()) {
            let tag = self.open_epoch()?;
            for batch in &mut waiting.batches {
                batch.tag.get_or_insert(tag);
            }
        }
        Ok(())
    }

    /// Removes and returns the batches that no reader can hold any more.
    fn ripe(&self, waiting: &mut MutexGuard<'_, Waiting>) -> Vec<Batch> {
        let oldest = self.oldest_section();
        waiting.batches.extract_if(.., |batch| batch.tag.is_some_and(|tag| tag <= oldest)).collect()
    }

    /// The oldest epoch that any reader shows now.
    fn oldest_section(&self) -> u64 {
        self.readers().filter_map(Reader::section).min().unwrap_or(u64::MAX)
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        let mut waiting = std::mem::take(&mut *lock(&self.waiting)).batches;
        // Acquire, here and below: stronger than needed, since whoever drops the domain has it alone.
        let mut at = self.readers.load(Ordering::Acquire);
        while !at.is_null() {
            // SAFETY: nobody borrows the domain any more, and each record was allocated as a box.
            let reader = unsafe { Box::from_raw(at) };
            waiting.push(Batch { tag: None, objects: reader.bag.load(Ordering::Acquire) });
            at = reader.next;
        }
        free_all(waiting);
    }
}

impl Domain {
    /// Resets the domain in the child of a `fork(2)`, where only the calling thread is left. Its record is `own`.
    ///
    /// The sections of the other threads will never end, so their records become free. The objects they had retired are freed
    /// as usual. This runs in a `pthread_atfork` handler, so it only writes atomics.
    #[cfg(not(any(pertask_loom, pertask_shuttle)))]
    pub(crate) fn keep_only(&self, own: Option<&Reader>) {
        let others = self.readers().filter(|reader| own.is_none_or(|own| !ptr::eq(*reader, own)));
        for reader in others {
            // Relaxed: there is no other thread.
            reader.section.store(0, Ordering::Relaxed);
            reader.depth.store(0, Ordering::Relaxed);
            reader.pushed.store(0, Ordering::Relaxed);
            reader.claimed.store(false, Ordering::Relaxed);
        }
    }
}

impl Reader {
    fn new() -> Self {
        Self {
            section: AtomicU64::new(0),
            depth: AtomicU32::new(0),
            bag: AtomicPtr::new(ptr::null_mut()),
            pushed: AtomicU32::new(0),
            is_lent: AtomicBool::new(false),
            claimed: AtomicBool::new(true),
            next: ptr::null_mut(),
        }
    }

    fn try_claim(&self) -> bool {
        // Acquire: pairs with the Release in `release`, so the former owner's use of the record is over.
        !self.claimed.load(Ordering::Relaxed)
            && self
                .claimed
                .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    /// Ends a section. Returns true if the record was [lent](Self::lend) and must be given back now.
    #[inline(always)]
    #[must_use]
    pub(crate) fn leave(&self) -> bool {
        let depth = self.depth.load(Ordering::Relaxed) - 1;
        self.depth.store(depth, Ordering::Relaxed);
        if depth != 0 {
            return false;
        }
        // Release: pairs with the Acquire in `Reader::section`. The section's accesses come before any freeing.
        self.section.store(0, Ordering::Release);
        // Relaxed: only the owner uses this flag.
        self.is_lent.load(Ordering::Relaxed)
    }

    /// Sets whether the calling owner has the record only for one section and those nested in it.
    #[cfg(not(pertask_loom))]
    pub(crate) fn lend(&self, is_lent: bool) {
        // Relaxed: only the owner uses this flag.
        self.is_lent.store(is_lent, Ordering::Relaxed);
    }

    /// Gives the record back. Another thread frees the objects in its bag.
    pub(crate) fn release(&self) {
        // Release: pairs with the Acquire in `try_claim`.
        self.claimed.store(false, Ordering::Release);
    }

    /// Whether the owning thread is inside a section.
    pub(crate) fn inside(&self) -> bool {
        self.depth.load(Ordering::Relaxed) != 0
    }

    fn section(&self) -> Option<u64> {
        // Acquire: pairs with the Release in `leave` and in `enter`.
        match self.section.load(Ordering::Acquire) {
            0 => None,
            epoch => Some(epoch),
        }
    }

    fn older_than(&self, tag: u64) -> bool {
        self.section().is_some_and(|epoch| epoch < tag)
    }
}

/// Waits for a section to end. Sections are short, but the thread in one may be off its CPU.
#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    fn pause(&mut self) {
        self.0 += 1;
        match self.0 {
            #[cfg(not(any(pertask_loom, pertask_shuttle)))]
            0..64 => std::hint::spin_loop(),
            #[cfg(not(any(pertask_loom, pertask_shuttle)))]
            256.. => std::thread::sleep(std::time::Duration::from_micros(50)),
            _ => yield_now(),
        }
    }
}

fn free_all(batches: Vec<Batch>) {
    for batch in batches {
        let mut at = batch.objects;
        while let Some(object) = NonNull::new(at) {
            // SAFETY: each object is in one batch only, and no reader can hold it. Its link is read before it is freed.
            unsafe {
                at = object.as_ref().next.load(Ordering::Relaxed);
                (object.as_ref().free)(object);
            }
        }
    }
}

fn length(mut at: *mut Head) -> usize {
    let mut length = 0;
    // SAFETY: the caller holds the lock without which nothing on the list is freed.
    while let Some(object) = unsafe { at.as_ref() } {
        length += 1;
        at = object.next.load(Ordering::Relaxed);
    }
    length
}

/// Inspection for the tests of a thread's end.
#[cfg(all(test, not(any(pertask_loom, pertask_shuttle))))]
impl Domain {
    /// How many records the domain has.
    pub(super) fn records(&self) -> usize {
        self.readers().count()
    }

    /// How many records are claimed by a thread.
    pub(super) fn claimed_records(&self) -> usize {
        self.readers().filter(|reader| reader.is_claimed()).count()
    }
}

#[cfg(all(test, not(any(pertask_loom, pertask_shuttle))))]
impl Reader {
    /// Whether a thread has claimed the record.
    pub(super) fn is_claimed(&self) -> bool {
        // Acquire: pairs with the Release in `release`.
        self.claimed.load(Ordering::Acquire)
    }
}
