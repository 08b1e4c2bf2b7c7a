//! What the table shows of counted events: the sources of the counts, and the counts of each site and task.

use super::rows::{Counted, duration};
use crate::pmus::counters::{Counter, CounterSource};
use crate::report::derived::{Ratio, ipc, mpki};
use pertask_text::grid::{Cell, Column};
use pertask_text::human;
use pertask_text::ink::Tint;

/// One column of counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) title: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// The count of the event in this place; `ns` says whether it counts nanoseconds.
    Count { place: usize, ns: bool },
    /// Instructions per cycle, for the instructions event of this name.
    Ipc(String),
    /// Misses per thousand instructions, for the misses event of this name.
    Mpki(String),
}

/// The columns for these events: one for each event that is counted, followed by the ratio that the event allows.
pub(super) fn shown(sources: &[CounterSource]) -> Vec<Shown> {
    let has = |event: &str| sources.iter().any(|other| other.event == event);
    let mut columns = Vec::new();
    let counted = sources.iter().enumerate().filter(|(_, source)| source.source.is_some());
    for (place, CounterSource { event, unit, modes: counted_in, .. }) in counted {
        let ns = unit.as_deref() == Some("ns");
        let (name, modes) = event.split_once(':').unwrap_or((event, ""));
        // `perf stat` marks an event like this that could be counted in user mode only, contrary to the request.
        let narrowed = if modes.is_empty() && counted_in == "u" { ":U" } else { "" };
        let title = format!("{}{narrowed}", event.to_uppercase());
        columns.push(Shown { title, kind: Kind::Count { place, ns } });
        let with_modes = |name: &str| match modes {
            "" => name.to_owned(),
            modes => format!("{name}:{modes}"),
        };
        if name == "instructions" && has(&with_modes("cycles")) {
            columns.push(Shown { title: "IPC".to_owned(), kind: Kind::Ipc(event.clone()) });
        }
        if name.ends_with("-misses") && has(&with_modes("instructions")) {
            columns.push(Shown { title: "MPKI".to_owned(), kind: Kind::Mpki(event.clone()) });
        }
    }
    columns
}

/// The grid's columns for a list of `R`. Where there is no room for all, the last events go first.
pub(super) fn columns<R: Counted>(shown: &[Shown]) -> Vec<Column<'_>> {
    let numbers = shown.iter().enumerate().map(|(place, column)| Column::Number {
        title: &column.title,
        rank: u8::try_from(shown.len() - place).ok(),
    });
    numbers.chain(R::SUBJECT.iter().copied()).collect()
}

pub(super) fn cells<R: Counted>(row: &R, shown: &[Shown]) -> Vec<Cell> {
    let counters = row.counters();
    let numbers = shown.iter().map(|column| match &column.kind {
        Kind::Count { place, ns } => count(counters.get(*place), *ns),
        Kind::Ipc(instructions) => ratio(ipc(counters, instructions)),
        Kind::Mpki(misses) => ratio(mpki(counters, misses)),
    });
    numbers.chain(row.subject()).collect()
}

/// One line for each event, with the source of its counts.
pub(super) fn sources(sources: &[CounterSource]) -> Vec<(String, Tint)> {
    let line =
        |CounterSource { event, source, refused, .. }: &CounterSource| match (source, refused) {
            (Some(source), None) => (format!("{event}: {source}"), Tint::Secondary),
            (Some(source), Some(refused)) => {
                (format!("{event}: {source} ({refused})"), Tint::Secondary)
            }
            (None, reason) => {
                let reason = reason.as_deref().unwrap_or("no reason known");
                (format!("{event}: not counted ({reason})"), Tint::Warning)
            }
        };
    sources.iter().map(line).collect()
}

fn count(counter: Option<&Counter>, ns: bool) -> Cell {
    let Some((count, counter)) = counter.and_then(|it| Some((it.count?, it))) else {
        return Cell::new(human::NONE);
    };
    if ns {
        return duration(Some(count));
    }
    Cell::new(&marked(human::count(count), counter.estimated))
}

fn ratio(ratio: Option<Ratio>) -> Cell {
    let text = ratio.map(|ratio| marked(format!("{:.2}", ratio.value), ratio.estimated));
    Cell::new(text.as_deref().unwrap_or(human::NONE))
}

fn marked(number: String, estimated: bool) -> String {
    if estimated { format!("~{number}") } else { number }
}
