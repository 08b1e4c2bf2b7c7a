//! CPU time by tag: what tasks have used while they had each tag.
//!
//! Each CPU counts for itself, so tasks on different CPUs that have the same tag share no memory. A tag's lower bits are its
//! place in the table of each CPU, so a switch finds its counter by two loads. Tables have room before a tag is in use: a switch
//! does not allocate.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

/// The number of places that a tag's lower bits can name.
pub(crate) const PLACES: u32 = 1 << 20;

/// Places in the first chunk of a table. Each further chunk has twice as many as the one before.
const FIRST: usize = 1024;
const CHUNKS: usize = (PLACES as usize / FIRST).ilog2() as usize + 1;

/// The CPU time of one CPU's tasks, by the place of their tag.
#[derive(Debug, Default)]
pub(crate) struct ByTag {
    chunks: [Chunk; CHUNKS],
}

/// INVARIANT: a counter never falls. Only the CPU's own thread writes it.
type Chunk = OnceLock<Box<[AtomicU64]>>;

/// The number of chunks that every CPU has.
static ROOM: AtomicUsize = AtomicUsize::new(0);

/// The place of a tag.
#[inline(always)]
pub(crate) fn place_of(tag: u32) -> usize {
    (tag & (PLACES - 1)) as usize
}

/// The chunk of a place, and where the place is in it.
#[inline(always)]
fn locate(place: usize) -> (usize, usize) {
    let chunk = (place / FIRST + 1).ilog2() as usize;
    (chunk, place - FIRST * ((1 << chunk) - 1))
}

/// Says that all CPUs shall have room for a place. Returns whether some may lack it.
pub(super) fn want_room(place: usize) -> bool {
    let (chunk, _) = locate(place);
    // Relaxed: the fences order it.
    let is_new = ROOM.fetch_max(chunk + 1, Ordering::Relaxed) <= chunk;
    if is_new {
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
        for (chunk, cells) in self.chunks.iter().enumerate().take(ROOM.load(Ordering::Relaxed)) {
            cells.get_or_init(|| (0..FIRST << chunk).map(|_| AtomicU64::new(0)).collect());
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
        let (chunk, at) = locate(place);
        Some(&self.chunks[chunk].get()?[at])
    }

    pub(super) fn of_place(&self, place: usize) -> u64 {
        // Relaxed: a figure.
        self.cell(place).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = u64> {
        // Relaxed: a figure.
        self.chunks.iter().map_while(OnceLock::get).flatten().map(|ns| ns.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_a_cell_of_its_own() {
        let places = [0, 1, FIRST - 1, FIRST, 3 * FIRST - 1, 3 * FIRST, PLACES as usize - 1];
        let cells = [(0, 0), (0, 1), (0, 1023), (1, 0), (1, 2047), (2, 0), (CHUNKS - 1, FIRST - 1)];
        assert_eq!(places.map(locate), cells);
    }

    #[test]
    fn a_tag_is_charged_at_its_place_and_needs_room() {
        let by_tag = ByTag::default();
        by_tag.charge(7, 1);
        assert_eq!(by_tag.all().sum::<u64>(), 0, "no room, and no harm");
        want_room(FIRST + 1);
        assert!(!want_room(FIRST + 1), "it is known already");
        by_tag.make_all_room();
        by_tag.charge(7, 2);
        by_tag.charge(7 | 5 << 20, 3);
        by_tag.charge(FIRST as u32 + 1, 4);
        assert_eq!(by_tag.all().nth(7), Some(5), "the place, whatever stands above it");
        assert_eq!(by_tag.all().nth(FIRST + 1), Some(4));
        assert_eq!(by_tag.all().sum::<u64>(), 9);
    }
}
