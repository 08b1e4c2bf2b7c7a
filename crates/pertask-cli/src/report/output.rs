//! Where a report goes: its tables to stdout or a file, its pictures to files.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use pertask::profile::{FlamegraphOptions, Profile, RootBy, SummaryStyle, Weight};

use super::{ReportOptions, is_stdout};
use crate::{
    error::Error,
    output::{note, print_with, stdout_style},
    replace::replace,
};

/// The most rows of a table for people, unless they ask for another number.
const TOP: usize = 20;

/// Writes the tables as `text`, or as `json` with at most so many rows, to where the options say.
///
/// # Errors
///
/// Returns an [`Error`] if they cannot be written.
pub fn tables(
    options: &ReportOptions,
    text: impl FnOnce(&mut dyn Write, SummaryStyle) -> io::Result<()>,
    json: impl FnOnce(&mut dyn Write, usize) -> io::Result<()>,
) -> Result<(), Error> {
    let file = options.output.as_deref().filter(|path| path.as_os_str() != "-");
    let style = || {
        let terminal = stdout_style();
        let (width, color) = match file {
            Some(_) => (None, false),
            None => (terminal.width, terminal.color),
        };
        let whole_names = options.full_names;
        SummaryStyle { width, color, max_rows: options.most_rows(TOP), whole_names }
    };
    let report = |to: &mut dyn Write| match options.is_json() {
        true => json(to, options.most_rows(usize::MAX)),
        false => text(to, style()),
    };
    match file {
        Some(path) => write(path, "report", report),
        // The folded stacks go to stdout instead.
        None if options.folded.as_deref().is_some_and(is_stdout) && options.output.is_none() => {
            Ok(())
        }
        None => print_with(|to| {
            let mut to = BufWriter::new(to);
            report(&mut to)?;
            to.flush()
        }),
    }
}

/// The pictures that the options ask for, and the stacks for viewers.
pub struct Pictures<'a>(&'a ReportOptions);

impl<'a> Pictures<'a> {
    /// Returns those that these options ask for.
    pub fn of(options: &'a ReportOptions) -> Self {
        Self(options)
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        let ReportOptions { flamegraph, firefox, speedscope, folded, .. } = self.0;
        [flamegraph, firefox, speedscope, folded].into_iter().all(Option::is_none)
    }

    /// Draws them, the flamegraph as `drawing` says.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if one cannot be written.
    pub fn draw(&self, profile: &Profile, drawing: FlamegraphOptions) -> Result<(), Error> {
        let options = self.0;
        let root: RootBy = options.root.into();
        if let Some(path) = &options.flamegraph {
            let drawing = FlamegraphOptions { root, ..drawing };
            write(path, "flamegraph", |to| profile.write_flamegraph(&drawing, to))?;
        }
        if let Some(path) = &options.firefox {
            write(path, "Firefox profile", |to| profile.write_firefox("pertask", to))?;
        }
        if let Some(path) = &options.speedscope {
            write(path, "speedscope profile", |to| {
                profile.write_speedscope("pertask", root, Weight::Time, to)
            })?;
        }
        let Some(path) = &options.folded else { return Ok(()) };
        if !is_stdout(path) {
            return write(path, "folded stacks", |to| profile.write_folded(root, Weight::Time, to));
        }
        print_with(|to| profile.write_folded(root, Weight::Time, to))
    }
}

/// Replaces a file, and says so on stderr.
fn write(
    path: &Path,
    what: &str,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    replace(path, write)?;
    note(format_args!("{what} written to {}", path.display()));
    Ok(())
}
