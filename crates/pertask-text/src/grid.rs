//! A grid of rows and columns that fits the width of a terminal.
//!
//! A line is never broken. If it would be too long, the less important number columns are left out
//! first, and then texts are cut.

use crate::ink::{Ink, Tint};
use crate::text::{cut_end, cut_path, harmless, width};

/// The number of spaces between two columns.
const GAP: usize = 2;

/// One column, with its title and its behaviour where the terminal is too narrow.
#[derive(Clone, Copy, Debug)]
pub enum Column<'a> {
    /// A column of numbers, aligned right and never cut. The one with the lowest `rank` is left out
    /// first. One whose rank is `None` stays.
    Number {
        /// The title.
        title: &'a str,
        /// The order in which columns are left out.
        rank: Option<u8>,
    },
    /// A column of text, aligned left. It is cut to `most` columns, and below `least` only if no
    /// number column can be left out.
    Text {
        /// The title.
        title: &'a str,
        /// The least width while number columns can be left out.
        least: usize,
        /// The greatest width.
        most: usize,
    },
}

/// One cell: text that cannot control a terminal, its tint, and the end at which it is cut.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    tint: Tint,
    path: bool,
    /// The pieces of a text with several tints. They are painted only where the text is not cut.
    pieces: Vec<(String, Tint)>,
}

/// Rows of cells under their columns.
#[derive(Clone, Debug)]
pub struct Grid<'a> {
    columns: Vec<Column<'a>>,
    rows: Vec<Vec<Cell>>,
}

impl<'a> Grid<'a> {
    /// Returns a grid. Each row must have one cell for each column.
    #[must_use]
    pub fn new(columns: &[Column<'a>], rows: Vec<Vec<Cell>>) -> Self {
        debug_assert!(rows.iter().all(|row| row.len() == columns.len()));
        Self { columns: columns.to_vec(), rows }
    }

    /// Returns the lines of the grid, the titles first, none wider than `max`.
    #[must_use]
    pub fn lines(&self, max: Option<usize>, ink: Ink) -> Vec<String> {
        let shown = self.fit(max.unwrap_or(usize::MAX));
        let titles: Vec<Cell> = self.columns.iter().map(|column| Cell::title(*column)).collect();
        let rows = std::iter::once(&titles).chain(&self.rows);
        rows.map(|row| self.line(row, &shown, ink)).collect()
    }

    fn line(&self, row: &[Cell], shown: &[(usize, usize)], ink: Ink) -> String {
        let mut line = String::new();
        for (place, &(index, column_width)) in shown.iter().enumerate() {
            if place > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            let text = row[index].cut(column_width);
            let blanks = " ".repeat(column_width.saturating_sub(width(&text)));
            let painted = row[index].paint(&text, ink);
            match self.columns[index] {
                Column::Number { .. } => line.extend([blanks, painted]),
                Column::Text { .. } => line.extend([painted, blanks]),
            }
        }
        line.trim_end().to_owned()
    }

    /// Returns the indices of the columns that are shown, each with its width.
    fn fit(&self, max: usize) -> Vec<(usize, usize)> {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        while self.least_width(&shown) > max {
            let Some(drop) = self.least_important(&shown) else { break };
            shown.retain(|&index| index != drop);
        }
        let mut widths: Vec<usize> = shown.iter().map(|&index| self.natural(index)).collect();
        while line_width(&widths) > max {
            let Some(at) = self.most_spare(&shown, &widths) else { break };
            widths[at] -= 1;
        }
        shown.into_iter().zip(widths).collect()
    }

    fn least_width(&self, shown: &[usize]) -> usize {
        let least = |&index: &usize| match self.columns[index] {
            Column::Number { .. } => self.natural(index),
            Column::Text { least, .. } => self.natural(index).min(least),
        };
        line_width(&shown.iter().map(least).collect::<Vec<_>>())
    }

    fn least_important(&self, shown: &[usize]) -> Option<usize> {
        let rank = |index: usize| match self.columns[index] {
            Column::Number { rank, .. } => rank,
            Column::Text { .. } => None,
        };
        shown
            .iter()
            .copied()
            .filter(|&index| rank(index).is_some())
            .min_by_key(|&index| rank(index))
    }

    /// Returns the width that column `index` takes if there is room.
    fn natural(&self, index: usize) -> usize {
        let column = self.columns[index];
        let cells = self.rows.iter().map(|row| width(&row[index].text));
        let natural = cells.chain([width(column.title())]).max().unwrap_or(0);
        match column {
            Column::Number { .. } => natural,
            Column::Text { most, .. } => natural.min(most),
        }
    }

    /// Returns which of the shown texts is cut next: the one that exceeds its least width most.
    /// Returns `None` if there is nothing to cut.
    fn most_spare(&self, shown: &[usize], widths: &[usize]) -> Option<usize> {
        let spare = |at: usize| match self.columns[shown[at]] {
            Column::Text { least, .. } if widths[at] > 0 => {
                Some((at, widths[at] as i64 - least as i64))
            }
            _ => None,
        };
        (0..shown.len()).filter_map(spare).max_by_key(|&(_, spare)| spare).map(|(at, _)| at)
    }
}

impl<'a> Column<'a> {
    fn title(self) -> &'a str {
        match self {
            Self::Number { title, .. } | Self::Text { title, .. } => title,
        }
    }
}

impl Cell {
    /// Returns a cell with text, which is cut at its end.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { text: harmless(text), tint: Tint::Plain, path: false, pieces: Vec::new() }
    }

    /// Returns a cell of pieces, each with a tint of its own.
    #[must_use]
    pub fn pieces(pieces: &[(String, Tint)]) -> Self {
        let text: String = pieces.iter().map(|(text, _)| text.as_str()).collect();
        let pieces = pieces.iter().map(|(text, tint)| (harmless(text), *tint)).collect();
        Self { pieces, ..Self::new(&text) }
    }

    /// Returns a cell with a path, which is cut at its beginning.
    #[must_use]
    pub fn path(text: &str) -> Self {
        Self { path: true, ..Self::new(text) }
    }

    fn title(column: Column<'_>) -> Self {
        Self::new(column.title()).tint(Tint::Title)
    }

    /// Returns the cell in another tint.
    #[must_use]
    pub fn tint(self, tint: Tint) -> Self {
        Self { tint, ..self }
    }

    fn paint(&self, cut: &str, ink: Ink) -> String {
        if self.pieces.is_empty() || cut != self.text {
            return ink.paint(cut, self.tint);
        }
        self.pieces.iter().map(|(text, tint)| ink.paint(text, *tint)).collect()
    }

    fn cut(&self, max: usize) -> String {
        match self.path {
            true => cut_path(&self.text, max),
            false => cut_end(&self.text, max),
        }
    }
}

fn line_width(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}
