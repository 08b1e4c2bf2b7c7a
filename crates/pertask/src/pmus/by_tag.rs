//! What tasks have had by tag: amounts that switches add up, for labels.
//!
//! Each CPU counts for itself, so tasks on different CPUs that have the same tag share no memory. A tag's lower bits are its
//! place in the table of each CPU, so a switch finds its counters by two loads. Tables have room before a tag is in use: a switch
//! does not allocate. The room is zeroed memory of the allocator's, which the kernel gives page by page, as places are written.

use bytemuck::allocation::zeroed_slice_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

/// The number of places that a tag's lower bits can name.
pub(crate) const PLACES: u32 = 1 << 20;

/// Places in the first chunk of a table. Each further chunk has twice as many as the one before.
const FIRST: usize = 1024;
const CHUNKS: usize = (PLACES as usize / FIRST).ilog2() as usize + 1;

/// One CPU's table: for each place of a tag, `N` amounts.
#[derive(Debug, Default)]
pub(crate) struct ByTag<const N: usize> {
    chunks: [Chunk<N>; CHUNKS],
}

/// INVARIANT: a counter never falls. Only the CPU's own thread writes it, except in a table that threads share, which all of them
/// write by `add_shared`.
type Chunk<const N: usize> = OnceLock<Box<[[AtomicU64; N]]>>;

/// The number of chunks that every table has.
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

/// Says that all tables shall have room for a place. Returns whether some may lack it.
pub(crate) fn want_room(place: usize) -> bool {
    let (chunk, _) = locate(place);
    // Relaxed: the fences order it.
    let is_new = ROOM.fetch_max(chunk + 1, Ordering::Relaxed) <= chunk;
    if is_new {
        // SeqCst: pairs with the fence in `make_all_room`.
        fence(Ordering::SeqCst);
    }
    is_new
}

impl<const N: usize> ByTag<N> {
    /// An empty table without room.
    pub(super) const fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS] }
    }

    /// Makes the room that all tables have.
    pub(super) fn make_all_room(&self)
    where
        [AtomicU64; N]: bytemuck::Zeroable,
    {
        // SeqCst: pairs with the fence in `want_room`. Whoever wants more room after this fence finds this CPU.
        fence(Ordering::SeqCst);
        // Relaxed: the fences order it.
        for (chunk, cells) in self.chunks.iter().enumerate().take(ROOM.load(Ordering::Relaxed)) {
            cells.get_or_init(|| zeroed_slice_box(FIRST << chunk));
        }
    }

    /// Adds to an amount of a tag. Only the CPU's own thread calls this.
    #[inline(always)]
    pub(super) fn add(&self, tag: u32, amount: usize, more: u64) {
        if let Some(cell) = self.of(tag) {
            add(&cell[amount], more);
        }
    }

    /// The amounts of a tag, to be added to by [`add`] and [`add_shared`]. `None` if there is no room.
    #[inline(always)]
    pub(super) fn of(&self, tag: u32) -> Option<&[AtomicU64; N]> {
        self.cell(place_of(tag))
    }

    #[inline(always)]
    fn cell(&self, place: usize) -> Option<&[AtomicU64; N]> {
        let (chunk, at) = locate(place);
        Some(&self.chunks[chunk].get()?[at])
    }

    pub(super) fn of_place(&self, place: usize) -> [u64; N] {
        self.cell(place).map_or([0; N], read)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = [u64; N]> {
        self.chunks.iter().map_while(OnceLock::get).flatten().map(read)
    }

    /// Adds all amounts to sums by place.
    pub(super) fn add_to(&self, sums: &mut Vec<[u64; N]>) {
        for (place, amounts) in self.all().enumerate() {
            if sums.len() == place {
                sums.push([0; N]);
            }
            sums[place].iter_mut().zip(amounts).for_each(|(sum, amount)| *sum += amount);
        }
    }
}

/// Adds to an amount in a CPU's own table.
#[inline(always)]
pub(super) fn add(amount: &AtomicU64, more: u64) {
    // Relaxed: readers see the old or the new value.
    amount.store(amount.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

/// Adds to an amount in a table that threads share.
pub(super) fn add_shared(amount: &AtomicU64, more: u64) {
    // Relaxed: readers see the old or the new value.
    amount.fetch_add(more, Ordering::Relaxed);
}

fn read<const N: usize>(cell: &[AtomicU64; N]) -> [u64; N] {
    // Relaxed: figures.
    std::array::from_fn(|amount| cell[amount].load(Ordering::Relaxed))
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
        let by_tag = ByTag::<2>::default();
        let sum = || by_tag.all().flatten().sum::<u64>();
        by_tag.add(7, 0, 1);
        assert_eq!(sum(), 0, "no room, and no harm");
        want_room(FIRST + 1);
        assert!(!want_room(FIRST + 1), "it is known already");
        by_tag.make_all_room();
        by_tag.add(7, 0, 2);
        by_tag.add(7 | 5 << 20, 0, 3);
        add_shared(&by_tag.of(7).unwrap()[1], 6);
        by_tag.add(FIRST as u32 + 1, 1, 4);
        assert_eq!(by_tag.of_place(7), [5, 6], "the place, whatever stands above it");
        assert_eq!(by_tag.of_place(FIRST + 1), [0, 4]);
        let mut sums = vec![[1, 0]; 8];
        by_tag.add_to(&mut sums);
        assert_eq!((sums[7], sums[8], sums[FIRST + 1]), ([6, 6], [0, 0], [0, 4]));
        assert_eq!(sum(), 15);
    }
}
