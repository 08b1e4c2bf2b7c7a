//! Whole lives: the time of all states together, as text and as JSON.

use pertask::profile::{FlamegraphOptions, GroupBy, Profile, SummaryStyle, Times};

use super::{
    ReportOptions, Shown, json,
    output::{Pictures, tables},
};
use crate::error::Error;

/// Writes what the options ask for of all states.
///
/// # Errors
///
/// Returns an [`Error`] if something cannot be written.
pub fn write(options: &ReportOptions, shown: &Shown<'_>, states: Times) -> Result<(), Error> {
    let by = options.groups().unwrap_or_else(|| vec![GroupBy::Site]);
    tables(
        options,
        |to, style| to.write_all(text(shown, &by, style).as_bytes()),
        |to, most_rows| json::lives(to, shown, states, &by, most_rows),
    )?;
    let drawing = FlamegraphOptions { whole_life: true, ..FlamegraphOptions::default() };
    Pictures::of(options).draw(shown.profile(), drawing)
}

/// Returns the profile with the samples of all states as if they were of one, to look for names in.
pub fn as_one(profile: &Profile) -> Profile {
    let mut one = profile.clone();
    let off_cpu = std::mem::take(&mut one.off_cpu);
    one.samples.extend(off_cpu);
    one
}

/// Returns the text, which ends with a line break.
fn text(shown: &Shown<'_>, by: &[GroupBy], style: SummaryStyle) -> String {
    let overview = shown.overview(style).of_whole_life().to_string();
    let tables = by.iter().map(|by| shown.profile().lives(by).table(style).to_string());
    let sections: Vec<_> = [overview].into_iter().chain(tables).collect();
    sections.join("\n\n") + "\n"
}
