//! How the tasks of a row spend their lives: the time in each state, from one report to the next.

use pertask::LifeReport;

use super::{column::Column, facts::Fact, value::Value};

/// A state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    OnCpu,
    Blocked,
    Ready,
    Waiting,
    Inside,
    New,
    Unknown,
}

/// How many tasks were in each state at a time, on average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lived([f64; Part::ALL.len()]);

/// The counters of a life, and their growth since the report before.
#[derive(Clone, Copy, Debug, Default)]
pub struct LifeRates {
    /// `None` where lives are not measured.
    total: Option<[u64; Part::ALL.len()]>,
    /// `None` where the life became shorter: the counters began anew.
    grown: Option<[u64; Part::ALL.len()]>,
    seconds: f64,
}

impl Part {
    /// All of them, what makes progress first.
    pub const ALL: [Self; 7] = [
        Self::OnCpu,
        Self::Blocked,
        Self::Ready,
        Self::Waiting,
        Self::Inside,
        Self::New,
        Self::Unknown,
    ];

    /// Returns what people call it.
    pub fn words(self) -> &'static str {
        match self {
            Self::OnCpu => "on CPU",
            Self::Blocked => "blocked",
            Self::Ready => "ready",
            Self::Waiting => "waiting",
            Self::Inside => "inside",
            Self::New => "new",
            Self::Unknown => "unknown",
        }
    }

    /// Returns whether most lives lack it.
    fn is_rare(self) -> bool {
        matches!(self, Self::Inside | Self::New | Self::Unknown)
    }

    fn ns(self, life: &LifeReport) -> u64 {
        match self {
            Self::OnCpu => life.on_cpu_ns,
            Self::Blocked => life.blocked_ns,
            Self::Ready => life.ready_ns,
            Self::Waiting => life.waiting_ns,
            Self::Inside => life.inside_ns,
            Self::New => life.new_ns,
            Self::Unknown => life.unknown_ns,
        }
    }
}

impl Lived {
    /// Returns how many tasks were in a state.
    pub fn of(self, part: Part) -> f64 {
        self.0[part as usize]
    }

    /// Returns how many tasks there were.
    pub fn all(self) -> f64 {
        self.0.iter().sum()
    }
}

impl LifeRates {
    /// Takes the next report's life, so many seconds after the last one.
    pub fn advance(&mut self, life: Option<&LifeReport>, seconds: f64) {
        let Some(life) = life else {
            *self = Self::default();
            return;
        };
        let last = self.total.unwrap_or_default();
        let total = Part::ALL.map(|part| part.ns(life));
        // One part may have a little less than before, as a poll's time is divided by two clocks.
        let grown = || std::array::from_fn(|part| total[part].saturating_sub(last[part]));
        let is_older = sum(&total) >= sum(&last);
        *self = Self { total: Some(total), grown: is_older.then(grown), seconds };
    }

    /// Returns how the tasks spent the time between the two reports, or `None` if that is not known.
    pub fn lived(&self) -> Option<Lived> {
        let grown = self.grown.filter(|_| self.seconds > 0.0)?;
        Some(Lived(grown.map(|ns| ns as f64 / 1e9 / self.seconds)))
    }

    /// Returns what a row has in a column of lives.
    pub fn value(&self, column: Column) -> Value<'static> {
        if self.total.is_none() {
            return Value::Nothing;
        }
        let Some(lived) = self.lived() else { return Value::Unknown };
        match column {
            Column::Life => Value::Life(lived),
            Column::TasksBlocked => Value::Tasks(lived.of(Part::Blocked)),
            Column::TasksReady => Value::Tasks(lived.of(Part::Ready)),
            Column::TasksWaiting => Value::Tasks(lived.of(Part::Waiting)),
            _ => Value::Nothing,
        }
    }
}

/// Returns the whole of a life and its parts, each with its share.
pub fn facts(life: &LifeReport) -> Vec<Fact<'static>> {
    let of_ns = life.life_ns();
    let part = |part: Part| (part.words(), Value::Share { ns: part.ns(life), of_ns });
    let shown = Part::ALL.into_iter().filter(|part| !part.is_rare() || part.ns(life) > 0);
    [("lived", Value::Time(of_ns))].into_iter().chain(shown.map(part)).collect()
}

/// Numbers of a hostile agent must not overflow.
fn sum(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |sum, ns| sum.saturating_add(*ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(blocked_ns: u64, waiting_ns: u64) -> LifeReport {
        LifeReport { blocked_ns, waiting_ns, ..LifeReport::default() }
    }

    fn after(lives: &[(LifeReport, f64)]) -> Option<Lived> {
        let mut rates = LifeRates::default();
        lives.iter().for_each(|(life, seconds)| rates.advance(Some(life), *seconds));
        rates.lived()
    }

    #[test]
    fn a_second_of_waiting_in_a_second_is_one_task_that_waits() {
        let lives = [(life(1, 7), 9.0), (life(500_000_001, 6_400_000_007), 2.0)];
        let lived = after(&lives).expect("rates");
        assert_eq!((lived.of(Part::Waiting), lived.of(Part::Blocked)), (3.2, 0.25));
        assert_eq!((lived.of(Part::Ready), lived.all()), (0.0, 3.45));
    }

    #[test]
    fn a_part_that_has_a_little_less_is_nothing_and_a_life_that_has_less_is_not_known() {
        let lived = after(&[(life(10, 100), 1.0), (life(9, 1_000_000_100), 1.0)]).expect("rates");
        assert_eq!((lived.of(Part::Blocked), lived.of(Part::Waiting)), (0.0, 1.0));
        assert_eq!(after(&[(life(10, 100), 1.0), (life(10, 99), 1.0)]), None);
        assert_eq!(after(&[(life(1, 1), 0.0)]), None);
    }

    #[test]
    fn lives_that_are_not_measured_have_no_word() {
        let mut rates = LifeRates::default();
        rates.advance(None, 1.0);
        assert_eq!(rates.value(Column::Life), Value::Nothing);
        rates.advance(Some(&life(1, 1)), 0.0);
        assert_eq!(rates.value(Column::TasksWaiting), Value::Unknown);
    }
}
