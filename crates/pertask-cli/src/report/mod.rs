//! `pertask report`: reads a profile from a file and writes it as tables, as JSON or for viewers.

mod difference;
mod harmless_json;
mod help;
mod input;
mod json;
mod lives;
mod near;
mod options;
mod output;
mod state;
mod symbols;
mod text;

use std::{collections::HashMap, path::Path, sync::Arc};

use pertask::profile::{FlamegraphOptions, PprofFile, Profile};

use crate::{error::Error, places};
use output::{Pictures, tables};
use state::StateOption;

pub use help::{ABOUT, HELP, LONG_ABOUT};
pub use options::{By, ReportOptions, group_by};
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
    let place = input::place(&options.file);
    let states = whole.times();
    let whole = state::selected(whole, options.state, &place)?;
    let is_life = options.state == Some(StateOption::Life);
    let filter = options.filter();
    let part = if filter.is_empty() { None } else { Some(whole.filtered(&filter)) };
    if let Some(part) = &part
        && part.samples.is_empty()
        && (!is_life || part.off_cpu.is_empty())
        && places::allocations(part).is_empty()
    {
        let searched = if is_life { lives::as_one(&whole) } else { whole.clone() };
        return Err(Error::NothingMatched { place, why: near::why(&searched, part, &filter) });
    }
    let profile = part.as_ref().unwrap_or(&whole);
    let shown = Shown { whole: &whole, part: part.as_ref().map(|part| (part, &filter)) };
    if is_life {
        return lives::write(options, &shown, states);
    }
    let by = group_by(&options.by, profile);
    tables(
        options,
        |to, style| {
            to.write_all(shown.text(&by, style).as_bytes())?;
            let allocations = places::of_allocations(profile, style);
            allocations.map_or(Ok(()), |table| writeln!(to, "\n{table}"))
        },
        |to, most_rows| json::report(to, &shown, states, &by, most_rows),
    )?;
    Pictures::of(options).draw(profile, FlamegraphOptions::default())
}

/// Names tasks that are known by their types after the whole type.
pub fn show_types(profile: &mut Profile) {
    let mut names: HashMap<Arc<str>, Arc<str>> = HashMap::new();
    let of_allocations = profile.allocations.iter_mut().map(|it| &mut it.sample);
    let samples = profile.samples.iter_mut().chain(&mut profile.off_cpu).chain(of_allocations);
    for task in samples.filter_map(|sample| sample.task.as_mut()) {
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
