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
    /// The times, with those in polls divided so that neither part is less than what is shown, if there is enough for both.
    fn divided(&self, shown: &Lives) -> [u64; STATES.len()] {
        let [shown_on_cpu, shown_blocked, ..] = shown.0.map(Shown::get);
        let [on_cpu, blocked, ready, waiting, inside, new, unknown] = self.0;
        let polled = on_cpu + blocked;
        let on_cpu = on_cpu.max(shown_on_cpu).min(polled.saturating_sub(shown_blocked));
        [on_cpu, polled - on_cpu, ready, waiting, inside, new, unknown]
    }

    pub(super) fn add(&mut self, report: &LifeReport) {
        for (sum, (_, ns)) in self.0.iter_mut().zip(STATES) {
            *sum += ns(report);
        }
    }
}

impl Lives {
    /// No state falls, and as long as the time in polls does not, its two parts add up to it. It is exact, but the clock that divides it is
    /// not quite: the CPU may have more nanoseconds of a poll than the poll had, and time off the CPU then seems to be less than before. It
    /// stays, and the CPU has so much less.
    pub(super) fn raise(&mut self, now: &LivesNow) {
        let now = now.divided(self);
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

    /// What is shown once these times have been read, too.
    fn after(
        shown: &mut Lives,
        (on_cpu_ns, blocked_ns, waiting_ns): (u64, u64, u64),
    ) -> (u64, u64, u64) {
        let mut now = LivesNow::default();
        now.add(&LifeReport { on_cpu_ns, blocked_ns, waiting_ns, ..LifeReport::default() });
        shown.raise(&now);
        let of = |state| shown.states().find(|(it, _)| *it == state).unwrap().1;
        (of("on_cpu"), of("blocked"), of("waiting"))
    }

    #[test]
    fn no_state_falls_and_the_others_rise_all_the_same() {
        let mut shown = Lives::default();
        assert_eq!(after(&mut shown, (5, 0, 7)), (5, 0, 7));
        assert_eq!(after(&mut shown, (4, 0, 9)), (5, 0, 9));
    }

    #[test]
    fn the_time_in_polls_is_divided_so_that_neither_part_falls() {
        let mut shown = Lives::default();
        assert_eq!(after(&mut shown, (10, 5, 0)), (10, 5, 0));
        // 20 ns in polls, and none of the 5 goes.
        assert_eq!(after(&mut shown, (16, 4, 0)), (15, 5, 0));
        assert_eq!(after(&mut shown, (14, 9, 0)), (15, 8, 0));
        assert_eq!(after(&mut shown, (30, 8, 0)), (30, 8, 0));
        // Less than is shown: each stays.
        assert_eq!(after(&mut shown, (20, 9, 0)), (30, 8, 0));
    }
}
