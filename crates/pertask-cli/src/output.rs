//! Where words go: reports to stdout or a file, everything else to stderr.

use std::{
    env, fmt,
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use pertask::{Report, TableStyle};

use crate::error::Error;

/// Says something on stderr, one line.
pub fn note(line: fmt::Arguments<'_>) {
    // Nobody may be reading stderr; the report and the exit status still count.
    let _ = writeln!(io::stderr(), "{line}");
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

impl Format {
    /// JSON where it is asked for, or where the file's name ends in `.json`.
    pub fn choose(json: bool, path: Option<&Path>) -> Self {
        let named_json = path
            .and_then(Path::extension)
            .is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        if json || named_json { Self::Json } else { Self::Table }
    }
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

/// Where a report goes.
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, open already.
    File { path: PathBuf, file: File },
}

impl Destination {
    /// Opens the file at `path`, or chooses stdout where that is absent or `-`.
    ///
    /// Called before measuring, so that a bad path costs no run; what the file held is kept until a report replaces it.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] where the file cannot be opened for writing.
    pub fn open(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path.filter(|path| path.as_os_str() != "-") else {
            return Ok(Self::Stdout);
        };
        match OpenOptions::new().write(true).create(true).truncate(false).open(path) {
            Ok(file) => Ok(Self::File { path: path.to_owned(), file }),
            Err(cause) => Err(Error::Open { path: path.to_owned(), cause }),
        }
    }

    /// Writes the report, its table with the tree of spawns if `tree`, and says where, unless that is stdout.
    ///
    /// A reader of stdout that has seen enough (`| head`) is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] where the report did not arrive as a whole.
    pub fn write(self, report: &Report, format: Format, tree: bool) -> Result<(), Error> {
        match self {
            Self::Stdout => print(&render(report, format, TableStyle { tree, ..stdout_style() })),
            Self::File { path, file } => {
                let text = render(report, format, TableStyle { tree, ..TableStyle::default() });
                empty(&file)
                    .and_then(|()| write_text(file, &text))
                    .map_err(|cause| Error::Write { place: path.display().to_string(), cause })?;
                note(format_args!("report written to {}", path.display()));
                Ok(())
            }
        }
    }
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
fn stdout_style() -> TableStyle {
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

/// Drops what a regular file held. A pipe or a device holds nothing and refuses to be cut.
fn empty(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() { file.set_len(0) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_chosen_by_flag_or_by_name() {
        assert_eq!(Format::choose(false, None), Format::Table);
        assert_eq!(Format::choose(true, None), Format::Json);
        assert_eq!(Format::choose(true, Some(Path::new("report.txt"))), Format::Json);
        assert_eq!(Format::choose(false, Some(Path::new("report.JSON"))), Format::Json);
        assert_eq!(Format::choose(false, Some(Path::new("json"))), Format::Table);
    }
}
