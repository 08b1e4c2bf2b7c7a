//! All live tasks (the kernel's task list): a lock-free table, walked while tasks enter and leave.
//!
//! An entering thread takes one of the free entries it has at hand and stores the item there. A leaving thread empties the
//! entry with one exchange. A walk must keep the item it looks at from being freed, and must not make the leaving thread wait.
//! So the walk *pins* the entry, by a count in the pointer's low bits. The leaving thread adds one strong count to the item for
//! each pin, and its exchange succeeds only if the number of pins is still the same. When the walk unpins and finds the item
//! gone, it drops the strong count that was left for it.

use crate::magazine::{Batch, Depot, Magazine};
use crate::primitive::{Arc, AtomicPtr, Mutex, Ordering, fence, lock, yield_now};
use std::ops::Deref;
use std::ptr::{self, NonNull};

/// How many entries a block has. Blocks are never moved, so a growing table never moves an entry.
const BLOCK: usize = if cfg!(pertask_loom) {
    2
} else if cfg!(pertask_shuttle) {
    16
} else if cfg!(miri) {
    32
} else {
    256
};

const _: () = assert!(BLOCK.is_multiple_of(Batch::<()>::LEN), "a block is batches of free entries");

/// How many items a walk keeps alive at a time while it passes them to foreign code.
const CHUNK: usize = if cfg!(pertask_loom) {
    1
} else if cfg!(pertask_shuttle) {
    8
} else {
    64
};

/// The low bits of an entry: how many walks have pinned it.
const PINS: usize = 7;

/// All live items.
///
/// A walk sees every item that is in the table for the whole walk. It may or may not see an item that enters or leaves
/// meanwhile.
pub(crate) struct TaskTable<T> {
    /// INVARIANT: null, or the first block of a list that only grows, at its end.
    first: AtomicPtr<Block<T>>,
    /// The last block, for the thread that adds one.
    last: Mutex<*mut Block<T>>,
    free: Depot<Entry<T>>,
}

// SAFETY: the table owns its blocks, and shares the items in them as an `Arc<T>` does.
unsafe impl<T: Send + Sync> Send for TaskTable<T> {}
// SAFETY: entries are atomics, and `last` is behind a lock.
unsafe impl<T: Send + Sync> Sync for TaskTable<T> {}

struct Block<T> {
    entries: [Entry<T>; BLOCK],
    next: AtomicPtr<Block<T>>,
}

/// A place for one item.
///
/// INVARIANT: null, or the pointer of an `Arc`, with the number of pins in the low bits. While the entry holds a pointer, the
/// thread that entered the item keeps a strong count.
pub(crate) struct Entry<T>(AtomicPtr<T>);

/// A pinned entry. Its item stays alive until the pin is dropped.
pub(crate) struct Pin<'a, T> {
    entry: &'a Entry<T>,
    item: NonNull<T>,
}

impl<T> TaskTable<T> {
    pub(crate) fn new() -> Self {
        const { assert!(align_of::<T>() > PINS, "the low bits of its pointers are free") }
        Self {
            first: AtomicPtr::new(ptr::null_mut()),
            last: Mutex::new(ptr::null_mut()),
            // No limit: entries are never freed.
            free: Depot::new(usize::MAX),
        }
    }

    /// Enters an item, in one of the free entries that the thread has at hand.
    ///
    /// # Safety
    /// The caller keeps its strong count until [`leave`](Self::leave) has returned.
    #[inline]
    pub(crate) unsafe fn enter(
        &self,
        at_hand: &Magazine<Entry<T>>,
        item: &Arc<T>,
    ) -> NonNull<Entry<T>> {
        let entry = at_hand.take().unwrap_or_else(|| self.more(at_hand));
        // Release: pairs with the Acquire in `pin`, so that the walk sees the whole item.
        // SAFETY: entries live as long as the table.
        unsafe { entry.as_ref() }.0.store(Arc::as_ptr(item).cast_mut(), Ordering::Release);
        entry
    }

    /// Takes an item out of the table. Returns true if no walk has the item pinned: then only threads that hold it already can
    /// still reach it.
    ///
    /// # Safety
    /// The entry is the one that `enter` returned for this item, and the item leaves once.
    #[inline]
    pub(crate) unsafe fn leave(
        &self,
        at_hand: &Magazine<Entry<T>>,
        entry: NonNull<Entry<T>>,
        item: &Arc<T>,
    ) -> bool {
        // SAFETY: entries live as long as the table.
        let pins = unsafe { entry.as_ref() }.empty(item);
        if !at_hand.put(entry) {
            self.make_room(at_hand, entry);
        }
        pins == 0
    }

    /// Calls `f` with each item, pinned, until `f` fails. A thread that takes an item out meanwhile does not wait for `f`.
    pub(crate) fn try_for_each_pinned<E>(
        &self,
        mut f: impl FnMut(&T) -> Result<(), E>,
    ) -> Result<(), E> {
        self.entries().filter_map(Entry::pin).try_for_each(|item| f(&item))
    }

    /// Calls `f` with each item.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Arc<T>)) {
        let _ = self.try_for_each(|item| {
            f(item);
            Ok::<(), ()>(())
        });
    }

    /// Calls `f` with each item, until `f` fails.
    pub(crate) fn try_for_each<E>(
        &self,
        mut f: impl FnMut(&Arc<T>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut entries = self.entries().peekable();
        let mut chunk = Vec::with_capacity(CHUNK);
        while entries.peek().is_some() {
            let pins = entries.by_ref().take(CHUNK).filter_map(Entry::pin);
            chunk.extend(pins.map(|item| item.handle()));
            chunk.drain(..).try_for_each(|item| f(&item))?;
        }
        Ok(())
    }

    fn blocks(&self) -> impl Iterator<Item = &Block<T>> {
        let mut at = &self.first;
        std::iter::from_fn(move || {
            // Acquire: pairs with the Release in `add_block`, so that we see the block initialised.
            // SAFETY: the pointer is null or points to a block, and blocks live as long as the table.
            let block = unsafe { at.load(Ordering::Acquire).as_ref()? };
            at = &block.next;
            Some(block)
        })
    }

    fn entries(&self) -> impl Iterator<Item = &Entry<T>> {
        self.blocks().flat_map(|block| &block.entries)
    }

    #[cold]
    fn more(&self, at_hand: &Magazine<Entry<T>>) -> NonNull<Entry<T>> {
        loop {
            if self.free.fill(at_hand)
                && let Some(entry) = at_hand.take()
            {
                return entry;
            }
            self.add_block();
        }
    }

    #[cold]
    fn make_room(&self, at_hand: &Magazine<Entry<T>>, entry: NonNull<Entry<T>>) {
        // This depot has no limit, so it accepts every batch.
        let none = self.free.make_room(at_hand);
        debug_assert!(none.is_none());
        at_hand.put(entry);
    }

    fn add_block(&self) {
        let block: *mut Block<T> = Box::into_raw(Box::new(Block {
            entries: std::array::from_fn(|_| Entry(AtomicPtr::new(ptr::null_mut()))),
            next: AtomicPtr::new(ptr::null_mut()),
        }));
        let mut last = lock(&self.last);
        // SAFETY: the pointer is null or points to a block, and blocks live as long as the table.
        let link = unsafe { last.as_ref() }.map_or(&self.first, |last| &last.next);
        // Release: pairs with the Acquire in `blocks`.
        link.store(block, Ordering::Release);
        *last = block;
        drop(last);
        // SAFETY: blocks live as long as the table.
        let entries = unsafe { &(*block).entries };
        // The depot hands out the batch put last first, so put them in reverse.
        for batch in entries.chunks_exact(Batch::<Entry<T>>::LEN).rev() {
            self.free.put(Batch::from_fn(|at| NonNull::from(&batch[at])));
        }
    }
}

impl<T> Drop for TaskTable<T> {
    fn drop(&mut self) {
        // Acquire, here and below: stronger than needed, since whoever drops the table has it alone.
        let mut at = self.first.load(Ordering::Acquire);
        while !at.is_null() {
            // SAFETY: nobody borrows the table any more, and each block was allocated as a box.
            at = unsafe { Box::from_raw(at) }.next.load(Ordering::Acquire);
        }
    }
}

impl<T> Entry<T> {
    /// Pins the entry, if it holds an item. Waits only while as many walks have it pinned as the pin bits can count.
    fn pin(&self) -> Option<Pin<'_, T>> {
        // Acquire, here and on failure: pairs with the exchange in `empty`, and so with the fence in `begin_end` before it. A
        // walk that finds an item gone also finds open the window in which the item left.
        let mut now = self.0.load(Ordering::Acquire);
        while let Some(item) = item(now) {
            if now.addr() & PINS == PINS {
                yield_now();
                now = self.0.load(Ordering::Acquire);
                continue;
            }
            let pinned = now.wrapping_byte_add(1);
            // Acquire: also pairs with the Release in `enter`.
            match self.0.compare_exchange(now, pinned, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some(Pin { entry: self, item }),
                Err(changed) => now = changed,
            }
        }
        None
    }

    /// Empties the entry of an item, and leaves one strong count for each walk that has it pinned. Returns the number of pins.
    ///
    /// The counts are added before the entry is emptied, because a walk that finds the entry empty drops a count at once.
    #[inline]
    fn empty(&self, item: &Arc<T>) -> usize {
        let mut left = 0;
        // Relaxed: the value is only the expected value of the exchange.
        let mut now = self.0.load(Ordering::Relaxed);
        loop {
            let pins = now.addr() & PINS;
            while left < pins {
                leave_count(item);
                left += 1;
            }
            // Acquire: pairs with the Release in `unpin`, so that everything walks did to the item comes before its end.
            // Release: pairs with the fence in `unpin`, so that the added counts rise before a walk drops one. Relaxed on
            // failure: we only retry.
            match self.0.compare_exchange(now, ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(changed) => now = changed,
            }
        }
        let pins = now.addr() & PINS;
        // SAFETY: the loop above added this count for a walk that has unpinned the entry since.
        (pins..left).for_each(|_| unsafe { drop_count(pointer(item)) });
        pins
    }

    fn unpin(&self, pinned: NonNull<T>) {
        // Relaxed: the value is only compared.
        let mut now = self.0.load(Ordering::Relaxed);
        while item(now) == Some(pinned) {
            let unpinned = now.wrapping_byte_sub(1);
            // Release: pairs with the exchange in `empty`, so that everything we did to the item comes before its end.
            match self.0.compare_exchange(now, unpinned, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(changed) => now = changed,
            }
        }
        // The item has left. The entry cannot hold another item at the same address, because the item is not freed before we
        // drop the count that was left for us.
        // Acquire: pairs with the Release in `empty`, so that the count left for us has risen before we drop it.
        fence(Ordering::Acquire);
        // SAFETY: `empty` left one strong count for this pin before it emptied the entry.
        unsafe { drop_count(pinned) };
    }
}

/// Adds one strong count to an item, for a walk to drop.
fn leave_count<T>(item: &Arc<T>) {
    // loom tries both orders of an increment and a decrement of a reference count only if both threads also access another
    // word.
    #[cfg(pertask_loom)]
    crate::membarrier::pass_the_door();
    std::mem::forget(Arc::clone(item));
}

/// Drops a strong count.
///
/// # Safety
/// The count was added by [`leave_count`], and is dropped once.
unsafe fn drop_count<T>(item: NonNull<T>) {
    #[cfg(pertask_loom)]
    crate::membarrier::pass_the_door();
    // SAFETY: the caller promises that `leave_count` added this count and that it is dropped once.
    drop(unsafe { Arc::from_raw(item.as_ptr()) });
}

fn pointer<T>(item: &Arc<T>) -> NonNull<T> {
    // SAFETY: the pointer of an `Arc` is never null.
    unsafe { NonNull::new_unchecked(Arc::as_ptr(item).cast_mut()) }
}

/// The pointer without its pins.
fn item<T>(word: *mut T) -> Option<NonNull<T>> {
    NonNull::new(word.wrapping_byte_sub(word.addr() & PINS))
}

impl<T> Pin<'_, T> {
    /// A handle that outlives the pin.
    pub(crate) fn handle(&self) -> Arc<T> {
        // SAFETY: the pointer is that of an `Arc` which has a strong count while the pin exists. The count added here is the
        // handle's.
        unsafe {
            Arc::increment_strong_count(self.item.as_ptr());
            Arc::from_raw(self.item.as_ptr())
        }
    }
}

impl<T> Deref for Pin<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the entering thread keeps its strong count, or leaves one for this pin.
        unsafe { self.item.as_ref() }
    }
}

impl<T> Drop for Pin<'_, T> {
    fn drop(&mut self) {
        self.entry.unpin(self.item);
    }
}

#[cfg(all(test, not(any(pertask_loom, pertask_shuttle))))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::thread;

    /// An item that is written while it is pinned.
    struct Item(AtomicU64);

    #[test]
    fn items_come_and_go_beside_walks() {
        const ITEMS: u64 = if cfg!(miri) { 40 } else { 2_000 };
        let table = TaskTable::new();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let _ = table.try_for_each_pinned(|item: &Item| {
                            item.0.fetch_add(1, Ordering::Relaxed);
                            Ok::<(), ()>(())
                        });
                    }
                });
            }
            let at_hand = Magazine::default();
            for _ in 0..ITEMS {
                let item = Arc::new(Item(AtomicU64::new(0)));
                // SAFETY: `item` is kept until it has left.
                let entry = unsafe { table.enter(&at_hand, &item) };
                thread::yield_now();
                // SAFETY: `entry` is the one `enter` returned for this item, which leaves once.
                unsafe { table.leave(&at_hand, entry, &item) };
                item.0.fetch_add(1, Ordering::Relaxed);
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
