//! All live tasks (the kernel's task list), in shards, walked in chunks.

use crate::primitive::{Arc, Mutex, Ordering, Padded, lock};
use crate::task::Task;
use std::ptr::NonNull;

/// Spawning threads spread over this many locks.
#[cfg(not(any(pertask_loom, pertask_shuttle)))]
const SHARDS: usize = 64;
#[cfg(pertask_shuttle)]
const SHARDS: usize = 2;
#[cfg(pertask_loom)]
const SHARDS: usize = 1;

/// Entries that a walk looks at under one hold of a lock. A spawn on the same shard waits at most for that, some
/// microseconds.
#[cfg(not(any(pertask_loom, pertask_shuttle)))]
const CHUNK: usize = 64;
#[cfg(pertask_shuttle)]
const CHUNK: usize = 8;
#[cfg(pertask_loom)]
const CHUNK: usize = 1;

/// Entries allocated at a time, so that a growing shard never moves what it holds.
#[cfg(not(any(pertask_loom, pertask_shuttle)))]
const BLOCK: usize = 256;
#[cfg(pertask_shuttle)]
const BLOCK: usize = 16;
#[cfg(pertask_loom)]
const BLOCK: usize = 2;

/// All live tasks.
///
/// A task enters before it first runs and leaves when it ends. A walk sees every task that is in the table for the
/// whole of the walk; of those that come or go meanwhile it sees some.
pub(crate) struct TaskTable {
    shards: Box<[Padded<Mutex<Shard>>]>,
}

/// INVARIANT: `free` is the first of a list of free entries through all blocks, or `END`; an entry on it is no task.
struct Shard {
    blocks: Vec<Box<[Entry]>>,
    free: u32,
    live: usize,
}

enum Entry {
    Free {
        next: u32,
    },
    /// INVARIANT: the pointer of an `Arc` of which there is a strong count for as long as the entry stands. Not the
    /// table's own: a task would pay for that twice, at its beginning and its end.
    Live(NonNull<Task>),
}

// SAFETY: what it stands for is an `Arc<Task>` that somebody else holds, and `Task` is `Sync` and `Send`.
unsafe impl Send for Entry {}

const END: u32 = u32::MAX;

/// The `place` of a task that is in no table.
pub(crate) const NOWHERE: u64 = u64::MAX;

impl TaskTable {
    pub(crate) fn new() -> Self {
        let shard = || Shard { blocks: Vec::new(), free: END, live: 0 };
        Self { shards: (0..SHARDS).map(|_| Padded(Mutex::new(shard()))).collect() }
    }

    /// Enters a task. Who inserts with different `hint`s does not meet.
    ///
    /// # Safety
    /// The caller keeps its strong count until [`remove`](Self::remove) has returned.
    pub(crate) unsafe fn insert(&self, task: &Arc<Task>, hint: usize) {
        let index = hint % SHARDS;
        let mut shard = lock(&self.shards[index].0);
        let entry = shard.insert(task);
        // Relaxed: read by the task's owner alone, to whom it comes with the task.
        task.place.store((index as u64) << 32 | u64::from(entry), Ordering::Relaxed);
    }

    /// Takes out a task, if it was entered. By its owner, once.
    pub(crate) fn remove(&self, task: &Task) {
        // Relaxed: as in `insert`.
        let place = task.place.load(Ordering::Relaxed);
        if place != NOWHERE {
            lock(&self.shards[(place >> 32) as usize].0).remove(place as u32);
        }
    }

    /// How many tasks live.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(&shard.0).live).sum()
    }

    /// Calls `f` with each task, under no lock.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Arc<Task>)) {
        let _ = self.try_for_each(|task| {
            f(task);
            Ok::<(), ()>(())
        });
    }

    /// Calls `f` with each task, under no lock, until it fails.
    pub(crate) fn try_for_each<E>(
        &self,
        mut f: impl FnMut(&Arc<Task>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut chunk = Vec::with_capacity(CHUNK);
        for shard in &self.shards {
            let mut at = 0;
            loop {
                let end = lock(&shard.0).copy(at..at + CHUNK, &mut chunk);
                chunk.drain(..).try_for_each(|task| f(&task))?;
                if end {
                    break;
                }
                at += CHUNK;
            }
        }
        Ok(())
    }
}

impl Shard {
    fn insert(&mut self, task: &Arc<Task>) -> u32 {
        if self.free == END {
            self.grow();
        }
        let index = self.free;
        let entry = self.entry(index);
        if let Entry::Free { next } = *entry {
            *entry = Entry::Live(pointer(task));
            self.free = next;
            self.live += 1;
        }
        index
    }

    fn remove(&mut self, index: u32) {
        let free = self.free;
        let entry = self.entry(index);
        if let Entry::Live(_) = *entry {
            *entry = Entry::Free { next: free };
            self.free = index;
            self.live -= 1;
        }
    }

    fn grow(&mut self) {
        let first = (self.blocks.len() * BLOCK) as u32;
        let last = first + BLOCK as u32 - 1;
        let next = |index| if index == last { END } else { index + 1 };
        self.blocks.push((first..=last).map(|index| Entry::Free { next: next(index) }).collect());
        self.free = first;
    }

    fn entry(&mut self, index: u32) -> &mut Entry {
        &mut self.blocks[index as usize / BLOCK][index as usize % BLOCK]
    }

    /// Copies the live tasks of `range` into `chunk`. True at the end of the shard.
    fn copy(&self, range: std::ops::Range<usize>, chunk: &mut Vec<Arc<Task>>) -> bool {
        let capacity = self.blocks.len() * BLOCK;
        let end = range.end.min(capacity);
        for index in range.start..end {
            if let Entry::Live(task) = self.blocks[index / BLOCK][index % BLOCK] {
                // SAFETY: the pointer of an `Arc`, whose strong count is kept until the entry has gone, for which the lock
                // is needed that we hold.
                chunk.push(unsafe { handle(task) });
            }
        }
        end == capacity
    }
}

/// The pointer that [`handle`] takes.
fn pointer(task: &Arc<Task>) -> NonNull<Task> {
    // SAFETY: an `Arc`'s pointer is not null.
    unsafe { NonNull::new_unchecked(Arc::as_ptr(task).cast_mut()) }
}

/// One more handle to a task.
///
/// # Safety
/// The pointer is that of an `Arc` with a strong count, which stays for the time of the call.
unsafe fn handle(task: NonNull<Task>) -> Arc<Task> {
    // SAFETY: the caller's; the count that is added is the new handle's.
    unsafe {
        Arc::increment_strong_count(task.as_ptr());
        Arc::from_raw(task.as_ptr())
    }
}
