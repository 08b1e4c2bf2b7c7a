//! Dividing what the clock or the counters know as a whole by what samples say of its parts.

/// An amount that is divided into parts, which stand in the same proportion as others and add up to the whole.
#[derive(Clone, Copy, Default)]
pub(super) struct Division {
    whole: u64,
    /// The sum of those others.
    pub(super) all: u128,
    so_far: u128,
}

impl Division {
    pub(super) fn of(whole: u64) -> Self {
        Self { whole, ..Self::default() }
    }

    /// The part that belongs to this one of the others.
    pub(super) fn next(&mut self, other: u64) -> u64 {
        let before = self.up_to();
        self.so_far += u128::from(other);
        self.up_to() - before
    }

    fn up_to(&self) -> u64 {
        let part = u128::from(self.whole) * self.so_far / self.all.max(1);
        u64::try_from(part).unwrap_or(u64::MAX)
    }

    /// Takes so much of the whole away, or what there is. What is known of labels may have been read a moment after that of their path.
    pub(super) fn take(&mut self, amount: u64) -> u64 {
        let taken = amount.min(self.whole);
        self.whole -= taken;
        taken
    }

    /// What has no parts.
    pub(super) fn rest(&self) -> u64 {
        if self.all == 0 { self.whole } else { 0 }
    }
}
