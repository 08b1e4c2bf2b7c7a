//! `pertask report`: reads a profile from a file and writes it as tables, as JSON or for viewers.

mod difference;
mod harmless_json;
mod input;
mod json;
mod near;
mod options;
mod output;
mod symbols;
mod text;

use std::{collections::HashMap, path::Path, sync::Arc};

use pertask::profile::{FlamegraphOptions, PprofFile, Profile};

use crate::error::Error;
use output::{Pictures, tables};

pub use options::{ABOUT, By, HELP, LONG_ABOUT, ReportOptions, group_by};
pub use symbols::SymbolOptions;
pub use text::Shown;

/// Reads the profile, or two, and writes what the options ask for.
///
/// # Errors
///
/// Returns an [`Error`] if the profile cannot be read, no sample matches, or something cannot be written.
pub fn run(options: &ReportOptions) -> Result<(), Error> {
    if let Some(before) = &options.diff {
        return difference::of_two(options, before);
    }
    match input::read(&options.file, &options.limits(), &options.symbols)? {
        PprofFile::Profile(profile) => of_one(options, options.symbols.named(*profile)),
        PprofFile::Difference(two) => difference::of_file(options, *two),
    }
}

fn of_one(options: &ReportOptions, mut whole: Profile) -> Result<(), Error> {
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
    let by = group_by(&options.by, profile);
    tables(
        options,
        |to, style| to.write_all(shown.text(&by, style).as_bytes()),
        |to, most_rows| json::report(to, &shown, &by, most_rows),
    )?;
    Pictures::of(options).draw(profile, FlamegraphOptions::default())
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

/// Returns whether the path means standard output.
pub fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}
