//! Two profiles and what has changed between them: of two files, or of one that is their difference.

use std::path::Path;

use pertask::profile::{
    Comparison, FlamegraphOptions, GroupBy, Part, PprofDifference, PprofFile, Profile, ReadError,
    RootBy, Side, SummaryStyle, Times,
};

use super::{
    ReportOptions, group_by, input, json, near,
    output::{Pictures, tables},
    show_types, state,
};
use crate::{error::Error, output::note};

/// Reads the profile before and that after, and writes what has changed.
///
/// # Errors
///
/// Returns an [`Error`] if a profile cannot be read or compared, no sample matches, or something cannot be written.
pub fn of_two(options: &ReportOptions, before: &Path) -> Result<(), Error> {
    let after = &options.file;
    let read = |path| input::read(path, &options.limits(), &options.symbols);
    let (first, second) = (read(before), read(after));
    let [first, second] = comparable([(before, first), (after, second)])?;
    let [first, second] = [first, second].map(|profile| options.symbols.named(profile));
    let states = [&first, &second].map(Profile::times);
    let of_state = |profile, path| state::selected(profile, options.state, &input::place(path));
    let (first, second) = (of_state(first, before)?, of_state(second, after)?);
    let difference = PprofDifference { before: first, after: second, is_net: false };
    write(options, difference, states, [input::place(before), input::place(after)])
}

/// Writes what has changed between the profiles of which the file is the difference.
///
/// # Errors
///
/// Returns an [`Error`] if no sample matches, or something cannot be written.
pub fn of_file(options: &ReportOptions, difference: PprofDifference) -> Result<(), Error> {
    let PprofDifference { before, after, is_net } = difference;
    let [before, after] = [before, after].map(|profile| options.symbols.named(profile));
    let place = input::place(&options.file);
    let states = [&before, &after].map(Profile::times);
    let [before, after] = state::of_both([before, after], options.state, &place)?;
    let difference = PprofDifference { before, after, is_net };
    write(options, difference, states, [place.clone(), place])
}

/// Returns the two profiles, or an error if one is none or they are of different things.
fn comparable(files: [(&Path, Result<PprofFile, Error>); 2]) -> Result<[Profile; 2], Error> {
    let places = [files[0].0, files[1].0].map(input::place);
    let [(before, first), (after, second)] = files;
    let [cpu, other] = match (&first, &second) {
        (Ok(_), Err(_)) => places,
        _ => [places[1].clone(), places[0].clone()],
    };
    let is_other = first.is_ok() != second.is_ok();
    let refused = |cause| match cause {
        Error::Damaged { cause: ReadError::NotCpuTime { found }, .. } if is_other => {
            Error::Incomparable { cpu: cpu.clone(), other: other.clone(), found }
        }
        cause => cause,
    };
    let (first, second) = (first.map_err(refused)?, second.map_err(refused)?);
    Ok([profile(before, first)?, profile(after, second)?])
}

fn profile(path: &Path, file: PprofFile) -> Result<Profile, Error> {
    match file {
        PprofFile::Profile(profile) => Ok(*profile),
        PprofFile::Difference(_) => Err(Error::IsDifference { place: input::place(path) }),
    }
}

fn write(
    options: &ReportOptions,
    mut difference: PprofDifference,
    states: [Times; 2],
    names: [String; 2],
) -> Result<(), Error> {
    if options.full_names {
        show_types(&mut difference.before);
        show_types(&mut difference.after);
    }
    let filter = options.filter();
    let part = |whole: &Profile| (!filter.is_empty()).then(|| whole.filtered(&filter));
    let parts = [part(&difference.before), part(&difference.after)];
    if let [Some(first), Some(part)] = &parts
        && first.samples.is_empty()
        && part.samples.is_empty()
    {
        let place = if names[0] == names[1] { names[1].clone() } else { names.join(" and ") };
        return Err(Error::NothingMatched {
            place,
            why: near::why(&difference.after, part, &filter),
        });
    }
    let mut comparison = difference.comparison();
    comparison.before.part = parts[0].as_ref().map(|part| (part, &filter));
    comparison.after.part = parts[1].as_ref().map(|part| (part, &filter));
    let shown = by(options, &comparison);
    tables(
        options,
        |to, style| to.write_all(text(&comparison, &names, &shown, style).as_bytes()),
        |to, most_rows| json::difference(to, &comparison, states, &shown, most_rows),
    )?;
    pictures(options, &comparison)
}

/// Returns the tables: each group, and twice if a sample can be in several of its rows.
fn by(options: &ReportOptions, comparison: &Comparison<'_>) -> Vec<(GroupBy, Part)> {
    let has_tasks = |side: Side<'_>| side.compared().samples.iter().any(|it| it.task.is_some());
    let of = if has_tasks(comparison.before) { comparison.before } else { comparison.after };
    let twice = |by: GroupBy| match by {
        GroupBy::Function | GroupBy::Scope => vec![(by.clone(), Part::Own), (by, Part::Total)],
        by => vec![(by, Part::Own)],
    };
    group_by(&options.by, of.compared()).into_iter().flat_map(twice).collect()
}

/// Returns the text, which ends with a line break.
fn text(
    comparison: &Comparison<'_>,
    names: &[String; 2],
    shown: &[(GroupBy, Part)],
    style: SummaryStyle,
) -> String {
    let overview = comparison.overview(&names[0], &names[1], style).to_string();
    let table =
        |(by, part): &(GroupBy, Part)| comparison.difference(by, *part).table(style).to_string();
    let sections: Vec<_> = [overview].into_iter().chain(shown.iter().map(table)).collect();
    sections.join("\n\n") + "\n"
}

/// Draws what has become more. Pictures have no place for less.
fn pictures(options: &ReportOptions, comparison: &Comparison<'_>) -> Result<(), Error> {
    let wanted = Pictures::of(options);
    if wanted.is_empty() {
        return Ok(());
    }
    let root = options.root.into();
    let growth = comparison.growth(root);
    note(format_args!("pertask: pictures and stacks show {}", growth.profile.mechanism));
    let by = match root {
        RootBy::Site => "spawn site",
        RootBy::Thread => "thread",
        _ => "task",
    };
    let title = format!("Growth of {} by {by}", comparison.measure.name());
    let drawing = FlamegraphOptions {
        title: Some(title),
        subtitle: Some(growth.profile.mechanism.clone()),
        ..FlamegraphOptions::default()
    };
    wanted.draw(&growth.profile, drawing)
}
