//! All live tasks (the kernel's task list), in shards, walked in chunks.

use crate::primitive::{Arc, Mutex, Ordering, Padded, lock};
use crate::task::Task;

/// Spawning threads spread over this many locks.
#[cfg(not(pertask_loom))]
const SHARDS: usize = 64;
#[cfg(pertask_loom)]
const SHARDS: usize = 1;

/// Entries that a walk looks at under one hold of a lock. A spawn on the same shard waits at most for that, some
/// microseconds.
#[cfg(not(pertask_loom))]
const CHUNK: usize = 64;
#[cfg(pertask_loom)]
const CHUNK: usize = 1;

/// Entries allocated at a time, so that a growing shard never moves what it holds.
#[cfg(not(pertask_loom))]
const BLOCK: usize = 256;
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
    Free { next: u32 },
    Live(Arc<Task>),
}

const END: u32 = u32::MAX;

impl TaskTable {
    pub(crate) fn new() -> Self {
        let shard = || Shard { blocks: Vec::new(), free: END, live: 0 };
        Self { shards: (0..SHARDS).map(|_| Padded(Mutex::new(shard()))).collect() }
    }

    /// Enters a task. Who inserts with different `hint`s does not meet.
    pub(crate) fn insert(&self, task: &Arc<Task>, hint: usize) {
        let index = hint % SHARDS;
        let mut shard = lock(&self.shards[index].0);
        let entry = shard.insert(Arc::clone(task));
        // Relaxed: read by the task's owner alone, to whom it comes with the task.
        task.place.store((index as u64) << 32 | u64::from(entry), Ordering::Relaxed);
    }

    /// Takes out a task that was entered.
    pub(crate) fn remove(&self, task: &Task) {
        let place = task.place.load(Ordering::Relaxed);
        let mut shard = lock(&self.shards[(place >> 32) as usize].0);
        let removed = shard.remove(place as u32);
        drop(shard);
        // Not under the lock: it may be the last handle.
        drop(removed);
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
    fn insert(&mut self, task: Arc<Task>) -> u32 {
        if self.free == END {
            self.grow();
        }
        let index = self.free;
        let entry = self.entry(index);
        if let Entry::Free { next } = *entry {
            *entry = Entry::Live(task);
            self.free = next;
            self.live += 1;
        }
        index
    }

    fn remove(&mut self, index: u32) -> Option<Arc<Task>> {
        let free = self.free;
        let entry = self.entry(index);
        match std::mem::replace(entry, Entry::Free { next: free }) {
            Entry::Live(task) => {
                self.free = index;
                self.live -= 1;
                Some(task)
            }
            // Not a live entry: leave it as it was.
            was_free @ Entry::Free { .. } => {
                *entry = was_free;
                None
            }
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
            if let Entry::Live(task) = &self.blocks[index / BLOCK][index % BLOCK] {
                chunk.push(Arc::clone(task));
            }
        }
        end == capacity
    }
}
