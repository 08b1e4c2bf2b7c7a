//! Two profiles and what has changed between them, in rates, in shares, and beyond chance.

mod growth;
mod join;
mod measure;
mod noise;

use super::{Amount, Filter, GroupBy, Profile, Subject, SummaryRow};
pub use growth::Growth;
pub use measure::Measure;
use noise::{Chance, Count};

/// Of the rows that differ beyond noise, the part that is expected to differ by chance: one in a hundred.
pub const FALSE_DISCOVERIES: f64 = 0.01;

/// Two profiles that are compared.
///
/// ```
/// use pertask_profile::{Comparison, GroupBy, Part, ProfileBuilder, Sample, TaskRef};
///
/// let profile = |counts: [(&str, u64); 2]| {
///     let mut builder = ProfileBuilder::new("by hand", 1_000_000);
///     for (name, count) in counts {
///         let task = Some(TaskRef { name: Some(builder.text(name)), ..TaskRef::default() });
///         builder.add(Sample { count, time_ns: count * 1_000_000, task, ..Sample::default() });
///     }
///     builder.finish(std::time::Duration::from_secs(1))
/// };
/// let before = profile([("GET /a", 300), ("GET /b", 100)]);
/// let after = profile([("GET /a", 310), ("GET /b", 190)]);
///
/// let difference = Comparison::of(&before, &after).difference(&GroupBy::Site, Part::Own);
/// let rows: Vec<_> = difference.rows.iter().map(|row| (row.subject.to_string(), row.is_noise())).collect();
/// assert_eq!(rows, [("GET /b".to_owned(), false), ("GET /a".to_owned(), false)]);
/// // `GET /a` has a smaller share than before. Its CPU time per second is as it was.
/// assert!(difference.rows[1].share.is_some_and(|share| share.differs));
/// assert!(difference.rows[1].rate.is_some_and(|rate| !rate.differs));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// The earlier profile.
    pub before: Side<'a>,
    /// The later one.
    pub after: Side<'a>,
    /// What is compared.
    pub measure: Measure,
    /// Whether the profiles are no profiles, but only what has become more and less between two.
    pub is_net: bool,
}

/// One of two profiles.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The whole profile.
    pub whole: &'a Profile,
    /// The part of it that is compared, and the filter that selected that.
    pub part: Option<(&'a Profile, &'a Filter)>,
}

/// Which of a row's amounts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the subject spent itself.
    Own,
    /// That, and what it called.
    Total,
}

/// What has changed between two profiles, row by row, made by [`Comparison::difference`].
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// What there is a row for.
    pub by: GroupBy,
    /// Which amounts are compared.
    pub part: Part,
    /// What is compared.
    pub measure: Measure,
    /// Whether there are only differences, as of [`Comparison::is_net`].
    pub is_net: bool,
    /// What shares before are of.
    pub before: Whole,
    /// What shares after are of.
    pub after: Whole,
    /// The rows. Those that are noise come last, and otherwise those that changed most come first.
    pub rows: Vec<DifferenceRow>,
}

/// All samples that are compared of one of two profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Their amount.
    pub amount: Amount,
    /// How long sampling lasted, or 0 if that is not known.
    pub duration_ns: u64,
    /// Whether the numbers of samples are known.
    pub has_counts: bool,
}

/// A row of a [`Difference`].
#[derive(Clone, Debug, PartialEq)]
pub struct DifferenceRow {
    /// What has changed. Files and lines are those after, if the subject is there.
    pub subject: Subject,
    /// Its amount before.
    pub before: Amount,
    /// Its amount after.
    pub after: Amount,
    /// Whether its amount per second differs, if that can be judged.
    pub rate: Option<Verdict>,
    /// Whether its share of the whole differs, if that can be judged.
    pub share: Option<Verdict>,
}

/// Whether a row differs by more than noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// How likely it is that chance in sampling alone makes so large a difference in this row.
    pub p: f64,
    /// Whether the row differs by more than that, considering all the others (Benjamini-Hochberg, [`FALSE_DISCOVERIES`]).
    pub differs: bool,
}

impl<'a> Comparison<'a> {
    /// Compares two whole profiles of one [`state`](Profile::state), by the time in it. If their states differ, by that of the later one.
    #[must_use]
    pub fn of(before: &'a Profile, after: &'a Profile) -> Self {
        let side = |whole| Side { whole, part: None };
        let measure = Measure::from(after.state);
        Self { before: side(before), after: side(after), measure, is_net: false }
    }

    /// Returns the differences, with a row for each of what `by` says.
    #[must_use]
    pub fn difference(&self, by: &GroupBy, part: Part) -> Difference {
        let rows = [self.before, self.after].map(|side| side.compared().summary(by).rows);
        let rows = join::joined(&rows[0], &rows[1], part);
        let rows = rows.into_iter().map(|row| DifferenceRow {
            subject: row.subject,
            before: row.before,
            after: row.after,
            rate: None,
            share: None,
        });
        let mut difference = Difference {
            by: by.clone(),
            part,
            measure: self.measure,
            is_net: self.is_net,
            before: self.before.of(),
            after: self.after.of(),
            rows: rows.collect(),
        };
        self.judge(&mut difference);
        difference.sort();
        difference
    }

    /// Returns whether noise can be judged: both profiles say how many samples they have, or how many waits.
    #[must_use]
    pub fn has_counts(&self) -> bool {
        !self.is_net && self.before.whole.has_counts && self.after.whole.has_counts
    }

    fn judge(&self, difference: &mut Difference) {
        if !self.has_counts() {
            return;
        }
        let rates: Vec<_> = difference.rows.iter().map(|row| self.rate(row)).collect();
        let shares: Vec<_> = difference.rows.iter().map(|row| self.share(row)).collect();
        let verdicts = verdicts(&rates).into_iter().zip(verdicts(&shares));
        for (row, (rate, share)) in difference.rows.iter_mut().zip(verdicts) {
            (row.rate, row.share) = (rate, share);
        }
    }

    fn rate(&self, row: &DifferenceRow) -> Option<Chance> {
        let of = |side: Side<'_>, amount| side.count(self.measure, amount, side.whole.duration_ns);
        Some(noise::rates(of(self.before, row.before)?, of(self.after, row.after)?))
    }

    fn share(&self, row: &DifferenceRow) -> Option<Chance> {
        let of = |side: Side<'_>, amount| {
            side.count(self.measure, amount, self.measure.of(side.compared().whole()))
        };
        Some(noise::shares(of(self.before, row.before)?, of(self.after, row.after)?))
    }
}

impl<'a> Side<'a> {
    /// Returns the profile that is compared: the part, or the whole.
    #[must_use]
    pub fn compared(self) -> &'a Profile {
        self.part.map_or(self.whole, |(part, _)| part)
    }

    fn of(self) -> Whole {
        let (amount, whole) = (self.compared().whole(), self.whole);
        Whole { amount, duration_ns: whole.duration_ns, has_counts: whole.has_counts }
    }

    /// Returns a row's number of samples, out of so many units: the nanoseconds of a recording, or the whole of a measure.
    ///
    /// How many samples stand for a unit of the measure differs between profiles of different rates, and between rows whose samples
    /// do not stand for equally much. An amount without samples was measured. It counts as the samples that stand for as much
    /// elsewhere, which makes more noise of it than there is.
    fn count(self, measure: Measure, row: Amount, units: u64) -> Option<Count> {
        let whole = self.whole.whole();
        let of = if row.samples > 0 && measure.of(row) > 0 { row } else { whole };
        let per_unit = of.samples as f64 / measure.of(of) as f64;
        let samples = match row.samples {
            0 => (measure.of(row) as f64 * per_unit).round(),
            samples => samples as f64,
        };
        (of.samples > 0 && measure.of(of) > 0 && units > 0)
            .then_some(Count { samples, of: per_unit * units as f64 })
    }
}

fn verdicts(tests: &[Option<Chance>]) -> Vec<Option<Verdict>> {
    let differs = noise::exceptional(tests, FALSE_DISCOVERIES).into_iter();
    let verdict = |(test, differs): (&Option<Chance>, bool)| {
        test.map(|chance| Verdict { p: chance.p, differs })
    };
    tests.iter().zip(differs).map(verdict).collect()
}

impl Difference {
    /// Returns whether amounts per second are known: both profiles say how long they were.
    #[must_use]
    pub fn has_rates(&self) -> bool {
        !self.is_net && self.before.duration_ns > 0 && self.after.duration_ns > 0
    }

    /// Returns how much more of a row's amount there is per second, if that is known.
    #[must_use]
    pub fn rate_change(&self, row: &DifferenceRow) -> Option<f64> {
        let per_second =
            |amount, whole: Whole| self.measure.of(amount) as f64 / whole.duration_ns as f64 * 1e9;
        self.has_rates()
            .then(|| per_second(row.after, self.after) - per_second(row.before, self.before))
    }

    /// Returns by how much a row's share of the whole has grown, if both profiles have a whole.
    #[must_use]
    pub fn share_change(&self, row: &DifferenceRow) -> Option<f64> {
        let value = |amount| self.measure.of(amount) as f64;
        let wholes = [self.before.amount, self.after.amount].map(value);
        (!self.is_net && !wholes.contains(&0.0))
            .then(|| value(row.after) / wholes[1] - value(row.before) / wholes[0])
    }

    /// Returns how much a row has changed, for comparison with the others: per second where that is known, else in shares, else itself.
    fn change(&self, row: &DifferenceRow) -> f64 {
        let value = |amount| self.measure.of(amount) as f64;
        self.rate_change(row)
            .or_else(|| self.share_change(row))
            .unwrap_or_else(|| value(row.after) - value(row.before))
    }

    /// Returns whether a row differs: by more than noise, or at all where that cannot be judged.
    #[must_use]
    pub fn differs(&self, row: &DifferenceRow) -> bool {
        match row.rate.is_some() || row.share.is_some() {
            true => !row.is_noise(),
            false => self.change(row) != 0.0,
        }
    }

    fn sort(&mut self) {
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by(|a, b| {
            let change = |row| self.change(row).abs();
            let noise = a.is_noise().cmp(&b.is_noise());
            noise
                .then_with(|| change(b).total_cmp(&change(a)))
                .then_with(|| a.subject.order(&b.subject))
        });
        self.rows = rows;
    }
}

impl DifferenceRow {
    /// Returns whether chance in sampling explains all that has changed. What cannot be judged is not said to be noise.
    #[must_use]
    pub fn is_noise(&self) -> bool {
        let mut judged = [self.rate, self.share].into_iter().flatten().peekable();
        judged.peek().is_some() && judged.all(|verdict| !verdict.differs)
    }
}

impl Part {
    fn of(self, row: &SummaryRow) -> Amount {
        match self {
            Self::Own => row.own,
            Self::Total => row.total,
        }
    }
}
