//! The counts of tasks that have ended, kept so that a walk over the living counts nobody twice.
//!
//! A walk reads the living one by one; meanwhile some of them end, and their counts move here. Those that the walk
//! has seen must not be counted again, those that it has not seen must not be missed. So there are two banks: what
//! ended without having been seen by the latest walk is *settled*; what that walk had seen first is set aside until
//! the next.

use crate::pmu::Count;

/// A number of tasks and the sum of their counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals<C> {
    pub(crate) tasks: u64,
    pub(crate) count: C,
}

/// The ended tasks of one spawn path, or of one event's family. Used under a lock, which also covers the living's marks.
///
/// INVARIANT: `aside` holds exactly the tasks that were folded after `walk` had seen them; every other folded task is
/// in `settled`. A walk with a higher number finds `aside` settled.
#[derive(Debug, Default)]
pub(crate) struct Tally<C> {
    settled: Totals<C>,
    aside: Totals<C>,
    walk: u64,
}

impl<C: Count> Tally<C> {
    /// Adds a task that ends. `seen_in_walk` is the last walk that has read it while it lived; 0 for none.
    pub(crate) fn fold(&mut self, seen_in_walk: u64, count: &C) {
        if seen_in_walk > self.walk {
            let old = std::mem::take(&mut self.aside);
            self.settled.add(&old);
            self.walk = seen_in_walk;
        }
        let bank = if seen_in_walk != 0 && seen_in_walk == self.walk {
            &mut self.aside
        } else {
            &mut self.settled
        };
        bank.add(&Totals { tasks: 1, count: count.clone() });
    }

    /// The ended tasks that `walk`, which is the latest, has not seen among the living.
    pub(crate) fn total_beside(&self, walk: u64) -> Totals<C> {
        let mut total = self.settled.clone();
        if self.walk != walk {
            total.add(&self.aside);
        }
        total
    }
}

impl<C: Count> Totals<C> {
    fn add(&mut self, other: &Self) {
        self.tasks += other.tasks;
        self.count.add(&other.count);
    }
}

#[cfg(all(test, not(pertask_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_task_seen_by_a_walk_is_not_counted_beside_it() {
        let mut tally = Tally::<u64>::default();
        tally.fold(0, &10);
        // Walk 1 has seen this one alive; it ends before the walk reads the tally.
        tally.fold(1, &5);
        assert_eq!(tally.total_beside(1).count, 10);
        assert_eq!(tally.total_beside(2).count, 15);
    }

    #[test]
    fn a_task_seen_by_an_older_walk_is_settled() {
        let mut tally = Tally::<u64>::default();
        tally.fold(2, &1);
        tally.fold(1, &10);
        assert_eq!(tally.total_beside(2).count, 10);
        assert_eq!(tally.total_beside(3).count, 11);
        tally.fold(3, &100);
        assert_eq!(tally.total_beside(3).count, 11);
        assert_eq!(tally.total_beside(4).count, 111);
        assert_eq!(tally.total_beside(4).tasks, 3);
    }
}
