//! Counts: plain numbers, one for each place of a set, and how long each group ran.

use crate::os::perf::{self, Times};
use pertask_core::Count;

/// The most events in a set.
pub(crate) const MAX_COLUMNS: usize = perf::MAX_MEMBERS;
/// The most groups in a set: hardware events are split into several where the processor has too few counters for all at once, and
/// software events are one group.
pub(super) const MAX_GROUPS: usize = 5;

/// The counts of one task, or of several, which [`Counters::values`](super::Counters::values) gives their meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterCounts(pub(super) Counts);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) counts: [u64; MAX_COLUMNS],
    pub(super) times: [Times; MAX_GROUPS],
    /// The number of stints that were counted, and of those that could not be.
    pub(super) stints: u64,
    pub(super) lost: u64,
}

/// The count in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Exact(u64),
    /// The count, scaled up to the time in which the event was meant to count.
    Scaled(u64),
    /// The event's group never had its turn in the counters.
    NeverRan,
}

impl Counts {
    /// What was counted since `base`, a reading of the same bank.
    pub(super) fn since(&self, base: &Self) -> Self {
        self.zip(base, u64::saturating_sub)
    }

    pub(super) fn add(&mut self, other: &Self) {
        *self = self.zip(other, u64::wrapping_add);
    }

    fn zip(&self, other: &Self, op: impl Fn(u64, u64) -> u64) -> Self {
        let mut result = Self::default();
        for (place, count) in result.counts.iter_mut().enumerate() {
            *count = op(self.counts[place], other.counts[place]);
        }
        for (group, times) in result.times.iter_mut().enumerate() {
            let (ours, theirs) = (self.times[group], other.times[group]);
            times.enabled_ns = op(ours.enabled_ns, theirs.enabled_ns);
            times.running_ns = op(ours.running_ns, theirs.running_ns);
        }
        result.stints = op(self.stints, other.stints);
        result.lost = op(self.lost, other.lost);
        result
    }

    /// The count in a place that belongs to a group.
    pub(super) fn of_group(&self, place: usize, group: usize) -> Value {
        let (count, times) = (self.counts[place], self.times[group]);
        if times.running_ns >= times.enabled_ns {
            return Value::Exact(count);
        }
        if times.running_ns == 0 {
            return if count == 0 { Value::NeverRan } else { Value::Scaled(count) };
        }
        let scaled =
            u128::from(count) * u128::from(times.enabled_ns) / u128::from(times.running_ns);
        Value::Scaled(u64::try_from(scaled).unwrap_or(u64::MAX))
    }
}

impl Count for CounterCounts {
    fn add(&mut self, other: &Self) {
        self.0.add(&other.0);
    }

    fn since(&self, base: &Self) -> Self {
        Self(self.0.since(&base.0))
    }
}

/// What [`Counters`](super::Counters) could not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountersLost {
    /// The turns of tasks that were not counted, since the program began.
    pub turns: u64,
    /// The workers whose counters could not be opened, at this moment.
    ///
    /// The turns on them are not counted.
    pub workers: u64,
    /// Why the counters of the last such worker could not be opened.
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(count: u64, enabled_ns: u64, running_ns: u64) -> Counts {
        let mut counts = Counts::default();
        counts.counts[0] = count;
        counts.times[0] = Times { enabled_ns, running_ns };
        counts
    }

    #[test]
    fn what_ran_all_the_time_is_exact() {
        assert_eq!(counted(7, 100, 100).of_group(0, 0), Value::Exact(7));
        assert_eq!(
            counted(7, 0, 0).of_group(0, 0),
            Value::Exact(7),
            "less than the kernel's clock"
        );
    }

    #[test]
    fn what_ran_for_a_part_is_scaled_and_what_never_ran_is_not_zero() {
        assert_eq!(counted(50, 100, 25).of_group(0, 0), Value::Scaled(200));
        assert_eq!(counted(0, 100, 0).of_group(0, 0), Value::NeverRan);
        let huge = counted(u64::MAX, u64::MAX, 1).of_group(0, 0);
        assert_eq!(huge, Value::Scaled(u64::MAX), "no overflow");
    }

    #[test]
    fn shares_of_several_tasks_are_scaled_together() {
        let mut sum = counted(10, 100, 100);
        sum.add(&counted(10, 100, 50).since(&counted(0, 0, 0)));
        assert_eq!(sum.of_group(0, 0), Value::Scaled(26));
    }
}
