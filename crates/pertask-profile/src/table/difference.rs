//! A difference as a table: what there was before and after, and how much that has changed.

use std::fmt;

use super::super::{Difference, DifferenceRow, Part, Verdict};
use super::subjects::{Naming, is_nested, title};
use super::{SummaryStyle, signed_percent, titles};
use pertask_text::grid::{Cell, Column, Grid};
use pertask_text::human::{self, counted};
use pertask_text::ink::Tint;

/// A [`Difference`] that displays as text, made by [`Difference::table`].
#[derive(Clone, Copy, Debug)]
pub struct DifferenceTable<'a> {
    difference: &'a Difference,
    style: SummaryStyle,
}

impl Difference {
    /// Returns this difference as text: a title, a row for each subject that differs by more than noise, and lines that count the
    /// others. If `max_rows` is [`usize::MAX`], all have rows.
    #[must_use]
    pub fn table(&self, style: SummaryStyle) -> DifferenceTable<'_> {
        DifferenceTable { difference: self, style }
    }
}

impl fmt::Display for DifferenceTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = &self.difference.rows;
        let shown: Vec<_> = match self.style.max_rows {
            usize::MAX => rows.iter().collect(),
            most => rows.iter().filter(|row| self.difference.differs(row)).take(most).collect(),
        };
        let mut lines = self.style.prose(&self.title(), Tint::Title);
        if !shown.is_empty() {
            let subjects = shown.iter().map(|row| &row.subject);
            let naming = Naming::of(&self.difference.by, subjects, self.style.whole_names);
            let columns = [self.columns(), naming.columns()].concat();
            let cells = |row: &&DifferenceRow| {
                let tint =
                    |cell: Cell| if row.is_noise() { cell.tint(Tint::Secondary) } else { cell };
                let names = naming.cells(&row.subject).into_iter().map(tint);
                self.numbers(row).into_iter().chain(names).collect()
            };
            let grid = Grid::new(&columns, shown.iter().map(cells).collect());
            lines.extend(grid.lines(self.style.max_width(), self.style.ink()));
        }
        let notes = self.left_out(&shown).into_iter();
        lines.extend(notes.map(|note| self.style.ink().paint(&note, Tint::Secondary)));
        f.write_str(&lines.join("\n"))
    }
}

impl DifferenceTable<'_> {
    fn title(&self) -> String {
        let Difference { by, part, measure, before, after, is_net, .. } = self.difference;
        let part = match part {
            Part::Own if is_nested(by) => ", self",
            Part::Total if is_nested(by) => ", total",
            _ => "",
        };
        if *is_net {
            return format!("{}{part} (change of {})", title(by), measure.name());
        }
        let [before, after] = [before, after].map(|it| measure.shown(measure.of(it.amount)));
        let per = if self.difference.has_rates() { " per second" } else { "" };
        format!("{}{part} ({}{per}; % of {before} and {after})", title(by), measure.name())
    }

    fn columns(&self) -> Vec<Column<'static>> {
        let number = |title, rank| Column::Number { title, rank };
        if self.difference.is_net {
            return vec![number("CHANGE", None)];
        }
        let mut columns = vec![number("BEFORE", Some(3)), number("AFTER", Some(4))];
        columns.extend(self.difference.has_rates().then(|| number("CHANGE", None)));
        columns.extend([
            number("BEFORE%", Some(1)),
            number("AFTER%", Some(2)),
            number("POINTS", None),
        ]);
        let count = titles(self.difference.measure.state())[2];
        columns.extend(self.counts().then(|| number(count, Some(0))));
        columns
    }

    fn numbers(&self, row: &DifferenceRow) -> Vec<Cell> {
        let Difference { measure, before, after, is_net, .. } = self.difference;
        let values = [measure.of(row.before), measure.of(row.after)];
        let noise = row.is_noise();
        let cell = |text: String| match noise {
            true => Cell::new(&text).tint(Tint::Secondary),
            false => Cell::new(&text),
        };
        if *is_net {
            return vec![cell(signed_difference(values, |value| measure.shown(value)))];
        }
        let has_rates = self.difference.has_rates();
        let amount = |value: u64, duration_ns: u64| match has_rates {
            true => measure.shown(per_second(value, duration_ns)),
            false => measure.shown(value),
        };
        let rates = [(values[0], before.duration_ns), (values[1], after.duration_ns)];
        let mut cells = rates.map(|(value, duration_ns)| cell(amount(value, duration_ns))).to_vec();
        if has_rates {
            let change = change(rates.map(|(value, ns)| value as f64 / ns as f64));
            cells.push(judged(change, row.rate));
        }
        let wholes = [before, after].map(|whole| measure.of(whole.amount));
        cells.extend([0, 1].map(|at| cell(human::percent(values[at], wholes[at]))));
        cells.push(judged(self.points(row), row.share));
        cells.extend(self.counts().then(|| cell(self.samples(row))));
        cells
    }

    /// Returns whether what is compared is counted as well.
    fn counts(&self) -> bool {
        self.difference.measure.state().counted().is_some()
    }

    /// Returns by how many percentage points a row's share has grown.
    fn points(&self, row: &DifferenceRow) -> String {
        let change = self.difference.share_change(row);
        match change.map(|change| change * 100.0) {
            None => human::NONE.to_owned(),
            Some(points) if points.abs() < 0.05 => "0.0".to_owned(),
            Some(points) => format!("{points:+.1}"),
        }
    }

    /// Returns `12 → 30`.
    fn samples(&self, row: &DifferenceRow) -> String {
        let Difference { before, after, .. } = self.difference;
        let samples = [(before, row.before), (after, row.after)].map(|(whole, amount)| {
            if whole.has_counts { human::count(amount.samples) } else { human::NONE.to_owned() }
        });
        samples.join(" → ")
    }

    /// Counts the rows that are not shown.
    fn left_out(&self, shown: &[&DifferenceRow]) -> Vec<String> {
        let rows = &self.difference.rows;
        let all = rows.iter().filter(|row| self.difference.differs(row)).count();
        let mut lines = Vec::new();
        if rows.is_empty() {
            lines.push("no samples".to_owned());
        } else if all == 0 {
            lines.push("nothing differs".to_owned());
        }
        let more = all.saturating_sub(shown.len());
        if more > 0 {
            lines.push(format!("… and {} that differ", counted(more as u64, "more row")));
        }
        let alike = if shown.len() > all { 0 } else { rows.len() - all };
        if alike > 0 {
            let judged = rows.iter().any(|row| row.rate.or(row.share).is_some());
            let why = if judged { "within noise" } else { "unchanged" };
            lines.push(format!("… and {} {why}", counted(alike as u64, "row")));
        }
        lines
    }
}

/// Returns a number's cell. A `~` marks what chance explains.
fn judged(text: String, verdict: Option<Verdict>) -> Cell {
    match verdict {
        Some(verdict) if !verdict.differs => Cell::new(&format!("~{text}")).tint(Tint::Secondary),
        _ => Cell::new(&text),
    }
}

fn per_second(value: u64, duration_ns: u64) -> u64 {
    let rate = u128::from(value) * 1_000_000_000 / u128::from(duration_ns.max(1));
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Returns how much more a number is than before, in percent of that.
fn change([before, after]: [f64; 2]) -> String {
    match (before > 0.0, after > 0.0) {
        (false, false) => human::NONE.to_owned(),
        (false, true) => "new".to_owned(),
        (true, false) => "gone".to_owned(),
        (true, true) => signed_percent(before, after),
    }
}

/// Returns `+1.50 ms` or `-1.50 ms`.
pub(super) fn signed_difference(
    [before, after]: [u64; 2],
    shown: impl Fn(u64) -> String,
) -> String {
    let sign = match after.cmp(&before) {
        std::cmp::Ordering::Less => "-",
        std::cmp::Ordering::Equal => "",
        std::cmp::Ordering::Greater => "+",
    };
    format!("{sign}{}", shown(after.abs_diff(before)))
}
