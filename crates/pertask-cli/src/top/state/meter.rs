//! A counter that only grows, and how fast it does.

/// The last value of a counter, and its growth since the value before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Meter {
    total: u64,
    /// `None` where the counter went back: nobody knows what was counted before it began anew.
    grown: Option<u64>,
    seconds: f64,
}

impl Meter {
    /// Takes the counter's next value, so many seconds after the last one.
    pub fn advance(&mut self, total: u64, seconds: f64) {
        let grown = total.checked_sub(self.total);
        *self = Self { total, grown, seconds };
    }

    /// Returns the last value.
    pub fn total(self) -> u64 {
        self.total
    }

    /// Returns by how much the counter has grown, or `None` if that is not known.
    pub fn grown(self) -> Option<u64> {
        self.grown.filter(|_| self.seconds > 0.0)
    }

    /// Returns the growth of a second.
    pub fn per_second(self) -> Option<f64> {
        self.grown().map(|grown| grown as f64 / self.seconds)
    }

    /// Returns the growth of a counter of nanoseconds, in percent of the time that passed: of one CPU, for CPU time.
    pub fn percent_of_time(self) -> Option<f64> {
        self.per_second().map(|ns| ns / 1e7)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_growth_over_the_time_that_passed() {
        let mut meter = Meter::default();
        meter.advance(1_000_000_000, 10.0);
        assert_eq!(meter.percent_of_time(), Some(10.0));
        meter.advance(1_500_000_000, 0.5);
        assert_eq!(meter.percent_of_time(), Some(100.0));
        meter.advance(1_500_000_000, 4.0);
        assert_eq!(meter.per_second(), Some(0.0));
    }

    #[test]
    fn a_counter_that_goes_back_has_no_rate_until_it_grows_again() {
        let mut meter = Meter::default();
        meter.advance(100, 1.0);
        meter.advance(40, 1.0);
        assert_eq!((meter.per_second(), meter.total()), (None, 40));
        meter.advance(50, 1.0);
        assert_eq!(meter.per_second(), Some(10.0));
    }

    #[test]
    fn no_time_gives_no_rate() {
        let mut meter = Meter::default();
        meter.advance(100, 0.0);
        assert_eq!((meter.per_second(), Meter::default().per_second()), (None, None));
    }
}
