//! The waits of a session, added up by place.

use super::handler::{COMPLETE, FIBER, HEAD, TAG_SHIFT, TRUNCATED};
use super::profile::RawWait;
use super::waits::{HOLDS, MORE};
use crate::tasks::accounts;
use std::collections::HashMap;
use std::sync::Arc;

/// The waits of a session.
#[derive(Clone)]
pub(super) struct Waits {
    /// When the session began.
    since_ns: u64,
    all: HashMap<Place, RawWait>,
}

/// Where tasks of one spawn path waited, and who woke them, or holds what they wait for.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    /// The address of the stack: equal stacks share their memory.
    stack: usize,
    path: u32,
    tag: u32,
    by: u64,
}

impl Place {
    fn of(seen: &Seen<'_>, stack: &[u64]) -> Self {
        let Seen { path, tag, by, .. } = *seen;
        Self { stack: stack.as_ptr().addr(), path, tag, by }
    }
}

/// A wait as its words tell it.
pub(super) struct Seen<'a> {
    flags: u64,
    path: u32,
    tag: u32,
    /// The task's spawn path, as its number plus one, and whether it [holds](HOLDS) what is waited for.
    by: u64,
    stands_for: u64,
    waiting_ns: u64,
    ready_ns: u64,
    pub(super) addresses: &'a [u64],
}

impl Waits {
    /// The bytes that a place takes. Tables grow by doubling.
    pub(super) const PLACE_BYTES: usize = 2 * size_of::<(Place, RawWait)>();

    pub(super) fn since(since_ns: u64) -> Self {
        Self { since_ns, all: HashMap::new() }
    }

    /// Reads a wait, as far as it belongs to the session. `None` if nothing of it does.
    pub(super) fn see<'a>(&self, words: &'a [u64]) -> Option<Seen<'a>> {
        let [flags, _, end_ns, _, _, path, by] = *words.first_chunk::<HEAD>()?;
        let [since_ns, woken_ns] = *words.get(HEAD..)?.first_chunk::<MORE>()?;
        let since_ns = since_ns.max(self.since_ns);
        let woken_ns =
            if woken_ns == 0 { end_ns } else { woken_ns }.clamp(since_ns, end_ns.max(since_ns));
        (end_ns > since_ns).then(|| Seen {
            flags,
            path: (path as u32).wrapping_sub(1),
            tag: (path >> TAG_SHIFT) as u32,
            by,
            stands_for: flags >> 32,
            waiting_ns: woken_ns - since_ns,
            ready_ns: end_ns - woken_ns,
            addresses: &words[HEAD + MORE..],
        })
    }

    /// Whether there were such waits before.
    pub(super) fn knows(&self, seen: &Seen<'_>, stack: &[u64]) -> bool {
        self.all.contains_key(&Place::of(seen, stack))
    }

    pub(super) fn add(&mut self, seen: &Seen<'_>, stack: Arc<[u64]>) {
        let Seen { path, tag, by, stands_for, .. } = *seen;
        let by_path = |holds| (by as u32).checked_sub(1).filter(|_| (by & HOLDS != 0) == holds);
        let place = Place::of(seen, &stack);
        let new = || RawWait {
            path,
            labels: accounts::labels_of(tag),
            woken_by: by_path(false),
            held_by: by_path(true),
            count: 0,
            seen: 0,
            waiting_ns: 0,
            ready_ns: 0,
            stack,
            complete: seen.flags & COMPLETE != 0,
            truncated: seen.flags & TRUNCATED != 0,
            fiber: seen.flags & FIBER != 0,
        };
        let wait = self.all.entry(place).or_insert_with(new);
        wait.count += stands_for;
        wait.seen += 1;
        wait.waiting_ns =
            wait.waiting_ns.saturating_add(seen.waiting_ns.saturating_mul(stands_for));
        wait.ready_ns = wait.ready_ns.saturating_add(seen.ready_ns.saturating_mul(stands_for));
    }

    /// All waits, longest first.
    pub(super) fn finish(self) -> Vec<RawWait> {
        let mut all: Vec<_> = self.all.into_values().collect();
        all.sort_by_key(|wait| std::cmp::Reverse(wait.waiting_ns));
        all
    }
}
