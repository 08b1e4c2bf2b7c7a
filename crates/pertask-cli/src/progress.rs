//! A line on stderr that shows a command's progress and is updated in place.
//!
//! It is drawn only if stderr is a terminal: a log file has no use for it.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use crate::output::is_dumb_terminal;

/// The progress line, which is cleared when it is dropped.
pub struct Progress {
    terminal: bool,
    drawn: bool,
}

impl Progress {
    /// The time that should pass between two calls of [`draw`](Self::draw).
    pub const PERIOD: Duration = Duration::from_millis(200);

    /// Returns a line that is not drawn yet.
    pub fn new() -> Self {
        Self { terminal: io::stderr().is_terminal() && !is_dumb_terminal(), drawn: false }
    }

    /// Returns whether anybody can see the line.
    pub fn is_visible(&self) -> bool {
        self.terminal
    }

    /// Replaces the text of the line.
    pub fn draw(&mut self, line: &str) {
        if self.terminal {
            self.drawn = true;
            print(format_args!("\r\x1b[2K{}", fitting(line)));
        }
    }

    /// Removes the line, so that other output can follow.
    pub fn clear(&mut self) {
        if self.drawn {
            self.drawn = false;
            print(format_args!("\r\x1b[2K"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Returns the part of an ASCII line that fits the terminal, because a wrapped line could not be cleared.
fn fitting(line: &str) -> &str {
    let columns =
        terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| usize::from(width.0));
    line.get(..columns.saturating_sub(1)).unwrap_or(line)
}

fn print(text: std::fmt::Arguments<'_>) {
    let mut stderr = io::stderr().lock();
    // A terminal that is gone is no reason to end a measurement.
    let _ = stderr.write_fmt(text).and_then(|()| stderr.flush());
}
