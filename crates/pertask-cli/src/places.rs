//! The places where tasks wait, and who wakes them, and those where they allocate, as tables.

use pertask::profile::{AllocationRow, GroupBy, Profile, State, Subject, SummaryStyle};
use pertask_text::{
    grid::{Cell, Column, Grid},
    human,
    ink::{Ink, Tint},
};

/// The widest name of a function, and the widest place, to show.
const MOST_FUNCTION: usize = 100;
const MOST_PATH: usize = 60;
const MOST_TASK: usize = 40;

/// Returns the tables of the places where tasks wait and of who wakes them, the longest waits first, or `None` if the profile has no
/// waits.
pub fn of_waits(profile: &Profile, style: SummaryStyle) -> Option<String> {
    let waiting = profile.in_state(State::Waiting);
    let table = |by| waiting.summary(&by).table(style).to_string();
    (!waiting.samples.is_empty()).then(|| [GroupBy::Place, GroupBy::Waker].map(table).join("\n\n"))
}

/// Returns the places where tasks allocate, in a profile of the time on the CPU. Of the others, allocations are no part.
pub fn allocations(profile: &Profile) -> Vec<AllocationRow> {
    match profile.state {
        State::OnCpu => profile.allocations_by_place(),
        _ => Vec::new(),
    }
}

/// Returns the table of the places where tasks allocate, most bytes first, or `None` if the profile has no allocations.
pub fn of_allocations(profile: &Profile, style: SummaryStyle) -> Option<String> {
    let rows = allocations(profile);
    let whole = rows.iter().fold(0, |sum: u64, row| sum.saturating_add(row.bytes));
    if rows.is_empty() {
        return None;
    }
    let ink = Ink { color: style.color };
    let title = format!("Places of allocations (% of {})", human::bytes(whole));
    let mut lines = vec![ink.paint(&title, Tint::Title)];
    let (shown, cut) = rows.split_at(style.max_rows.min(rows.len()));
    let number = |title, rank| Column::Number { title, rank };
    let columns = [
        number("ALLOC%", None),
        number("ALLOCATED", None),
        number("CALLS", Some(1)),
        number("AVERAGE", Some(0)),
        Column::Text { title: "TASK", least: 8, most: MOST_TASK },
        Column::Text { title: "PLACE", least: 20, most: MOST_FUNCTION },
        Column::Text { title: "AT", least: 20, most: MOST_PATH },
    ];
    let cells = shown.iter().map(|row| cells(row, whole)).collect();
    lines.extend(Grid::new(&columns, cells).lines(style.width.map(usize::from), ink));
    if !cut.is_empty() {
        let bytes = cut.iter().fold(0, |sum: u64, row| sum.saturating_add(row.bytes));
        let more = human::counted(cut.len() as u64, "more row");
        lines.push(ink.paint(&format!("… and {more}, {}", human::bytes(bytes)), Tint::Secondary));
    }
    Some(lines.join("\n"))
}

fn cells(row: &AllocationRow, whole: u64) -> Vec<Cell> {
    let AllocationRow { place, count, bytes } = row;
    let (name, at, task) = match place {
        Subject::Place { name, at, task } => (name.to_string(), at.as_ref(), task.as_deref()),
        other => (other.to_string(), None, None),
    };
    let at = at.map_or(human::NONE.to_owned(), |site| format!("{}:{}", site.file, site.line));
    vec![
        Cell::new(&human::percent(*bytes, whole)),
        Cell::new(&human::bytes(*bytes)),
        Cell::new(&human::count(*count)),
        Cell::new(&bytes.checked_div(*count).map_or(human::NONE.to_owned(), human::bytes)),
        match task.unwrap_or(human::NONE) {
            place if human::is_place(place) => Cell::path(place),
            name => Cell::new(name),
        },
        Cell::new(&name),
        Cell::path(&at).tint(Tint::Secondary),
    ]
}
