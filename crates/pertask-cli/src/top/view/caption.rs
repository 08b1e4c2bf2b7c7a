//! The line that says what the page is, and the lines about the page's subject.

use pertask::SpawnSite;
use pertask_text::{human, text::width};

use crate::top::{
    source::Subject,
    state::{Column, Fact, Page, Rows, State, Value},
};

use super::cell;

/// Returns what the page shows, and how much of it.
pub fn text(state: &State) -> String {
    let title = title(state);
    let (shown, all) = (state.rows_matching(), state.rows().len());
    let filter = cell::safe(state.filter());
    match state.page() {
        Page::Subject(_) => title,
        _ if !filter.is_empty() => format!("{title}  ({shown} of {all}: “{filter}”)"),
        Page::Tasks(site) => format!("{title}  ({})", listed(state, site, all)),
        _ => format!("{title}  ({all})"),
    }
}

fn title(state: &State) -> String {
    match state.page() {
        Page::Sites => "Tasks by spawn site".to_owned(),
        Page::Paths => "Tasks by spawn path, INCL% with all below".to_owned(),
        Page::Labels => "CPU time of tasks by label".to_owned(),
        Page::Threads => "Threads".to_owned(),
        Page::Types => "Tasks by type".to_owned(),
        Page::Tasks(site) => format!("Live tasks of {}", cell::name_and_place(site)),
        Page::Subject(Subject::Site(site)) => {
            format!("Hottest functions of {}", cell::name_and_place(site))
        }
        Page::Subject(Subject::Type(name)) => format!("Hottest functions of {}", cell::safe(name)),
        Page::Subject(Subject::Task(id)) => task(state, *id),
    }
}

fn task(state: &State, id: u64) -> String {
    match state.seen_task() {
        Some(seen) => {
            let gone = if seen.present { "" } else { "  (ended, or no longer listed)" };
            format!("Task {id}  {}{gone}", cell::name_and_place(&seen.task.site))
        }
        None => format!("Task {id}"),
    }
}

/// How many of a site's live tasks are listed.
fn listed(state: &State, site: &SpawnSite, listed: usize) -> String {
    let sites = &state.shown().sites;
    let live = sites.find(site).map(|at| sites.value(at, Column::Live));
    match live {
        Some(Value::Count(live)) if live > listed as u64 => {
            format!("top {listed} of {} live", human::count(live))
        }
        _ => listed.to_string(),
    }
}

/// Returns what is known of the page's subject, as lines of at most `max` columns.
pub fn facts(state: &State, max: usize) -> Vec<String> {
    let mut lines = filled(&state.facts(), max);
    lines.extend(filled(&state.life_facts(), max));
    lines
}

/// Lines with as many facts as there is room for.
fn filled(facts: &[Fact<'_>], max: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (words, value) in facts {
        let fact = format!("{words} {}", cell::words(value));
        match lines.last_mut() {
            Some(line) if width(line) + 3 + width(&fact) <= max => {
                line.push_str("   ");
                line.push_str(&fact);
            }
            _ => lines.push(fact),
        }
    }
    lines
}
