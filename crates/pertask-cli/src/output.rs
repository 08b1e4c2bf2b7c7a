//! Writes reports to stdout and everything else to stderr.

use std::{
    env,
    fmt::{self, Write as _},
    io::{self, IsTerminal, Write},
};

use pertask::{Report, TableStyle};
use pertask_text::text::is_harmful;

use crate::error::Error;

/// Writes a line to stderr.
pub fn note(line: fmt::Arguments<'_>) {
    // If nobody reads stderr, the report and the exit status still matter.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Returns JSON of another program, with its control characters escaped.
pub fn harmless_json(json: &str) -> String {
    let mut harmless = String::with_capacity(json.len());
    for char in json.chars() {
        match char {
            '\n' => harmless.push(char),
            char if is_harmful(char) => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    _ = write!(harmless, "\\u{unit:04x}");
                }
            }
            char => harmless.push(char),
        }
    }
    harmless
}

/// Writes text to stdout, and returns whether anybody still reads it.
///
/// # Errors
///
/// Returns [`Error::Write`] if stdout does not take the whole text.
pub fn print_to_reader(text: &str) -> Result<bool, Error> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(cause) => Err(Error::Write { place: "standard output".to_owned(), cause }),
    }
}

/// Returns whether the terminal cannot move its cursor or change colours.
pub fn is_dumb_terminal() -> bool {
    env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// The format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A table for people.
    Table,
    /// JSON for programs.
    Json,
}

/// Writes text to stdout. It is no error if the reader stops early, as `head` does.
///
/// # Errors
///
/// Returns [`Error::Write`] if stdout does not take the whole text.
pub fn print(text: &str) -> Result<(), Error> {
    print_with(|to| to.write_all(text.as_bytes()))
}

/// Lets `write` write to stdout, so that what is long is never in memory as a whole. It is no error if the reader stops early.
///
/// # Errors
///
/// Returns [`Error::Write`] if stdout does not take all of it.
pub fn print_with(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    match write(&mut stdout).and_then(|()| stdout.flush()) {
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => {
            written.map_err(|cause| Error::Write { place: "standard output".to_owned(), cause })
        }
    }
}

/// Writes the report to stdout. If `tree` is true, its table has the tree of spawns.
///
/// # Errors
///
/// Returns [`Error::Write`] if stdout does not take the whole report.
pub fn print_report(report: &Report, format: Format, tree: bool) -> Result<(), Error> {
    print(&render(report, format, TableStyle { tree, ..stdout_style() }))
}

/// Returns the report as text that ends with a line break.
fn render(report: &Report, format: Format, style: TableStyle) -> String {
    let mut text = match format {
        Format::Table => report.table(style).to_string(),
        Format::Json => report.to_json(),
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Returns the style for stdout. A pipe gets neither a width nor colours.
pub fn stdout_style() -> TableStyle {
    let stdout = io::stdout();
    let refused =
        env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) || is_dumb_terminal();
    TableStyle {
        width: terminal_size::terminal_size_of(&stdout).map(|(width, _)| width.0),
        color: stdout.is_terminal() && !refused,
        ..TableStyle::default()
    }
}
