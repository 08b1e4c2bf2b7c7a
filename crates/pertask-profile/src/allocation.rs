//! Memory that was allocated, and where.

use super::{Profile, Sample, Subject};
use std::cmp::Reverse;

/// Allocations that are equal in everything: stack, task and labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// The bytes that were asked for.
    pub bytes: u64,
    /// Whose they were, and where. Its count is the number of allocations, and its time is 0.
    pub sample: Sample,
}

/// What was allocated at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationRow {
    /// The place: the function that asked for memory, and the line of the program's own code that called it.
    pub place: Subject,
    /// The number of allocations.
    pub count: u64,
    /// The bytes that were asked for.
    pub bytes: u64,
}

impl Profile {
    /// Adds up the allocations of each place, most bytes first.
    ///
    /// ```
    /// use pertask_profile::{Allocation, ProfileBuilder, Sample};
    ///
    /// let mut builder = ProfileBuilder::new("by hand", 0);
    /// builder.add_allocation(Allocation { bytes: 4_096, sample: Sample { count: 2, ..Sample::default() } });
    /// let profile = builder.finish(std::time::Duration::from_secs(1));
    /// let rows = profile.allocations_by_place();
    /// assert_eq!((rows.len(), rows[0].count, rows[0].bytes), (1, 2, 4_096));
    /// ```
    #[must_use]
    pub fn allocations_by_place(&self) -> Vec<AllocationRow> {
        let mut of_bytes = self.without_samples();
        // Rows add up what samples stand for, whatever that is. Here it is bytes.
        let of = |it: &Allocation| Sample { time_ns: it.bytes, ..it.sample.clone() };
        of_bytes.samples = self.allocations.iter().map(of).collect();
        let rows = of_bytes.by_place().into_iter().map(|row| AllocationRow {
            place: row.subject,
            count: row.own.samples,
            bytes: row.own.time_ns,
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by(|a, b| {
            Reverse(a.bytes).cmp(&Reverse(b.bytes)).then_with(|| a.place.order(&b.place))
        });
        rows
    }
}
