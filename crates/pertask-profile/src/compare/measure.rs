//! What is compared: one of the amounts that samples stand for. It is chosen here and nowhere else.

use super::super::{Amount, Sample};

/// An amount that samples stand for, by which profiles are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Measure {
    /// CPU time, in nanoseconds.
    #[default]
    Cpu,
}

impl Measure {
    /// Returns this one of the amounts.
    #[must_use]
    pub fn of(self, amount: Amount) -> u64 {
        match self {
            Self::Cpu => amount.time_ns,
        }
    }

    /// Sets a sample's amount.
    pub(super) fn set(self, sample: &mut Sample, value: u64) {
        match self {
            Self::Cpu => sample.time_ns = value,
        }
    }

    /// Returns what it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU time",
        }
    }

    /// Returns an amount in words, such as `1.50 ms`.
    #[must_use]
    pub fn shown(self, value: u64) -> String {
        match self {
            Self::Cpu => pertask_text::human::duration_ns(value),
        }
    }
}
