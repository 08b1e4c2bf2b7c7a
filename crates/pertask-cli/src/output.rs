//! Where words go: reports to stdout, everything else to stderr.

use std::{
    env, fmt,
    io::{self, IsTerminal, Write},
};

use pertask::{Report, TableStyle};

use crate::error::Error;

/// Says something on stderr, one line.
pub fn note(line: fmt::Arguments<'_>) {
    // Nobody may be reading stderr; the report and the exit status still count.
    let _ = writeln!(io::stderr(), "{line}");
}

/// A count and what is counted: `1 request`, `2 requests`.
pub fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// Whether the terminal says that it cannot move its cursor or change colours.
pub fn is_dumb_terminal() -> bool {
    env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Writes to stdout. A reader that has seen enough (`| head`) is no error.
///
/// # Errors
///
/// [`Error::Write`] where the text did not arrive as a whole.
pub fn print(text: &str) -> Result<(), Error> {
    match write_text(io::stdout().lock(), text) {
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => {
            written.map_err(|cause| Error::Write { place: "standard output".to_owned(), cause })
        }
    }
}

/// Writes the report to stdout, its table with the tree of spawns if `tree`.
///
/// # Errors
///
/// As [`print()`].
pub fn print_report(report: &Report, format: Format, tree: bool) -> Result<(), Error> {
    print(&render(report, format, TableStyle { tree, ..stdout_style() }))
}

/// The report as text that ends its last line.
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

/// Width and colour belong to terminals: a pipe gets neither.
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

fn write_text(mut to: impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_none_is_not() {
        let requests = [0, 1, 2].map(|count| counted(count, "request"));
        assert_eq!(requests, ["0 requests", "1 request", "2 requests"]);
    }
}
