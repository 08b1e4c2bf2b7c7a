//! Where lives are charged to tags: in the books of the CPU that ends a task's state.
//!
//! A state may have lasted an hour when it ends. A reading that adds up what is charged, and then the states that go on, must not
//! count that hour twice because the state ends in between, nor miss it. So readings cut time in two. What tasks are charged before
//! a cut is in one bank of the books, which nobody writes after it. What they are charged after it is in the other bank. A task
//! remembers, at its first change after a cut, what it had been charged by then. So a reading can tell for each task what was
//! not charged at the cut: see [`Cut`](super::cut::Cut).

use super::count::Part;
use crate::pmus::by_tag::{self, ByTag};
use crate::sync::{AtomicU32, AtomicU64, Ordering, global};

/// What one CPU has charged to tags.
#[derive(Debug, Default)]
pub(super) struct Banks {
    /// A bank for cuts with even numbers, and one for those with odd numbers.
    banks: [ByTag<{ Part::COUNT }>; 2],
}

global! {
    /// What threads have charged that are no CPUs, such as one that drops a task which ran elsewhere. They share it.
    pub(super) static SHARED: Banks = Banks { banks: [ByTag::new(), ByTag::new()] };
}

global! {
    /// The number of the latest cut, from 1 on.
    static LATEST: AtomicU32 = AtomicU32::new(1);
}

/// The number of the latest cut.
///
/// Whoever charges by it asks and charges in one section. So nobody writes to the bank of a cut any more once all sections have ended
/// that ran when the next cut began. Whoever begins a cut has the turn, so nobody else changes the number meanwhile.
#[inline(always)]
pub(super) fn latest_cut() -> u32 {
    // Relaxed: a thread that finds the number of the cut before is in a section, for which `Cut::begin` waits before it reads the bank.
    LATEST.load(Ordering::Relaxed)
}

/// Begins a new cut. Once all sections have ended that run now, nobody writes to the bank of the cut before. The caller waits for
/// them.
pub(super) fn begin_cut(number: u32) {
    // Release: pairs with the Acquire in `note_end`, so that who knows of the cut knows that it is being read.
    LATEST.store(number, Ordering::Release);
}

/// Where a task's state is charged that ends.
///
/// INVARIANT: [`own`](Self::own) only on the thread of that CPU.
#[derive(Clone, Copy)]
pub(super) struct Books<'a> {
    books: &'a Banks,
    add: fn(&AtomicU64, u64),
}

/// The account of a tag in some books, as long as a section lasts in which a cut was the latest.
#[derive(Clone, Copy)]
pub(super) struct Account<'a> {
    parts: Option<&'a [AtomicU64; Part::COUNT]>,
    add: fn(&AtomicU64, u64),
}

impl<'a> Books<'a> {
    /// The books of the calling thread's CPU.
    #[inline(always)]
    pub(super) fn own(books: &'a Banks) -> Self {
        Self { books, add: by_tag::add }
    }

    /// The books of the calling thread: its CPU's, or those that threads share.
    pub(super) fn here(own: Option<&'a Banks>) -> Self {
        own.map_or(Self { books: &SHARED, add: by_tag::add_shared }, Self::own)
    }

    /// The account of a tag, in the section in which `cut` was the latest cut.
    #[inline(always)]
    pub(super) fn account(self, cut: u32, tag: u32) -> Account<'a> {
        let parts = if tag == 0 { None } else { self.books.bank(cut).of(tag) };
        Account { parts, add: self.add }
    }
}

impl Account<'_> {
    /// Charges a part of a life.
    #[inline(always)]
    pub(super) fn charge(self, part: Part, ns: u64) {
        if let Some(parts) = self.parts {
            (self.add)(&parts[part as usize], ns);
        }
    }
}

impl Banks {
    pub(super) fn make_all_room(&self) {
        self.banks.iter().for_each(ByTag::make_all_room);
    }

    #[inline(always)]
    pub(super) fn bank(&self, cut: u32) -> &ByTag<{ Part::COUNT }> {
        &self.banks[(cut & 1) as usize]
    }

    /// What was charged at a place, whenever.
    pub(super) fn of_place(&self, place: usize) -> [u64; Part::COUNT] {
        let [even, odd] = self.banks.each_ref().map(|bank| bank.of_place(place));
        std::array::from_fn(|part| even[part] + odd[part])
    }
}
