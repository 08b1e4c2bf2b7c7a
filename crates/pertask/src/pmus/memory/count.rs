//! What was allocated and freed, as plain numbers.

use pertask_core::Count;

/// What was allocated and freed, in bytes and in calls of the global allocator.
///
/// Bytes are those that the program asked for. The allocator may take more. A reallocation frees the old size and allocates the
/// new one: it is one call of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct MemoryCount {
    /// Bytes that were allocated.
    pub allocated_bytes: u64,
    /// The number of allocations.
    pub allocations: u64,
    /// Bytes that were freed, whoever had allocated them.
    pub freed_bytes: u64,
    /// The number of times that memory was freed.
    pub frees: u64,
}

impl MemoryCount {
    fn with(self, other: Self, both: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            allocated_bytes: both(self.allocated_bytes, other.allocated_bytes),
            allocations: both(self.allocations, other.allocations),
            freed_bytes: both(self.freed_bytes, other.freed_bytes),
            frees: both(self.frees, other.frees),
        }
    }

    /// The sum of two counts.
    pub(crate) fn plus(self, other: Self) -> Self {
        self.with(other, u64::wrapping_add)
    }

    /// What this count has beyond the other, number by number, and not less than nothing.
    pub(crate) fn beyond(self, other: Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    /// The smaller of two counts, number by number.
    pub(crate) fn at_most(self, other: Self) -> Self {
        self.with(other, u64::min)
    }
}

impl Count for MemoryCount {
    fn add(&mut self, other: &Self) {
        *self = self.plus(*other);
    }

    fn since(&self, base: &Self) -> Self {
        self.beyond(*base)
    }
}
