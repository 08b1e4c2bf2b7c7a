//! By which column rows are sorted.

use super::column::Column;

/// A column, and the direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// The column.
    pub column: Column,
    /// Whether the direction is the other one than people want of this column.
    pub reversed: bool,
}

impl Sort {
    /// Sorts by a column, in the direction that people want of it.
    pub fn by(column: Column) -> Self {
        Self { column, reversed: false }
    }

    /// Sorts by a column. If rows are sorted by it already, the direction changes.
    pub fn choose(&mut self, column: Column) {
        match self.column == column {
            true => self.reversed = !self.reversed,
            false => *self = Self::by(column),
        }
    }

    /// Sorts by the next of the columns, or by the one before.
    pub fn step(&mut self, columns: &[Column], forward: bool) {
        let Some(at) = columns.iter().position(|column| *column == self.column) else { return };
        let next = if forward { at + 1 } else { at + columns.len() - 1 };
        *self = Self::by(columns[next % columns.len()]);
    }

    /// Returns whether the greatest values come first.
    pub fn is_descending(self) -> bool {
        self.column.is_descending() != self.reversed
    }
}
