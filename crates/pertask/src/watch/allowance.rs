//! How much may be done in a second.

use crate::report::BlockedState;
use std::collections::HashSet;

/// What makes polls alike: the number of their site, and what their workers do.
pub(super) type Kind = (u32, BlockedState);

/// So many a second.
#[derive(Debug)]
pub(super) struct Quota {
    a_second: usize,
    second: u64,
    taken: usize,
}

/// So many stacks a second, of which half are for kinds of polls that had none in that second. So polls that are frequent leave some
/// to those that are rare.
#[derive(Debug)]
pub(super) struct Allowance {
    quota: Quota,
    kinds: HashSet<Kind>,
}

impl Quota {
    pub(super) fn new(a_second: usize) -> Self {
        Self { a_second, second: 0, taken: 0 }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now_ns: u64) -> bool {
        self.begin(now_ns);
        self.take_of(self.a_second)
    }

    /// Returns whether a new second has begun.
    fn begin(&mut self, now_ns: u64) -> bool {
        let second = now_ns / 1_000_000_000;
        let is_new = self.second != second;
        if is_new {
            (self.second, self.taken) = (second, 0);
        }
        is_new
    }

    /// Takes one, if fewer than `most` are taken.
    fn take_of(&mut self, most: usize) -> bool {
        let is_there = self.taken < most;
        self.taken += usize::from(is_there);
        is_there
    }
}

impl Allowance {
    pub(super) fn new(a_second: u32) -> Self {
        Self { quota: Quota::new(a_second as usize), kinds: HashSet::new() }
    }

    /// Takes one for a poll of this kind, if there is one.
    pub(super) fn take(&mut self, now_ns: u64, kind: Kind) -> bool {
        if self.quota.begin(now_ns) {
            self.kinds.clear();
        }
        let all = self.quota.a_second;
        let most = if self.kinds.contains(&kind) { all.div_ceil(2) } else { all };
        let is_there = self.quota.take_of(most);
        if is_there {
            // There are no more kinds than stacks.
            self.kinds.insert(kind);
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_taken_than_a_second_allows() {
        let mut allowance = Allowance::new(8);
        let mut taken = |at_ms: u64, sites: std::ops::Range<u32>| {
            let mut of_site =
                |site| allowance.take(at_ms * 1_000_000, (site, BlockedState::Blocked));
            sites.filter(|site| of_site(*site)).count()
        };
        assert_eq!(taken(5_000, 0..100), 8);
        assert_eq!(taken(5_900, 100..200), 0);
        assert_eq!(taken(6_000, 0..3), 3);
        assert!(!Allowance::new(0).take(1, (1, BlockedState::Blocked)));
    }

    #[test]
    fn frequent_polls_leave_some_to_rare_ones() {
        let mut allowance = Allowance::new(8);
        let mut take = |site, state| allowance.take(7, (site, state));
        assert_eq!((0..100).filter(|_| take(1, BlockedState::NotScheduled)).count(), 4);
        assert!(take(1, BlockedState::Blocked) && take(2, BlockedState::NotScheduled));
        assert!(!take(1, BlockedState::NotScheduled));
    }
}
