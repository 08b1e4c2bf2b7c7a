//! Free objects at hand: a magazine for each CPU, and a depot in which CPUs with too many objects leave some for CPUs with too
//! few (Bonwick's magazines, as in the allocators of Solaris and Linux).

use crate::primitive::plain::AtomicUsize;
use crate::primitive::{AtomicPtr, Mutex, Ordering, lock};
use std::cell::Cell;
use std::ptr::{self, NonNull};

/// How many objects move to or from the depot at a time.
const BATCH: usize = if cfg!(pertask_loom) {
    2
} else if cfg!(pertask_shuttle) {
    4
} else {
    32
};

/// Two batches, so that a CPU that alternates between taking and putting one object does not go to the depot each time.
const SIZE: usize = 2 * BATCH;

/// Free objects that one thread has at hand. The object put last is taken first.
pub(crate) struct Magazine<T> {
    /// INVARIANT: the first `len` entries point to free objects that belong to the magazine.
    len: Cell<usize>,
    free: [Cell<NonNull<T>>; SIZE],
}

// SAFETY: the pointers are to free objects, which belong to the thread that has the magazine.
unsafe impl<T> Send for Magazine<T> {}

impl<T> Default for Magazine<T> {
    fn default() -> Self {
        Self { len: Cell::new(0), free: [const { Cell::new(NonNull::dangling()) }; SIZE] }
    }
}

impl<T> Magazine<T> {
    /// Takes the object that was put last.
    #[inline]
    pub(crate) fn take(&self) -> Option<NonNull<T>> {
        let last = self.len.get().checked_sub(1)?;
        self.len.set(last);
        Some(self.free[last].get())
    }

    /// Puts an object. Returns false if the magazine is full: call [`Depot::make_room`] first.
    #[inline]
    pub(crate) fn put(&self, free: NonNull<T>) -> bool {
        let len = self.len.get();
        let Some(place) = self.free.get(len) else { return false };
        place.set(free);
        self.len.set(len + 1);
        true
    }

    /// Takes the oldest batch out of a full magazine.
    fn take_batch(&self) -> Batch<T> {
        let batch = std::array::from_fn(|at| self.free[at].get());
        (BATCH..SIZE).for_each(|at| self.free[at - BATCH].set(self.free[at].get()));
        self.len.set(SIZE - BATCH);
        Batch(batch)
    }

    /// Fills an empty magazine with a batch.
    fn put_batch(&self, batch: &Batch<T>) {
        self.free.iter().zip(batch.0).for_each(|(place, free)| place.set(free));
        self.len.set(BATCH);
    }
}

/// A fixed number of free objects.
pub(crate) struct Batch<T>([NonNull<T>; BATCH]);

// SAFETY: the pointers are to free objects, which belong to the batch.
unsafe impl<T> Send for Batch<T> {}

impl<T> Batch<T> {
    /// How many objects a batch holds.
    pub(crate) const LEN: usize = BATCH;

    /// A batch of the objects that `free` makes for the numbers 0 and up. A magazine hands them out in that order.
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

/// Batches of free objects that no CPU has at hand.
///
/// Putting a batch takes no lock, because a task's exit does it. Taking a batch locks.
pub(crate) struct Depot<T> {
    /// INVARIANT: null, or a list of boxes that belong to the depot. Only the thread that holds `taking` removes a node, so a
    /// head whose `next` that thread has read is still the same node when its exchange succeeds.
    batches: AtomicPtr<Node<T>>,
    taking: Mutex<()>,
    len: AtomicUsize,
    /// About how many batches the depot accepts.
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

    /// Fills an empty magazine. Returns false if the depot is empty.
    pub(crate) fn fill(&self, magazine: &Magazine<T>) -> bool {
        let batch = self.take();
        batch.iter().for_each(|batch| magazine.put_batch(batch));
        batch.is_some()
    }

    /// Takes a batch out of a full magazine. Returns the batch if the depot has no room for it.
    #[cold]
    pub(crate) fn make_room(&self, magazine: &Magazine<T>) -> Option<Batch<T>> {
        let batch = magazine.take_batch();
        // Relaxed: the limit may be exceeded by a batch or two.
        if self.len.load(Ordering::Relaxed) >= self.limit {
            return Some(batch);
        }
        self.put(batch);
        None
    }

    pub(crate) fn put(&self, batch: Batch<T>) {
        self.len.fetch_add(1, Ordering::Relaxed);
        let node = Box::into_raw(Box::new(Node { batch, next: ptr::null_mut() }));
        // Relaxed: we do not dereference the pointer.
        let mut head = self.batches.load(Ordering::Relaxed);
        loop {
            // SAFETY: no other thread can reach the node until the exchange succeeds.
            unsafe { (*node).next = head };
            // Release: pairs with the Acquire in `take`, which sees the node initialised. Relaxed on failure: we only retry.
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
            // SAFETY: the pointer is null or points to a node, and only we can remove nodes while we hold `taking`.
            let next = unsafe { head.as_ref()? }.next;
            match self.batches.compare_exchange(head, next, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        self.len.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the node was allocated as a box, and we alone removed it from the list.
        Some(unsafe { Box::from_raw(head) }.batch)
    }

    /// Takes out everything in the depot.
    pub(crate) fn empty(&self) -> impl Iterator<Item = NonNull<T>> {
        std::iter::from_fn(|| self.take()).flatten()
    }
}

impl<T> Drop for Depot<T> {
    fn drop(&mut self) {
        // The objects themselves belong to the owner of the depot.
        self.empty().for_each(|_| ());
    }
}
