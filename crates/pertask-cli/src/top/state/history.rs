//! The last values of a rate, for a picture as small as a word.

/// The number of values that are kept.
pub const LENGTH: usize = 30;

/// The last [`LENGTH`] values, in a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct History {
    values: [f32; LENGTH],
    len: usize,
    next: usize,
}

impl History {
    /// Adds the newest value, in place of the oldest if there is no room.
    pub fn push(&mut self, value: f64) {
        self.values[self.next] = value as f32;
        self.next = (self.next + 1) % LENGTH;
        self.len = (self.len + 1).min(LENGTH);
    }

    /// Returns the newest values, at most `most`, the oldest of them first.
    pub fn last(&self, most: usize) -> impl Iterator<Item = f32> {
        let len = self.len.min(most);
        (0..len).map(move |at| self.values[(self.next + LENGTH - len + at) % LENGTH])
    }

    /// Returns the sum of all values.
    pub fn sum(&self) -> f64 {
        self.last(LENGTH).map(f64::from).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_values_are_kept_in_order() {
        let mut history = History::default();
        assert_eq!(history.last(5).count(), 0);
        for value in 0..100 {
            history.push(f64::from(value));
        }
        assert_eq!(history.last(3).collect::<Vec<_>>(), [97.0, 98.0, 99.0]);
        assert_eq!(history.last(1_000).collect::<Vec<_>>().len(), LENGTH);
        assert_eq!(history.last(LENGTH).next(), Some(70.0));
    }
}
