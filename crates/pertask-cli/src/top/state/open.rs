//! A page that is open: its filter, its order of rows, and where in them the user is.

use super::{
    page::Page,
    rows::{RowKey, Rows, order},
    sort::Sort,
};

/// A page, and how the user has left it.
#[derive(Clone, Debug)]
pub struct Open {
    /// The page.
    pub page: Page,
    /// What the rows' names must contain. Empty for all rows.
    pub filter: String,
    cursor: Cursor,
    /// The rows to show, in order, by their numbers.
    order: Vec<usize>,
    /// The number of rows above the window.
    above: usize,
}

/// Where the user is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cursor {
    /// On the first row, whichever that is.
    Top,
    /// On one row, wherever it goes. `at` is where it was seen last.
    Row { key: RowKey, at: usize },
}

impl Open {
    /// Opens a page at its top.
    pub fn new(page: Page) -> Self {
        let (filter, order) = (String::new(), Vec::new());
        Self { page, filter, cursor: Cursor::Top, order, above: 0 }
    }

    /// Puts the rows in order, and follows the selected one.
    pub fn arrange(&mut self, rows: &dyn Rows, sort: Sort) {
        self.order = order(rows, &self.filter, sort);
        if let Cursor::Row { key, at } = &mut self.cursor {
            let found = self.order.iter().position(|row| rows.key(*row) == *key);
            *at = found.unwrap_or(*at);
        }
    }

    /// Moves the window of so many rows no further than it takes to show the selected one.
    pub fn scroll(&mut self, height: usize) {
        let at = self.at().unwrap_or(0);
        let most = self.order.len().saturating_sub(height);
        let least = (at + 1).saturating_sub(height);
        self.above = self.above.clamp(least, at.max(least)).min(most);
    }

    /// Selects the row that is so many rows below the selected one, or above it if `by` is negative.
    pub fn step(&mut self, by: isize, rows: &dyn Rows) {
        self.select(self.at().unwrap_or(0).saturating_add_signed(by), rows);
    }

    /// Selects the last row.
    pub fn select_last(&mut self, rows: &dyn Rows) {
        self.select(usize::MAX, rows);
    }

    /// Selects the first row, and stays there whatever row comes first.
    pub fn select_top(&mut self) {
        self.cursor = Cursor::Top;
    }

    fn select(&mut self, at: usize, rows: &dyn Rows) {
        let at = at.min(self.order.len().saturating_sub(1));
        if let Some(row) = self.order.get(at) {
            self.cursor = Cursor::Row { key: rows.key(*row), at };
        }
    }

    /// Returns where in the order the selected row is.
    pub fn at(&self) -> Option<usize> {
        let last = self.order.len().checked_sub(1)?;
        Some(match self.cursor {
            Cursor::Top => 0,
            Cursor::Row { at, .. } => at.min(last),
        })
    }

    /// Returns the selected row's number.
    pub fn selected(&self) -> Option<usize> {
        self.at().map(|at| self.order[at])
    }

    /// Returns the rows to show, in order, by their numbers.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Returns the number of rows above the window.
    pub fn above(&self) -> usize {
        self.above
    }
}
