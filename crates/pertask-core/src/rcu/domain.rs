//! The algorithm: epochs, one record for each reading thread, and an asymmetric barrier.
//!
//! A reader announces the epoch in its record and passes the light barrier; that is all it does. Who wants to free
//! takes objects off the threads' bags, opens a new epoch (the batch's *tag*), passes the heavy barrier and then
//! looks at the records: a reader whose epoch is at least the tag began after the objects were unlinked, one that is
//! outside holds nothing. When no record shows an older epoch, the batch is freed.
//!
//! Why that is enough, in two cases. If a reader's announcement comes before the heavy barrier, the look that
//! follows sees it, and the batch waits. If it comes after, the reader's own loads come after the heavy barrier too
//! and see the objects unlinked. A reader that announced the new epoch acquired it, and with it the unlinking.

use super::Head;
use crate::membarrier;
use crate::primitive::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, lock, yield_now,
};
use std::ptr::{self, NonNull};

/// Objects in one thread's bag before that thread tries to free: bounds what a thread holds back, and shares the
/// price of a heavy barrier.
#[cfg(not(pertask_shuttle))]
const BATCH: u32 = 128;
/// So that schedules free now and then.
#[cfg(pertask_shuttle)]
const BATCH: u32 = 4;

/// What all readers and all who free share.
pub(crate) struct Domain {
    /// INVARIANT: never zero, only grows.
    epoch: AtomicU64,
    /// INVARIANT: a list that only grows; records are reused, never freed while the domain lives.
    readers: AtomicPtr<Reader>,
    waiting: Mutex<Waiting>,
}

/// One thread's announcement. Written by its owner, read by whoever frees.
#[repr(align(128))]
pub(crate) struct Reader {
    /// Zero outside a section, else the epoch at its beginning.
    section: AtomicU64,
    /// How many sections are nested. The owner alone touches it.
    depth: AtomicU32,
    /// Retired objects. The owner pushes; whoever frees takes them all.
    bag: AtomicPtr<Head>,
    /// Objects pushed since the owner last tried to free. The owner alone touches it.
    pushed: AtomicU32,
    /// Whether the owner has it for one section, and those inside it. The owner alone touches it.
    is_lent: AtomicBool,
    claimed: AtomicBool,
    /// Fixed once the record is in the list.
    next: *mut Reader,
}

/// Objects taken off the bags, by the epoch from which on no reader can hold them.
#[derive(Default)]
struct Waiting {
    batches: Vec<Batch>,
}

struct Batch {
    /// `None` while the heavy barrier that makes the tag good was refused: such a batch is kept.
    tag: Option<u64>,
    objects: *mut Head,
}

// SAFETY: the pointers are to retired objects, which belong to the domain and may be freed on any thread.
unsafe impl Send for Batch {}

// SAFETY: `next` is fixed before the record is shared; the rest are atomics.
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

    /// A record for the calling thread: a free one, or a new one.
    pub(crate) fn claim(&self) -> &Reader {
        self.readers().find(|reader| reader.try_claim()).unwrap_or_else(|| self.add_reader())
    }

    fn add_reader(&self) -> &Reader {
        let reader = Box::into_raw(Box::new(Reader::new()));
        // Acquire: pairs with the Release below, for the `next` of the record that becomes ours.
        let mut head = self.readers.load(Ordering::Acquire);
        loop {
            // SAFETY: the record is ours alone until the exchange succeeds.
            unsafe { (*reader).next = head };
            // Release: publishes the record. Acquire on failure: pairs with it, for the `next` of the record that becomes ours.
            match self.readers.compare_exchange(head, reader, Ordering::Release, Ordering::Acquire)
            {
                // SAFETY: records live as long as the domain.
                Ok(_) => return unsafe { &*reader },
                Err(now) => head = now,
            }
        }
    }

    fn readers(&self) -> impl Iterator<Item = &Reader> {
        // Acquire: pairs with the Release in `add_reader`; `next` was written before it.
        let mut at = self.readers.load(Ordering::Acquire);
        std::iter::from_fn(move || {
            // SAFETY: null, or a record, which lives as long as the domain.
            let reader = unsafe { at.as_ref()? };
            at = reader.next;
            Some(reader)
        })
    }

    /// Begins a section on the record's own thread. Sections nest, and end in any order.
    ///
    /// What decides is whether an epoch is announced, not the depth: so the section is whole also for a signal handler that
    /// comes between any two of these steps and enters one of its own. Either it finds the announcement, and leaves it
    /// there because the depth says that another goes on; or it makes one, which the interrupted thread then finds or makes
    /// again, before it has looked at anything.
    #[inline(always)]
    pub(crate) fn enter(&self, reader: &Reader) {
        // Relaxed: both words are the owner's.
        let depth = reader.depth.load(Ordering::Relaxed);
        reader.depth.store(depth + 1, Ordering::Relaxed);
        if reader.section.load(Ordering::Relaxed) == 0 {
            // Acquire: pairs with the Release in `open_epoch`; who announces an epoch has seen what was unlinked
            // before it was opened.
            let epoch = self.epoch.load(Ordering::Acquire);
            // Release: pairs with the Acquire in `section`; who sees that this section is young enough need not see the end of
            // the one before. The barrier below orders it before this section's loads.
            reader.section.store(epoch, Ordering::Release);
            membarrier::light();
        }
    }

    /// Hands `object` over to be freed. Frees some that wait, now and then.
    ///
    /// # Safety
    /// The object is no longer reachable for new readers, and is retired once.
    pub(crate) unsafe fn retire(&self, reader: &Reader, object: NonNull<Head>) {
        let mut head = reader.bag.load(Ordering::Relaxed);
        loop {
            // SAFETY: a retired object's link is ours to use. Relaxed: published by the exchange below.
            unsafe { object.as_ref() }.next.store(head, Ordering::Relaxed);
            // Release: pairs with the Acquire in `take_bags`; carries the unlinking of the object with it.
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
        // Relaxed: the owner's own count.
        let pushed = reader.pushed.load(Ordering::Relaxed) + 1;
        reader.pushed.store(pushed % BATCH, Ordering::Relaxed);
        if pushed == BATCH {
            self.try_reclaim();
        }
    }

    /// Frees what can be freed, unless another thread is at it.
    pub(crate) fn try_reclaim(&self) {
        if let Ok(mut waiting) = self.waiting.try_lock() {
            // A refusal is none of the caller's: what is not tagged waits for the next time.
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

    /// Waits until everything that was retired before has been freed. The caller, whose record is `reader`, must be outside any
    /// section.
    pub(crate) fn barrier(&self, reader: &Reader) -> Result<(), membarrier::Refused> {
        self.collect(&mut lock(&self.waiting))?;
        // Acquire: what has just been collected has this tag or an older one.
        let tag = self.epoch.load(Ordering::Acquire);
        loop {
            self.synchronize()?;
            // Under the lock: what another thread took out before us it has also freed.
            let mut waiting = lock(&self.waiting);
            // In a section: a destructor that is not ours may ask for a barrier, which is refused there, and would wait for us.
            self.enter(reader);
            free_all(self.ripe(&mut waiting));
            // The caller gives a lent record back.
            let _ = reader.leave();
            // A reader may announce an epoch long after it has loaded it, and hold up what it cannot hold: wait for it too.
            if !waiting.batches.iter().any(|batch| batch.tag.is_some_and(|old| old <= tag)) {
                return Ok(());
            }
        }
    }

    /// How many objects wait to be freed: an exact figure only while nothing else runs. `inside`: the caller is in a section,
    /// perhaps that of whoever frees, for whom it must not wait; then what is being freed is not counted.
    pub(crate) fn pending(&self, inside: bool) -> usize {
        let waiting = match self.waiting.try_lock() {
            Ok(waiting) => waiting,
            Err(_) if inside => return 0,
            Err(_) => lock(&self.waiting),
        };
        let in_bags = self.readers().map(|reader| {
            // Acquire: pairs with the Release in `retire`, for the links. Nobody frees: we hold `waiting`.
            length(reader.bag.load(Ordering::Acquire))
        });
        in_bags.sum::<usize>()
            + waiting.batches.iter().map(|batch| length(batch.objects)).sum::<usize>()
    }

    /// Opens a new epoch, such that a reader which shows an older one, or will, may hold what was unlinked before,
    /// and no other can.
    fn open_epoch(&self) -> Result<u64, membarrier::Refused> {
        // AcqRel: Release pairs with the Acquire in `enter`; Acquire keeps the epochs of several who free in line.
        let tag = self.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        membarrier::heavy()?;
        Ok(tag)
    }

    /// Takes the bags into new batches, with a tag that is good for all that have none. Refused, they wait for the next.
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

    /// Takes out the batches that no reader can hold any more.
    fn ripe(&self, waiting: &mut MutexGuard<'_, Waiting>) -> Vec<Batch> {
        let oldest = self.oldest_section();
        waiting.batches.extract_if(.., |batch| batch.tag.is_some_and(|tag| tag <= oldest)).collect()
    }

    /// The oldest epoch that a reader shows now.
    fn oldest_section(&self) -> u64 {
        self.readers().filter_map(Reader::section).min().unwrap_or(u64::MAX)
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        let mut waiting = std::mem::take(&mut *lock(&self.waiting)).batches;
        let mut at = self.readers.load(Ordering::Acquire);
        while !at.is_null() {
            // SAFETY: nobody borrows the domain any more; each record came from a box.
            let reader = unsafe { Box::from_raw(at) };
            waiting.push(Batch { tag: None, objects: reader.bag.load(Ordering::Acquire) });
            at = reader.next;
        }
        free_all(waiting);
    }
}

impl Domain {
    /// Makes the domain that of the one thread which `fork(2)` has left in this process, whose record is `own`: the
    /// others' sections will never end, and their records are free. What they had retired is freed as usual.
    ///
    /// For `pthread_atfork`: writes atomics and nothing else.
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
        // Acquire: pairs with the Release in `release`; the former owner's plain use of the record is over.
        !self.claimed.load(Ordering::Relaxed)
            && self
                .claimed
                .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    /// Ends a section. True if the record was [lent](Self::lend), and must be given back now.
    #[inline(always)]
    #[must_use]
    pub(crate) fn leave(&self) -> bool {
        let depth = self.depth.load(Ordering::Relaxed) - 1;
        self.depth.store(depth, Ordering::Relaxed);
        if depth != 0 {
            return false;
        }
        // Release: pairs with the Acquire in `oldest_section`; the section's accesses come before any freeing.
        self.section.store(0, Ordering::Release);
        // Relaxed: the owner's own.
        self.is_lent.load(Ordering::Relaxed)
    }

    /// For the owner: whether it has the record for one section alone, and for those inside it.
    #[cfg(not(pertask_loom))]
    pub(crate) fn lend(&self, is_lent: bool) {
        // Relaxed: the owner's own.
        self.is_lent.store(is_lent, Ordering::Relaxed);
    }

    /// Gives the record back. What its bag holds is freed by others.
    pub(crate) fn release(&self) {
        // Release: pairs with the Acquire in `try_claim`.
        self.claimed.store(false, Ordering::Release);
    }

    /// Whether the record's own thread is inside a section.
    pub(crate) fn inside(&self) -> bool {
        self.depth.load(Ordering::Relaxed) != 0
    }

    fn section(&self) -> Option<u64> {
        // Acquire: pairs with the Release in `leave`.
        match self.section.load(Ordering::Acquire) {
            0 => None,
            epoch => Some(epoch),
        }
    }

    fn older_than(&self, tag: u64) -> bool {
        self.section().is_some_and(|epoch| epoch < tag)
    }
}

/// Waits for a section to end: they are short, but their thread may be off its CPU.
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
            // SAFETY: the object is in one batch only, and no reader can hold it; its link is read before it goes.
            unsafe {
                at = object.as_ref().next.load(Ordering::Relaxed);
                (object.as_ref().free)(object);
            }
        }
    }
}

fn length(mut at: *mut Head) -> usize {
    let mut length = 0;
    // SAFETY: called under the lock without which nothing on the list is freed.
    while let Some(object) = unsafe { at.as_ref() } {
        length += 1;
        at = object.next.load(Ordering::Relaxed);
    }
    length
}

/// What the tests of a thread's end look at.
#[cfg(all(test, not(any(pertask_loom, pertask_shuttle))))]
impl Domain {
    /// How many records there are.
    pub(super) fn records(&self) -> usize {
        self.readers().count()
    }

    /// How many of them a thread has.
    pub(super) fn claimed_records(&self) -> usize {
        self.readers().filter(|reader| reader.is_claimed()).count()
    }
}

#[cfg(all(test, not(any(pertask_loom, pertask_shuttle))))]
impl Reader {
    /// Whether a thread has the record.
    pub(super) fn is_claimed(&self) -> bool {
        // Acquire: pairs with the Release in `release`.
        self.claimed.load(Ordering::Acquire)
    }
}
