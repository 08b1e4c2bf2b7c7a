//! Summaries of a profile as text for a terminal, in the style of the report's tables.
//!
//! Names come from a file that may be hostile, so characters that could control a terminal are escaped.

mod comparison;
mod difference;
mod life;
mod overview;
mod subjects;

use std::fmt;

use super::{Amount, GroupBy, State, Summary, SummaryRow};
use pertask_text::grid::{Cell, Column, Grid};
use pertask_text::human::{self, counted};
use pertask_text::ink::{Ink, Tint};
use pertask_text::text::{harmless, wrap};

pub use comparison::ComparisonOverview;
pub use difference::DifferenceTable;
pub use life::LifeTable;
pub use overview::Overview;
use subjects::{Naming, is_nested, title};

/// How a [`SummaryTable`] or an [`Overview`] looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SummaryStyle {
    /// The width that no line exceeds, at least 60 columns. `None` sets no limit.
    pub width: Option<u16>,
    /// Whether the text has ANSI colours.
    pub color: bool,
    /// The most rows of a table. Functions that only call others, and spent no time themselves, have rows only where this is
    /// [`usize::MAX`].
    pub max_rows: usize,
    /// Whether the names of tasks are shown whole, up to some hundred columns, and not as far as they fit beside the rest.
    pub whole_names: bool,
}

impl Default for SummaryStyle {
    fn default() -> Self {
        Self { width: None, color: false, max_rows: 20, whole_names: false }
    }
}

/// A [`Summary`] that displays as text, made by [`Summary::table`].
#[derive(Clone, Copy, Debug)]
pub struct SummaryTable<'a> {
    summary: &'a Summary,
    style: SummaryStyle,
}

impl Summary {
    /// Returns this summary as text: a title, a row for each subject, and a line that counts the rows left out.
    #[must_use]
    pub fn table(&self, style: SummaryStyle) -> SummaryTable<'_> {
        SummaryTable { summary: self, style }
    }
}

impl SummaryTable<'_> {
    fn shown_rows(&self) -> usize {
        let Summary { by, rows, .. } = self.summary;
        let max = self.style.max_rows;
        if *by != GroupBy::Function || max == usize::MAX {
            return max.min(rows.len());
        }
        // The rows are in the order of their own time.
        rows.iter().take(max).take_while(|row| row.own != Amount::default()).count()
    }
}

impl fmt::Display for SummaryTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { by, state, whole, has_counts, rows } = self.summary;
        let (shown, cut) = rows.split_at(self.shown_rows());
        let of = of_time(*state, whole.time_ns);
        let mut lines = self.style.prose(&format!("{} (% of {of})", title(by)), Tint::Title);
        if rows.is_empty() {
            lines.push(self.style.ink().paint("no samples", Tint::Secondary));
        }
        if !shown.is_empty() {
            let subjects = shown.iter().map(|row| &row.subject);
            let naming = Naming::of(by, subjects, self.style.whole_names);
            let cells = |row: &SummaryRow| {
                let samples = has_counts.then_some(row.own.samples);
                let mut cells = amounts(by, row, *whole);
                if state.counted().is_some() {
                    cells.push(Cell::new(&samples.map_or(human::NONE.to_owned(), human::count)));
                }
                cells.extend(naming.cells(&row.subject));
                cells
            };
            let columns = columns(by, *state, &naming);
            let grid = Grid::new(&columns, shown.iter().map(cells).collect());
            lines.extend(grid.lines(self.style.max_width(), self.style.ink()));
        }
        if !cut.is_empty() {
            let own = cut.iter().fold(Amount::default(), |sum, row| sum.plus(row.own));
            let what = match (is_nested(by), state) {
                (true, _) => "self",
                (false, State::OnCpu) => "CPU",
                (false, state) => state.name(),
            };
            let rows = counted(cut.len() as u64, "more row");
            let more = format!("… and {rows}, {} {what}", human::duration_ns(own.time_ns));
            lines.push(self.style.ink().paint(&more, Tint::Secondary));
        }
        f.write_str(&lines.join("\n"))
    }
}

/// The least width: the important columns do not fit into less.
const MIN_WIDTH: u16 = 60;

impl SummaryStyle {
    /// Wraps running text at spaces.
    fn prose(self, text: &str, tint: Tint) -> Vec<String> {
        let lines = wrap(&harmless(text), self.max_width().unwrap_or(usize::MAX), 4);
        lines.iter().map(|line| self.ink().paint(line, tint)).collect()
    }

    fn max_width(self) -> Option<usize> {
        self.width.map(|width| width.max(MIN_WIDTH).into())
    }

    fn ink(self) -> Ink {
        Ink { color: self.color }
    }
}

/// Returns how much more a number is than the one before, as `+12.5%`.
fn signed_percent(before: f64, after: f64) -> String {
    match (after / before - 1.0) * 100.0 {
        percent if percent >= 999.95 => ">+999%".to_owned(),
        percent => format!("{percent:+.1}%"),
    }
}

/// Returns an amount of time with what it is, unless it is CPU time, which the columns say.
fn of_time(state: State, time_ns: u64) -> String {
    let amount = human::duration_ns(time_ns);
    match state {
        State::OnCpu => amount,
        state => format!("{amount} of {}", state.time()),
    }
}

/// Returns the titles of the columns of a share, of a time and of a number.
fn titles(state: State) -> [&'static str; 3] {
    match state {
        State::OnCpu => ["CPU%", "CPU", "SAMPLES"],
        State::Blocked => ["BLOCKED%", "BLOCKED", ""],
        State::Ready => ["READY%", "READY", ""],
        State::Waiting => ["WAITING%", "WAITING", "WAITS"],
    }
}

fn columns<'a>(by: &GroupBy, state: State, naming: &'a Naming<'_>) -> Vec<Column<'a>> {
    let number = |title| Column::Number { title, rank: None };
    let [share, time, count] = titles(state);
    let mut columns = match is_nested(by) {
        true => ["SELF%", "SELF", "TOTAL%", "TOTAL"].map(number).to_vec(),
        false => [share, time].map(number).to_vec(),
    };
    let counted = state.counted().is_some();
    columns.extend(counted.then_some(Column::Number { title: count, rank: Some(1) }));
    columns.extend(naming.columns());
    columns
}

/// Returns the cells of a row's times.
fn amounts(by: &GroupBy, row: &SummaryRow, whole: Amount) -> Vec<Cell> {
    let amounts = if is_nested(by) { vec![row.own, row.total] } else { vec![row.own] };
    let amounts = amounts.iter().flat_map(|amount| {
        [human::percent(amount.time_ns, whole.time_ns), human::duration_ns(amount.time_ns)]
    });
    amounts.map(|text| Cell::new(&text)).collect()
}
