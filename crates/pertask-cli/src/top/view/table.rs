//! The rows of the open page, under the titles of their columns.

use pertask_text::{human, text};
use ratatui::{
    style::Style,
    text::{Line, Span},
};

use crate::top::state::{Column, State, Value};

use super::{
    bars, cell,
    columns::{self, GAP},
    palette::Palette,
};

/// A poll that holds its worker for this long delays every task behind it.
const SLOW_POLL_NS: u64 = 10_000_000;

/// Users notice a poll of this length.
const STUCK_POLL_NS: u64 = 100_000_000;

/// The deepest indentation. Below it, a number says how deep the row is, because blanks would leave no room for the name.
const MAX_INDENT: u32 = 6;

/// The table, fitted to a width.
pub struct Table<'a> {
    state: &'a State,
    columns: Vec<(Column, usize)>,
    width: usize,
    palette: Palette,
}

impl<'a> Table<'a> {
    /// Fits the table of the open page to a width.
    pub fn new(state: &'a State, width: usize, palette: Palette) -> Self {
        Self { state, columns: columns::fit(state, width), width, palette }
    }

    /// Returns the line of titles.
    pub fn titles(&self) -> Line<'static> {
        let mut line = String::new();
        for (at, &(column, width)) in self.columns.iter().enumerate() {
            let title = self.title(column);
            let gap = if at == 0 { 0 } else { GAP };
            // The arrow may stand in the gap.
            let overhang = text::width(&title).saturating_sub(width).min(gap);
            line.push_str(&" ".repeat(gap - overhang));
            line.push_str(&aligned(column, &title, width + overhang));
        }
        Line::styled(line, self.palette.title())
    }

    /// The title of a column. An arrow marks the one by which rows are sorted.
    fn title(&self, column: Column) -> String {
        let sort = self.state.sort();
        let arrow = match sort.column == column {
            true if sort.is_descending() => "▼",
            true => "▲",
            false => "",
        };
        arrow.to_owned() + columns::title(column)
    }

    /// Returns the line of one row.
    pub fn row(&self, row: usize, is_selected: bool) -> Line<'static> {
        let mut spans = Vec::new();
        for (at, &(column, width)) in self.columns.iter().enumerate() {
            if at > 0 {
                spans.push(Span::raw(" ".repeat(GAP)));
            }
            let value = self.state.rows().value(row, column);
            if let Value::Life(lived) = value {
                spans.extend(bars::life(lived, width, self.palette));
                continue;
            }
            let cell = match column {
                Column::Name => self.name(row, &value, width),
                _ => cell::text(&value, width),
            };
            spans.push(Span::styled(aligned(column, &cell, width), self.style(column, &value)));
        }
        match is_selected {
            true => self.selected(&spans),
            false => Line::from(spans),
        }
    }

    /// The whole width is marked, and without colours, which may be unreadable as backgrounds.
    fn selected(&self, spans: &[Span<'_>]) -> Line<'static> {
        let text: String = spans.iter().map(|span| &*span.content).collect();
        Line::styled(cell::left(&text, self.width), self.palette.marked())
    }

    /// The name, indented by its depth.
    fn name(&self, row: usize, value: &Value<'_>, width: usize) -> String {
        let depth = self.state.rows().depth(row);
        let mut indent = "  ".repeat(depth.min(MAX_INDENT) as usize);
        if depth > MAX_INDENT {
            indent += &format!("{depth}: ");
        }
        // Even deep down, some of the name is seen.
        let indent: String = indent.chars().take(width / 2).collect();
        let rest = width - indent.chars().count();
        match value {
            // The place of a task without a name has a column of its own, if there is room for that.
            Value::Task(site) if site.name.is_none() && self.has_place() => indent + human::NONE,
            _ => indent + &cell::text(value, rest),
        }
    }

    fn has_place(&self) -> bool {
        self.columns.iter().any(|(column, _)| *column == Column::Place)
    }

    fn style(&self, column: Column, value: &Value<'_>) -> Style {
        match (column, value) {
            (Column::MaxPoll, Value::Time(STUCK_POLL_NS..)) => self.palette.alarm(),
            (Column::MaxPoll, Value::Time(SLOW_POLL_NS..)) => self.palette.warning(),
            (Column::Blocked, Value::Percent(_)) => self.palette.warning(),
            (Column::History, _) => self.palette.in_tasks(),
            _ => Style::new(),
        }
    }
}

fn aligned(column: Column, text: &str, width: usize) -> String {
    match columns::is_text(column) {
        true => cell::left(text, width),
        false => cell::right(text, width),
    }
}
