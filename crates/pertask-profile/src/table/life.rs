//! Whole lives as a table: the share of each state, and a bar.

use std::fmt;

use super::super::{LifeRow, LifeSummary, State};
use super::SummaryStyle;
use super::subjects::{Naming, is_nested, title};
use pertask_text::bar;
use pertask_text::grid::{Cell, Column, Grid};
use pertask_text::human::{self, counted};
use pertask_text::ink::Tint;

/// The width of a bar.
const BAR: u32 = 20;

/// A [`LifeSummary`] that displays as text, made by [`LifeSummary::table`].
#[derive(Clone, Copy, Debug)]
pub struct LifeTable<'a> {
    summary: &'a LifeSummary,
    style: SummaryStyle,
}

impl LifeSummary {
    /// Returns this summary as text: a title, a row for each subject, what the bars mean, and a line that counts the rows left out.
    #[must_use]
    pub fn table(&self, style: SummaryStyle) -> LifeTable<'_> {
        LifeTable { summary: self, style }
    }
}

impl fmt::Display for LifeTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LifeSummary { by, rows, .. } = self.summary;
        let (shown, cut) = rows.split_at(self.style.max_rows.min(rows.len()));
        let own = if is_nested(by) { ", self" } else { "" };
        let heading = format!("{}{own}: whole lives (% of each row)", title(by));
        let mut lines = self.style.prose(&heading, Tint::Title);
        let secondary = |text: &str| self.style.ink().paint(text, Tint::Secondary);
        if rows.is_empty() {
            lines.push(secondary("no samples"));
        } else {
            lines.extend(self.grid(shown));
            lines.push(secondary(&legend()));
        }
        if !cut.is_empty() {
            let time = cut.iter().fold(0, |sum: u64, row| sum.saturating_add(row.own.sum()));
            let rows = counted(cut.len() as u64, "more row");
            lines.push(secondary(&format!("… and {rows}, {}", human::duration_ns(time))));
        }
        f.write_str(&lines.join("\n"))
    }
}

impl LifeTable<'_> {
    fn grid(&self, shown: &[LifeRow]) -> Vec<String> {
        let subjects = shown.iter().map(|row| &row.subject);
        let naming = Naming::of(&self.summary.by, subjects, self.style.whole_names);
        let number = |title, rank| Column::Number { title, rank };
        let mut columns = vec![number("LIFE", None)];
        columns.extend(State::ALL.map(|state| number(heading(state), None)));
        columns.push(Column::Text { title: "", least: 0, most: BAR as usize });
        columns.extend(naming.columns());
        let cells = |row: &LifeRow| {
            let mut cells = numbers(row);
            cells.extend(naming.cells(&row.subject));
            cells
        };
        let grid = Grid::new(&columns, shown.iter().map(cells).collect());
        grid.lines(self.style.max_width(), self.style.ink())
    }
}

fn numbers(row: &LifeRow) -> Vec<Cell> {
    let life = row.own.sum();
    let share = |state| match row.own.in_state(state) {
        0 => Cell::new(human::NONE),
        time => Cell::new(&human::percent(time, life)),
    };
    let parts = State::ALL.map(|state| {
        let (mark, tint) = mark(state);
        (row.own.in_state(state), mark, tint)
    });
    let mut cells = vec![Cell::new(&human::duration_ns(life))];
    cells.extend(State::ALL.map(share));
    cells.push(Cell::pieces(&bar::of(&parts, BAR)));
    cells
}

fn heading(state: State) -> &'static str {
    match state {
        State::OnCpu => "ON CPU",
        State::Blocked => "BLOCKED",
        State::Ready => "READY",
        State::Waiting => "WAITING",
    }
}

/// What stands for a state in a bar.
fn mark(state: State) -> (char, Tint) {
    match state {
        State::OnCpu => ('█', Tint::Running),
        State::Blocked => ('▓', Tint::Alarm),
        State::Ready => ('▒', Tint::Warning),
        State::Waiting => ('░', Tint::Waiting),
    }
}

/// The line that says what the marks of the bars stand for.
fn legend() -> String {
    let words =
        State::ALL.map(|state| format!("{} {}", mark(state).0, heading(state).to_lowercase()));
    words.join("  ")
}
