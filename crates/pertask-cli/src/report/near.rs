//! Explains why nothing matched, and suggests names that were perhaps meant.

use std::collections::BTreeSet;

use pertask::profile::{Filter, GroupBy, Profile, Subject};

/// The most names that are suggested.
const MOST: usize = 5;
/// The most characters of a name that are compared and shown.
const COMPARED: usize = 64;

/// Returns one line that says why no sample of the profile meets the filter. `part` is what the filter selects of it, which may be
/// time in another state than the profile's.
pub fn why(profile: &Profile, part: &Profile, filter: &Filter) -> String {
    if profile.samples.is_empty() && profile.off_cpu.is_empty() {
        return "the profile has no samples.".to_owned();
    }
    if part.times().sum() > 0 {
        return format!(
            "there is no {} with {}, but there is {}. See pertask report --state.",
            profile.state.time(),
            shown(&filter.to_string()),
            part.times()
        );
    }
    let conditions = filter.conditions();
    let unmet = conditions.iter().find(|alone| profile.filtered(alone).samples.is_empty());
    match unmet {
        Some(alone) => {
            format!("no sample has {}. {}", shown(&alone.to_string()), instead(profile, alone))
        }
        None => format!(
            "each condition is met by some samples, but no sample meets all of them: {}. Leave one out.",
            shown(&filter.to_string())
        ),
    }
}

/// Returns a sentence with the names that the profile has instead.
fn instead(profile: &Profile, alone: &Filter) -> String {
    let named = |by| {
        let rows = profile.summary(&by).rows.into_iter();
        rows.map(|row| row.subject).collect::<Vec<_>>()
    };
    let names = |by| named(by).iter().map(Subject::to_string).collect();
    let (what, wanted, found): (_, _, Vec<String>) = match alone {
        Filter { task: Some(task), .. } => {
            ("tasks", task.as_str(), task_names(&named(GroupBy::Site)))
        }
        Filter { site: Some(site), .. } => ("sites", site, places(&named(GroupBy::Site))),
        Filter { thread: Some(thread), .. } => ("threads", thread, names(GroupBy::Thread)),
        Filter { labels, functions, .. } => match (&labels[..], &functions[..]) {
            ([(key, value), ..], _) => match profile.label_keys().iter().any(|it| **it == **key) {
                true => ("values", value, names(GroupBy::Label(key.as_str().into()))),
                false => {
                    let keys = profile.label_keys();
                    ("label keys", key, keys.iter().map(ToString::to_string).collect())
                }
            },
            (_, [name, ..]) => ("functions", name, names(GroupBy::Function)),
            _ => return String::new(),
        },
    };
    let near = nearest(wanted, found);
    if near.is_empty() {
        return format!("The profile has no {what}.");
    }
    let near: Vec<_> = near.iter().map(|name| format!("\"{}\"", shown(name))).collect();
    format!("The nearest {what}: {}.", near.join(", "))
}

fn task_names(subjects: &[Subject]) -> Vec<String> {
    let name = |subject: &Subject| match subject {
        Subject::Site { name: Some(name), .. } => Some(name.to_string()),
        Subject::OutsideTasks | Subject::Runtime(_) => Some(subject.to_string()),
        _ => None,
    };
    subjects.iter().filter_map(name).collect()
}

fn places(subjects: &[Subject]) -> Vec<String> {
    let place = |subject: &Subject| match subject {
        Subject::Site { site: Some(site), .. } => Some(format!("{}:{}", site.file, site.line)),
        _ => None,
    };
    subjects.iter().filter_map(place).collect()
}

/// Returns the names most like the wanted one. Names that contain it come first.
fn nearest(wanted: &str, names: Vec<String>) -> Vec<String> {
    let wanted: Vec<char> = folded(wanted);
    let score = |name: String| {
        let chars = folded(&name);
        let contains = |of: &[char], part: &[char]| {
            !part.is_empty() && of.windows(part.len()).any(|window| window == part)
        };
        let apart = !contains(&chars, &wanted) && !contains(&wanted, &chars);
        (apart, distance(&wanted, &chars), name)
    };
    let names: BTreeSet<_> = names.into_iter().collect();
    let mut scored: Vec<_> = names.into_iter().map(score).collect();
    scored.sort();
    scored.into_iter().take(MOST).map(|(.., name)| name).collect()
}

/// Returns the part of a name that is compared: its beginning, in lower case.
fn folded(name: &str) -> Vec<char> {
    name.chars().take(COMPARED).flat_map(char::to_lowercase).collect()
}

/// Returns how many characters must be inserted, removed or changed to turn one into the other.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, from) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, to) in to.iter().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

/// Returns a name from the file or the command line, ready for a message of one line.
fn shown(name: &str) -> String {
    let cut: String = name.chars().take(COMPARED).collect();
    let more = if cut.len() < name.len() { "…" } else { "" };
    cut.escape_debug().to_string() + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_come_first() {
        let names = ["GET /hash", "GET /render", "POST /hash", "client"].map(str::to_owned);
        assert_eq!(nearest("GET /hsh", names.to_vec())[0], "GET /hash");
        assert_eq!(nearest("RENDER", names.to_vec())[0], "GET /render");
        assert_eq!(nearest("", names.to_vec()).len(), 4);
    }

    #[test]
    fn distances_are_counted() {
        let distance = |from: &str, to: &str| super::distance(&folded(from), &folded(to));
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("Same", "same"), 0);
    }
}
