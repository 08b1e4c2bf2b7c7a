//! `pertask report`: reads a profile from a file and writes it as tables, as JSON or for viewers.

mod harmless_json;
mod input;
mod json;
mod near;
mod options;
mod symbols;
mod text;

use std::{
    collections::HashMap,
    io::{BufWriter, Write},
    path::Path,
    sync::Arc,
};

use pertask::profile::{FlamegraphOptions, Profile, SummaryStyle, Weight};

use crate::{
    error::Error,
    output::{note, print_with, stdout_style},
    replace::replace,
};

pub use options::{ABOUT, By, HELP, LONG_ABOUT, ReportOptions, group_by};
pub use symbols::SymbolOptions;
pub use text::Shown;

/// The most rows of a table for people, unless they ask for another number.
const TOP: usize = 20;

/// Reads the profile and writes what the options ask for.
///
/// # Errors
///
/// Returns an [`Error`] if the profile cannot be read, no sample matches, or something cannot be written.
pub fn run(options: &ReportOptions) -> Result<(), Error> {
    let mut whole =
        options.symbols.named(input::read(&options.file, &options.limits(), &options.symbols)?);
    if options.full_names {
        show_types(&mut whole);
    }
    let filter = options.filter();
    let part = if filter.is_empty() { None } else { Some(whole.filtered(&filter)) };
    if let Some(part) = &part
        && part.samples.is_empty()
    {
        let place = input::place(&options.file);
        return Err(Error::NothingMatched { place, why: near::why(&whole, &filter) });
    }
    let profile = part.as_ref().unwrap_or(&whole);
    let shown = Shown { whole: &whole, part: part.as_ref().map(|part| (part, &filter)) };
    tables(options, &shown)?;
    pictures(options, profile)
}

/// Names tasks that are known by their types after the whole type.
pub fn show_types(profile: &mut Profile) {
    let mut names: HashMap<Arc<str>, Arc<str>> = HashMap::new();
    for task in profile.samples.iter_mut().filter_map(|sample| sample.task.as_mut()) {
        if let Some(future) = &task.future {
            let whole =
                names.entry(Arc::clone(future)).or_insert_with(|| format!("~{future}").into());
            task.name = Some(Arc::clone(whole));
        }
    }
}

fn tables(options: &ReportOptions, shown: &Shown<'_>) -> Result<(), Error> {
    let by = options::group_by(&options.by, shown.profile());
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
        true => json::report(to, shown, &by, options.most_rows(usize::MAX)),
        false => to.write_all(shown.text(&by, style()).as_bytes()),
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

fn pictures(options: &ReportOptions, profile: &Profile) -> Result<(), Error> {
    let root = options.root.into();
    if let Some(path) = &options.flamegraph {
        let drawing = FlamegraphOptions { root, ..FlamegraphOptions::default() };
        write(path, "flamegraph", |to| profile.write_flamegraph(&drawing, to))?;
    }
    if let Some(path) = &options.firefox {
        write(path, "Firefox profile", |to| profile.write_firefox("pertask", to))?;
    }
    if let Some(path) = &options.speedscope {
        write(path, "speedscope profile", |to| {
            profile.write_speedscope("pertask", root, Weight::CpuNs, to)
        })?;
    }
    let Some(path) = &options.folded else { return Ok(()) };
    if !is_stdout(path) {
        return write(path, "folded stacks", |to| profile.write_folded(root, Weight::CpuNs, to));
    }
    print_with(|to| profile.write_folded(root, Weight::CpuNs, to))
}

/// Replaces a file, and says so on stderr.
fn write(
    path: &Path,
    what: &str,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), Error> {
    replace(path, write)?;
    note(format_args!("{what} written to {}", path.display()));
    Ok(())
}

/// Returns whether the path means standard output.
pub fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}
