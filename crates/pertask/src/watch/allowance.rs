//! How many stacks may be taken now.

use crate::report::BlockedState;
use std::collections::HashSet;

/// What makes polls alike: the number of their site, and what their workers do.
pub(super) type Kind = (u32, BlockedState);

/// So many stacks a second, of which half are for kinds of polls that had none in that second. So polls that are frequent leave some
/// to those that are rare.
#[derive(Debug)]
pub(super) struct Allowance {
    a_second: usize,
    second: u64,
    taken: usize,
    kinds: HashSet<Kind>,
}

impl Allowance {
    pub(super) fn new(a_second: u32) -> Self {
        let a_second = a_second as usize;
        Self { a_second, second: 0, taken: 0, kinds: HashSet::new() }
    }

    /// Takes one for a poll of this kind, if there is one.
    pub(super) fn take(&mut self, now_ns: u64, kind: Kind) -> bool {
        let second = now_ns / 1_000_000_000;
        if self.second != second {
            (self.second, self.taken) = (second, 0);
            self.kinds.clear();
        }
        let is_new = !self.kinds.contains(&kind);
        let most = if is_new { self.a_second } else { self.a_second.div_ceil(2) };
        if self.taken >= most {
            return false;
        }
        self.taken += 1;
        // No more kinds than stacks.
        self.kinds.insert(kind);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_taken_than_a_second_allows() {
        let mut allowance = Allowance::new(8);
        let mut taken = |at_ms: u64, sites: std::ops::Range<u32>| {
            let of_site = |site| allowance.take(at_ms * 1_000_000, (site, BlockedState::Blocked));
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
