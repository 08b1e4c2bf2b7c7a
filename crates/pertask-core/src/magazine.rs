//! Free things at hand: a magazine for each CPU, and a depot through which CPUs exchange what one has too many of and
//! another too few. (Bonwick's magazines, as in the allocators of Solaris and Linux.)

use crate::primitive::plain::AtomicUsize;
use crate::primitive::{AtomicPtr, Mutex, Ordering, lock};
use std::cell::Cell;
use std::ptr::{self, NonNull};

/// What goes to the depot and comes from it at a time.
const BATCH: usize = if cfg!(pertask_loom) {
    2
} else if cfg!(pertask_shuttle) {
    4
} else {
    32
};

/// Two batches, so that a CPU which takes and gives one in turn does not go to the depot each time.
const SIZE: usize = 2 * BATCH;

/// Free things that one thread has at hand. It takes the one last put.
pub(crate) struct Magazine<T> {
    /// INVARIANT: the first `len` are free things that belong to the magazine.
    len: Cell<usize>,
    free: [Cell<NonNull<T>>; SIZE],
}

// SAFETY: the pointers are to free things, which belong to whoever has the magazine.
unsafe impl<T> Send for Magazine<T> {}

impl<T> Default for Magazine<T> {
    fn default() -> Self {
        Self { len: Cell::new(0), free: [const { Cell::new(NonNull::dangling()) }; SIZE] }
    }
}

impl<T> Magazine<T> {
    /// What was put last.
    #[inline]
    pub(crate) fn take(&self) -> Option<NonNull<T>> {
        let last = self.len.get().checked_sub(1)?;
        self.len.set(last);
        Some(self.free[last].get())
    }

    /// False if it is full: [`Depot::make_room`] makes room.
    #[inline]
    pub(crate) fn put(&self, free: NonNull<T>) -> bool {
        let len = self.len.get();
        let Some(place) = self.free.get(len) else { return false };
        place.set(free);
        self.len.set(len + 1);
        true
    }

    /// The oldest batch. The magazine is full.
    fn take_batch(&self) -> Batch<T> {
        let batch = std::array::from_fn(|at| self.free[at].get());
        (BATCH..SIZE).for_each(|at| self.free[at - BATCH].set(self.free[at].get()));
        self.len.set(SIZE - BATCH);
        Batch(batch)
    }

    /// The magazine is empty.
    fn put_batch(&self, batch: &Batch<T>) {
        self.free.iter().zip(batch.0).for_each(|(place, free)| place.set(free));
        self.len.set(BATCH);
    }
}

/// So many free things.
pub(crate) struct Batch<T>([NonNull<T>; BATCH]);

// SAFETY: the pointers are to free things, which belong to the batch.
unsafe impl<T> Send for Batch<T> {}

impl<T> Batch<T> {
    /// How many are in one.
    pub(crate) const LEN: usize = BATCH;

    /// Those that `free` makes, by number; they are taken in that order.
    pub(crate) fn from_fn(mut free: impl FnMut(usize) -> NonNull<T>) -> Self {
        Self(std::array::from_fn(|at| free(BATCH - 1 - at)))
    }
}

impl<T> IntoIterator for Batch<T> {
    type Item = NonNull<T>;
    type IntoIter = std::array::IntoIter<NonNull<T>, BATCH>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Batches that no CPU has at hand.
///
/// Putting one here takes no lock, because a task's end does it. Taking one does.
pub(crate) struct Depot<T> {
    /// INVARIANT: null, or a list of boxes that belong to the depot. Only who holds `taking` takes a node off, so a node whose
    /// `next` has been read is still the one that an exchange finds.
    batches: AtomicPtr<Node<T>>,
    taking: Mutex<()>,
    len: AtomicUsize,
    /// About how many batches it takes.
    limit: usize,
}

struct Node<T> {
    batch: Batch<T>,
    next: *mut Node<T>,
}

impl<T> Depot<T> {
    pub(crate) fn new(limit: usize) -> Self {
        let batches = AtomicPtr::new(ptr::null_mut());
        Self { batches, taking: Mutex::new(()), len: AtomicUsize::new(0), limit }
    }

    /// Fills a magazine that is empty. False: there is nothing here.
    pub(crate) fn fill(&self, magazine: &Magazine<T>) -> bool {
        let batch = self.take();
        batch.iter().for_each(|batch| magazine.put_batch(batch));
        batch.is_some()
    }

    /// Takes a batch out of a magazine that is full. `Some`: there is no room here, and the caller has it.
    #[cold]
    pub(crate) fn make_room(&self, magazine: &Magazine<T>) -> Option<Batch<T>> {
        let batch = magazine.take_batch();
        // Relaxed: a limit that is a batch or two off is one, too.
        if self.len.load(Ordering::Relaxed) >= self.limit {
            return Some(batch);
        }
        self.put(batch);
        None
    }

    pub(crate) fn put(&self, batch: Batch<T>) {
        self.len.fetch_add(1, Ordering::Relaxed);
        let node = Box::into_raw(Box::new(Node { batch, next: ptr::null_mut() }));
        // Relaxed: the pointer is not followed.
        let mut head = self.batches.load(Ordering::Relaxed);
        loop {
            // SAFETY: the node is ours alone until the exchange succeeds.
            unsafe { (*node).next = head };
            // Release: pairs with the Acquire in `take`; the node is found whole. Relaxed on failure: tried again.
            match self.batches.compare_exchange(head, node, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    fn take(&self) -> Option<Batch<T>> {
        let _taking = lock(&self.taking);
        // Acquire, here and on failure: pairs with the Release in `put`.
        let mut head = self.batches.load(Ordering::Acquire);
        loop {
            // SAFETY: null, or a node, which nobody takes off but us.
            let next = unsafe { head.as_ref()? }.next;
            match self.batches.compare_exchange(head, next, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        self.len.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: a box, taken off the list by us alone.
        Some(unsafe { Box::from_raw(head) }.batch)
    }

    /// Everything that is here.
    pub(crate) fn empty(&self) -> impl Iterator<Item = NonNull<T>> {
        std::iter::from_fn(|| self.take()).flatten()
    }
}

impl<T> Drop for Depot<T> {
    fn drop(&mut self) {
        // The things themselves belong to whoever made the depot.
        self.empty().for_each(|_| ());
    }
}
