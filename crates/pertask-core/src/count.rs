//! The counts that an event reads.

/// The counts that an event reads: added up over tasks, and subtracted over time.
pub trait Count: Clone + Default + Send + Sync + 'static {
    /// Adds the counts of another task.
    fn add(&mut self, other: &Self);

    /// The counts that were added since `base` was read from the same source.
    #[must_use]
    fn since(&self, base: &Self) -> Self;
}

/// A PMU without counts.
impl Count for () {
    fn add(&mut self, (): &Self) {}
    fn since(&self, (): &Self) -> Self {}
}

/// A plain sum.
impl Count for u64 {
    fn add(&mut self, other: &Self) {
        *self = self.wrapping_add(*other);
    }
    fn since(&self, base: &Self) -> Self {
        self.saturating_sub(*base)
    }
}
