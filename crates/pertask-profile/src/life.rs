//! Whole lives: the time of tasks in all states together, added up as a summary adds up one of them.

use std::collections::HashMap;
use std::fmt;

use pertask_text::human;

use super::{Amount, GroupBy, Profile, State, Subject, SummaryRow};

/// Time in each of the states, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Times {
    /// Time on a CPU.
    pub on_cpu_ns: u64,
    /// Time in polls off the CPU.
    pub blocked_ns: u64,
    /// Time between wake and poll.
    pub ready_ns: u64,
    /// Time until tasks were woken.
    pub waiting_ns: u64,
}

/// A profile's time in all states, added up by [`Profile::lives`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifeSummary {
    /// What there is a row for.
    pub by: GroupBy,
    /// All samples of the profile.
    pub whole: Times,
    /// The rows, those with the most own time first, all states together.
    pub rows: Vec<LifeRow>,
}

/// One row of a [`LifeSummary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifeRow {
    /// Whose time it is.
    pub subject: Subject,
    /// The time of the subject itself, as of [`SummaryRow::own`].
    pub own: Times,
    /// The time of all samples that the subject occurs in.
    pub total: Times,
}

impl Times {
    /// Returns so much time in one state, and none in the others.
    #[must_use]
    pub fn of(state: State, time_ns: u64) -> Self {
        let mut times = Self::default();
        times.add(state, Amount { time_ns, samples: 0 });
        times
    }

    /// Returns the time in a state.
    #[must_use]
    pub fn in_state(&self, state: State) -> u64 {
        match state {
            State::OnCpu => self.on_cpu_ns,
            State::Blocked => self.blocked_ns,
            State::Ready => self.ready_ns,
            State::Waiting => self.waiting_ns,
        }
    }

    /// Returns the time in all states together, which stops at the largest integer.
    #[must_use]
    pub fn sum(&self) -> u64 {
        State::ALL.iter().fold(0, |sum, state| self.in_state(*state).saturating_add(sum))
    }

    fn add(&mut self, state: State, amount: Amount) {
        let time_ns = match state {
            State::OnCpu => &mut self.on_cpu_ns,
            State::Blocked => &mut self.blocked_ns,
            State::Ready => &mut self.ready_ns,
            State::Waiting => &mut self.waiting_ns,
        };
        *time_ns = time_ns.saturating_add(amount.time_ns);
    }
}

/// Shows the times that are not zero: `2.82 s of CPU time, 31.0 s of waiting time`.
impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = State::ALL.into_iter().filter(|state| self.in_state(*state) > 0);
        let words = some.map(|state| {
            format!("{} of {}", human::duration_ns(self.in_state(state)), state.time())
        });
        let words: Vec<_> = words.collect();
        f.write_str(if words.is_empty() { "no time in any state" } else { "" })?;
        f.write_str(&words.join(", "))
    }
}

impl Profile {
    /// Returns the time of all samples, those off the CPU included.
    #[must_use]
    pub fn times(&self) -> Times {
        let mut times = Times::default();
        self.all_samples().for_each(|sample| times.add(sample.state, Amount::of(sample)));
        times
    }

    /// Adds up the time in all states, with a row for each of what `by` says.
    ///
    /// ```
    /// use pertask_profile::{GroupBy, ProfileBuilder, Sample, State, TaskRef};
    ///
    /// let mut builder = ProfileBuilder::new("by hand", 1_000_000);
    /// let task = Some(TaskRef { name: Some(builder.text("GET /")), ..TaskRef::default() });
    /// for (state, time_ns) in [(State::OnCpu, 3_000_000), (State::Waiting, 40_000_000)] {
    ///     builder.add(Sample { count: 1, time_ns, state, task: task.clone(), ..Sample::default() });
    /// }
    /// let profile = builder.finish(std::time::Duration::from_secs(1));
    ///
    /// let lives = profile.lives(&GroupBy::Site);
    /// assert_eq!((lives.rows[0].own.on_cpu_ns, lives.rows[0].own.waiting_ns), (3_000_000, 40_000_000));
    /// ```
    #[must_use]
    pub fn lives(&self, by: &GroupBy) -> LifeSummary {
        let mut rows: HashMap<Subject, LifeRow> = HashMap::new();
        for state in State::ALL {
            for row in self.in_state(state).summary(by).rows {
                add(&mut rows, state, row);
            }
        }
        let mut rows: Vec<_> = rows.into_values().collect();
        rows.sort_by(|a, b| {
            let life = |row: &LifeRow| (row.own.sum(), row.total.sum());
            life(b).cmp(&life(a)).then_with(|| a.subject.order(&b.subject))
        });
        LifeSummary { by: by.clone(), whole: self.times(), rows }
    }
}

fn add(rows: &mut HashMap<Subject, LifeRow>, state: State, row: SummaryRow) {
    let SummaryRow { subject, own, total } = row;
    let life = rows.entry(subject.without_tasks()).or_insert_with(|| LifeRow {
        subject: subject.clone(),
        own: Times::default(),
        total: Times::default(),
    });
    // A place can have other tasks in another state.
    if life.subject != subject {
        life.subject = subject.without_tasks();
    }
    life.own.add(state, own);
    life.total.add(state, total);
}
