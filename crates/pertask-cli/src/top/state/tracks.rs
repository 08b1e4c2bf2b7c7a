//! What is remembered of each row from report to report, by the row's identity.
//!
//! A row that is missing from a report and comes back later is measured from when it was last seen, so that its whole past is not
//! taken for the work of a second.

use std::{collections::HashMap, hash::Hash};

/// So many absent rows are remembered, whatever the number of those that are present.
const MOST_ABSENT: usize = 1_000;

/// The time from one report to the next, both by the clock of the session.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The last report's time, or 0 if there was none.
    pub before_ns: u64,
    /// This report's time.
    pub now_ns: u64,
}

/// What is remembered, a `T` for each row.
#[derive(Clone, Debug)]
pub struct Tracks<K, T> {
    by_key: HashMap<K, Seen<T>>,
}

#[derive(Clone, Debug)]
struct Seen<T> {
    at_ns: u64,
    track: T,
}

impl Step {
    /// Returns the seconds of this step.
    pub fn seconds(self) -> f64 {
        self.seconds_since(self.before_ns)
    }

    fn seconds_since(self, then_ns: u64) -> f64 {
        self.now_ns.saturating_sub(then_ns) as f64 / 1e9
    }
}

impl<K: Eq + Hash, T: Copy + Default> Tracks<K, T> {
    /// Lets `measure` bring a row's track up to date, given the seconds since the row was last seen. Returns the new track.
    ///
    /// A row that was never seen had used nothing before: it is measured from the last report on.
    pub fn advance(&mut self, key: K, step: Step, measure: impl FnOnce(&mut T, f64)) -> T {
        let new = Seen { at_ns: step.before_ns, track: T::default() };
        let seen = self.by_key.entry(key).or_insert(new);
        measure(&mut seen.track, step.seconds_since(seen.at_ns));
        seen.at_ns = step.now_ns;
        seen.track
    }

    /// Lets `restart` begin each row's counters anew, in a session that has no rows yet.
    pub fn restart(&mut self, restart: impl Fn(&mut T)) {
        for seen in self.by_key.values_mut() {
            seen.at_ns = 0;
            restart(&mut seen.track);
        }
    }

    /// Forgets the rows that are not in the report of this step, if they are many. `present` is the number of those that are.
    pub fn forget_absent(&mut self, present: usize, step: Step) {
        if self.by_key.len() > present + MOST_ABSENT {
            self.by_key.retain(|_, seen| seen.at_ns == step.now_ns);
        }
    }
}

impl<K, T> Default for Tracks<K, T> {
    fn default() -> Self {
        Self { by_key: HashMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(tracks: &mut Tracks<u32, f64>, key: u32, before_ns: u64, now_ns: u64) -> f64 {
        tracks.advance(key, Step { before_ns, now_ns }, |track, seconds| *track = seconds)
    }

    #[test]
    fn a_row_is_measured_from_when_it_was_last_seen() {
        let mut tracks = Tracks::default();
        assert_eq!(seconds(&mut tracks, 1, 0, 2_000_000_000), 2.0);
        assert_eq!(seconds(&mut tracks, 1, 2_000_000_000, 3_000_000_000), 1.0);
        assert_eq!(seconds(&mut tracks, 1, 9_000_000_000, 10_000_000_000), 7.0);
        assert_eq!(seconds(&mut tracks, 2, 9_000_000_000, 10_000_000_000), 1.0);
    }

    #[test]
    fn in_a_new_session_a_row_is_measured_from_its_start() {
        let mut tracks = Tracks::default();
        seconds(&mut tracks, 1, 0, 9_000_000_000);
        tracks.restart(|track| assert_eq!(std::mem::take(track), 9.0));
        assert_eq!(seconds(&mut tracks, 1, 1_000_000_000, 2_000_000_000), 2.0);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut tracks = Tracks::default();
        for key in 0..10_000 {
            let now_ns = u64::from(key) + 1;
            seconds(&mut tracks, key, now_ns - 1, now_ns);
            tracks.forget_absent(1, Step { before_ns: now_ns - 1, now_ns });
            assert!(tracks.by_key.len() <= MOST_ABSENT + 1);
        }
    }
}
