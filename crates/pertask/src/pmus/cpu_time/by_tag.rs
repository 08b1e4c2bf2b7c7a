//! CPU time by tag: what tasks have used while they had each tag.
//!
//! Each CPU counts for itself, so tasks on different CPUs that have the same tag share no memory. A tag's lower bits are its
//! place in the table of each CPU, so a switch finds its counter by two loads. Tables have room before a tag is in use: a switch
//! does not allocate.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

/// The number of places that a tag's lower bits can name.
pub(crate) const PLACES: u32 = 1 << 20;

/// Places for which memory is allocated at a time.
const CHUNK: usize = 1024;

/// The CPU time of one CPU's tasks, by the place of their tag.
#[derive(Debug, Default)]
pub(crate) struct ByTag {
    chunks: OnceLock<Box<[Chunk]>>,
}

/// INVARIANT: a counter never falls. Only the CPU's own thread writes it.
type Chunk = OnceLock<Box<[AtomicU64]>>;

/// The number of chunks that every CPU has.
static CHUNKS: AtomicUsize = AtomicUsize::new(0);

/// The place of a tag.
#[inline(always)]
pub(crate) fn place_of(tag: u32) -> usize {
    (tag & (PLACES - 1)) as usize
}

/// Says that all CPUs shall have room for a place. Returns whether some may lack it.
pub(super) fn want_room(place: usize) -> bool {
    // Relaxed: one thread at a time calls this.
    let is_new = CHUNKS.load(Ordering::Relaxed) <= place / CHUNK;
    if is_new {
        CHUNKS.store(place / CHUNK + 1, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `make_all_room`.
        fence(Ordering::SeqCst);
    }
    is_new
}

impl ByTag {
    /// Makes the room that all CPUs have.
    pub(super) fn make_all_room(&self) {
        // SeqCst: pairs with the fence in `want_room`. Whoever wants more room after this fence finds this CPU.
        fence(Ordering::SeqCst);
        // Relaxed: the fences order it.
        let wanted = CHUNKS.load(Ordering::Relaxed);
        if wanted == 0 {
            return;
        }
        let none = || (0..PLACES as usize / CHUNK).map(|_| Chunk::new()).collect();
        for chunk in &self.chunks.get_or_init(none)[..wanted] {
            chunk.get_or_init(|| (0..CHUNK).map(|_| AtomicU64::new(0)).collect());
        }
    }

    /// Adds to the time of a tag. Only the CPU's own thread calls this.
    pub(super) fn charge(&self, tag: u32, cpu_ns: u64) {
        if let Some(cell) = self.cell(place_of(tag)) {
            // Relaxed: readers see the old or the new value.
            cell.store(cell.load(Ordering::Relaxed) + cpu_ns, Ordering::Relaxed);
        }
    }

    fn cell(&self, place: usize) -> Option<&AtomicU64> {
        Some(&self.chunks.get()?[place / CHUNK].get()?[place % CHUNK])
    }

    pub(super) fn of_place(&self, place: usize) -> u64 {
        // Relaxed: a figure.
        self.cell(place).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = u64> {
        let chunks = self.chunks.get().into_iter().flatten();
        // Relaxed: a figure.
        chunks.map_while(OnceLock::get).flatten().map(|ns| ns.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_charged_at_its_place_and_needs_room() {
        let by_tag = ByTag::default();
        by_tag.charge(7, 1);
        assert_eq!(by_tag.all().sum::<u64>(), 0, "no room, and no harm");
        assert!(want_room(CHUNK + 1) && !want_room(CHUNK + 1));
        by_tag.make_all_room();
        by_tag.charge(7, 2);
        by_tag.charge(7 | 5 << 20, 3);
        by_tag.charge(CHUNK as u32 + 1, 4);
        assert_eq!(by_tag.all().nth(7), Some(5), "the place, whatever stands above it");
        assert_eq!(by_tag.all().nth(CHUNK + 1), Some(4));
        assert_eq!(by_tag.all().sum::<u64>(), 9);
    }
}
