//! A figure that never falls.

/// The highest value that a figure has been shown with.
///
/// A reading may have a little less than the one before it: it reads what has been charged and what is under way one after the
/// other, and the clock's estimate of stolen time may be corrected. Such a figure keeps its last value until it is higher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown(u64);

impl Shown {
    pub(super) fn raise(&mut self, now: u64) {
        self.0 = self.0.max(now);
    }

    pub(super) fn get(self) -> u64 {
        self.0
    }
}
