//! The sampled allocations of a session, added up by place.

use super::handler::{COMPLETE, FIBER, HEAD, TAG_SHIFT, TRUNCATED};
use super::profile::RawAllocation;
use crate::pmus::memory::sampling::stands_for;
use crate::tasks::accounts;
use std::collections::HashMap;
use std::sync::Arc;

/// The sampled allocations of a session.
#[derive(Clone, Default)]
pub(super) struct Allocations(HashMap<Place, Sum>);

/// Where tasks of one spawn path allocate; or workers outside tasks, without one.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    /// The address of the stack: equal stacks share their memory.
    stack: usize,
    path: Option<u32>,
    tag: u32,
}

#[derive(Clone)]
struct Sum {
    flags: u64,
    stack: Arc<[u64]>,
    seen: u64,
    count: f64,
    bytes: f64,
}

/// An allocation as its words tell it.
pub(super) struct Seen<'a> {
    flags: u64,
    bytes: u64,
    path: Option<u32>,
    tag: u32,
    pub(super) addresses: &'a [u64],
}

impl Seen<'_> {
    fn place(&self, stack: &[u64]) -> Place {
        Place { stack: stack.as_ptr().addr(), path: self.path, tag: self.tag }
    }
}

/// Reads an allocation. `None` where the words are none.
pub(super) fn seen(words: &[u64]) -> Option<Seen<'_>> {
    let [flags, _, bytes, _, _, path, scopes] = *words.first_chunk::<HEAD>()?;
    let scope_words = (scopes as u32 as usize).div_ceil(2);
    let addresses = words.get(HEAD + scope_words..)?;
    let (path, tag) = ((path as u32).checked_sub(1), (path >> TAG_SHIFT) as u32);
    Some(Seen { flags, bytes, path, tag, addresses })
}

impl Allocations {
    /// The bytes that a place takes. Tables grow by doubling.
    pub(super) const PLACE_BYTES: usize = 2 * size_of::<(Place, Sum)>();

    /// Whether there were such allocations before.
    pub(super) fn knows(&self, seen: &Seen<'_>, stack: &[u64]) -> bool {
        self.0.contains_key(&seen.place(stack))
    }

    pub(super) fn add(&mut self, seen: &Seen<'_>, stack: Arc<[u64]>) {
        let place = seen.place(&stack);
        let new = || Sum { flags: seen.flags, stack, seen: 0, count: 0.0, bytes: 0.0 };
        let sum = self.0.entry(place).or_insert_with(new);
        let (count, bytes) = stands_for(seen.bytes);
        (sum.seen, sum.count, sum.bytes) = (sum.seen + 1, sum.count + count, sum.bytes + bytes);
    }

    /// All allocations, most bytes first.
    pub(super) fn finish(self) -> Vec<RawAllocation> {
        let all = self.0.into_iter().map(|(Place { path, tag, .. }, sum)| RawAllocation {
            path,
            labels: accounts::labels_of(tag),
            count: sum.count.round() as u64,
            bytes: sum.bytes.round() as u64,
            seen: sum.seen,
            stack: sum.stack,
            complete: sum.flags & COMPLETE != 0,
            truncated: sum.flags & TRUNCATED != 0,
            fiber: sum.flags & FIBER != 0,
        });
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|allocation| std::cmp::Reverse(allocation.bytes));
        all
    }
}
