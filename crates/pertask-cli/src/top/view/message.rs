//! What is said where there are no rows.

use crate::top::state::{FunctionsAnswer, Page, State};

use super::cell;

/// Returns why the page has no rows to show.
pub fn text(state: &State) -> String {
    let is_known = state.shown().duration_ns().is_some();
    match (state.page(), state.answer_shown()) {
        (Page::Subject(_), Some(answer)) if state.rows().len() == 0 => functions(answer),
        _ if !is_known && state.ended().is_some() => "there are no figures".to_owned(),
        _ if !is_known => "waiting for the first figures …".to_owned(),
        _ if !state.filter().is_empty() && state.rows().len() > 0 => {
            format!("no name or file contains “{}”: Esc shows all", cell::safe(state.filter()))
        }
        (page, _) => nothing(page).to_owned(),
    }
}

fn functions(answer: &FunctionsAnswer) -> String {
    match answer {
        FunctionsAnswer::Awaited => "sampling: the hottest functions will be here …".to_owned(),
        FunctionsAnswer::Refused(reason) => format!("no functions: {}", cell::safe(reason)),
        FunctionsAnswer::Found(_) => {
            "no sample was taken in here: the CPU was used elsewhere. s tries again".to_owned()
        }
    }
}

fn nothing(page: &Page) -> &'static str {
    match page {
        Page::Sites | Page::Paths => {
            "no task was seen: name futures with .task(\"..\"), or spawn them with pertask::tokio::spawn"
        }
        Page::Labels => "no task has labels; .labels([(\"tenant\", id)]) gives them",
        Page::Threads => "no thread is known",
        Page::Types => "no sample has hit a task yet",
        Page::Tasks(_) => {
            "no task of this site is alive now, or none is among the 500 with the most CPU time"
        }
        Page::Subject(_) => "nothing is known",
    }
}
