//! Where a report goes: its tables to stdout or a file, its pictures to files.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use pertask::profile::{FlamegraphOptions, Profile, RootBy, SummaryStyle, Weight};

use super::{ReportOptions, is_stdout, options::Written};
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
    if options.output.is_some() && options.output_of(Written::Tables).is_none() {
        return Ok(());
    }
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
        let firefox = self.0.firefox.as_deref();
        let files = [self.flamegraphs(), self.speedscopes(), self.folded()];
        files.into_iter().flatten().flatten().chain(firefox).next().is_none()
    }

    /// Draws them, the flamegraph as `drawing` says. If that is of whole lives, so are the stacks.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if one cannot be written.
    pub fn draw(&self, profile: &Profile, drawing: FlamegraphOptions) -> Result<(), Error> {
        let root: RootBy = self.0.root.into();
        let is_life = drawing.whole_life;
        let drawing = FlamegraphOptions { root, ..drawing };
        for path in self.flamegraphs().into_iter().flatten() {
            write(path, "flamegraph", |to| profile.write_flamegraph(&drawing, to))?;
        }
        if let Some(path) = &self.0.firefox {
            write(path, "Firefox profile", |to| profile.write_firefox("pertask", to))?;
        }
        for path in self.speedscopes().into_iter().flatten() {
            write(path, "speedscope profile", |to| {
                profile.write_speedscope("pertask", root, Weight::Time, to)
            })?;
        }
        let folded = |to: &mut dyn Write| match is_life {
            true => profile.write_folded_lives(root, to),
            false => profile.write_folded(root, Weight::Time, to),
        };
        for path in self.folded().into_iter().flatten() {
            match is_stdout(path) {
                true => print_with(|to| folded(to))?,
                false => write(path, "folded stacks", folded)?,
            }
        }
        Ok(())
    }

    fn flamegraphs(&self) -> [Option<&'a Path>; 2] {
        [self.0.flamegraph.as_deref(), self.0.output_of(Written::Flamegraph)]
    }

    fn speedscopes(&self) -> [Option<&'a Path>; 2] {
        [self.0.speedscope.as_deref(), self.0.output_of(Written::Speedscope)]
    }

    fn folded(&self) -> [Option<&'a Path>; 2] {
        [self.0.folded.as_deref(), self.0.output_of(Written::Folded)]
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
