//! How long one site's tasks were in each of their states.

use super::shown::Shown;
use crate::report::LifeReport;

/// A value of the label `state`, and the time in a report.
type State = (&'static str, fn(&LifeReport) -> u64);

const STATES: [State; 7] = [
    ("on_cpu", |life| life.on_cpu_ns),
    ("blocked", |life| life.blocked_ns),
    ("ready", |life| life.ready_ns),
    ("waiting", |life| life.waiting_ns),
    ("inside", |life| life.inside_ns),
    ("new", |life| life.new_ns),
    ("unknown", |life| life.unknown_ns),
];

/// The time in each state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lives([Shown; STATES.len()]);

/// The times of one report.
#[derive(Clone, Debug, Default)]
pub(super) struct LivesNow([u64; STATES.len()]);

impl LivesNow {
    pub(super) fn add(&mut self, report: &LifeReport) {
        for (sum, (_, ns)) in self.0.iter_mut().zip(STATES) {
            *sum += ns(report);
        }
    }
}

impl Lives {
    /// No state falls, and their sum is the lives all the same. The time in polls is exact, but the clock that divides it is not quite: the
    /// CPU may have more nanoseconds of a poll than the poll had, and time off the CPU then seems to be less than before. It stays, and the
    /// CPU has so much less.
    pub(super) fn raise(&mut self, now: &LivesNow) {
        let [on_cpu, blocked, ..] = self.0.map(|shown| shown.get());
        let mut now = now.0;
        let polled = now[0] + now[1];
        now[0] = now[0].max(on_cpu).min(polled.saturating_sub(blocked));
        now[1] = polled - now[0];
        for (shown, now) in self.0.iter_mut().zip(now) {
            shown.raise(now);
        }
    }

    /// For each state, its label's value and the nanoseconds.
    pub(super) fn states(&self) -> impl Iterator<Item = (&'static str, u64)> {
        STATES.iter().zip(self.0).map(|((state, _), shown)| (*state, shown.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_are_all_parts_of_a_life() {
        let life = LifeReport {
            on_cpu_ns: 1,
            blocked_ns: 2,
            ready_ns: 4,
            waiting_ns: 8,
            unknown_ns: 16,
            inside_ns: 32,
            new_ns: 64,
        };
        let mut now = LivesNow::default();
        now.add(&life);
        let mut shown = Lives::default();
        shown.raise(&now);
        assert_eq!(shown.states().map(|(_, ns)| ns).sum::<u64>(), life.life_ns());
        let of = |state| shown.states().find(|(it, _)| *it == state).unwrap().1;
        let states = ["on_cpu", "blocked", "ready", "waiting", "unknown", "inside", "new"];
        assert_eq!(states.map(of), [1, 2, 4, 8, 16, 32, 64]);
    }

    #[test]
    fn no_state_falls_and_the_others_rise_all_the_same() {
        let mut shown = Lives::default();
        let mut after = |on_cpu_ns, waiting_ns| {
            let mut now = LivesNow::default();
            now.add(&LifeReport { on_cpu_ns, waiting_ns, ..LifeReport::default() });
            shown.raise(&now);
            shown.states().map(|(_, ns)| ns).collect::<Vec<_>>()
        };
        assert_eq!(after(5, 7), [5, 0, 0, 7, 0, 0, 0]);
        assert_eq!(after(4, 9), [5, 0, 0, 9, 0, 0, 0]);
    }

    #[test]
    fn the_time_in_polls_is_divided_so_that_neither_part_falls() {
        let mut shown = Lives::default();
        let mut after = |on_cpu_ns, blocked_ns| {
            let mut now = LivesNow::default();
            now.add(&LifeReport { on_cpu_ns, blocked_ns, ..LifeReport::default() });
            shown.raise(&now);
            shown.states().take(2).map(|(_, ns)| ns).collect::<Vec<_>>()
        };
        assert_eq!(after(10, 5), [10, 5]);
        assert_eq!(after(16, 4), [15, 5], "20 ns in polls, and none of the 5 goes");
        assert_eq!(after(14, 9), [15, 8]);
        assert_eq!(after(30, 8), [30, 8]);
    }
}
