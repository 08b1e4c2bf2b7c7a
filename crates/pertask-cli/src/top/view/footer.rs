//! The last line: the keys that can be pressed, what is being typed, or what was wrong with the last key.

use pertask_text::text::{cut_end, width};
use ratatui::text::{Line, Span};

use crate::top::state::{Page, State};

use super::{cell, palette::Palette};

/// A key, and what it does.
type Hint = (&'static str, &'static str);

/// Returns the line, as wide as the terminal at most.
pub fn line(state: &State, max: usize, palette: Palette) -> Line<'static> {
    if state.is_typing() {
        return Line::raw(typed(state, max));
    }
    match state.note() {
        Some(note) => Line::styled(cut_end(&cell::safe(note), max), palette.warning()),
        None => hints(state, max, palette),
    }
}

/// The end of a long filter is what the user is typing.
fn typed(state: &State, max: usize) -> String {
    let filter = cell::safe(state.filter());
    let mut end = &*filter;
    while width("/") + width(end) + width("_") > max && !end.is_empty() {
        end = end.split_at(end.chars().next().map_or(0, char::len_utf8)).1;
    }
    let line = format!("/{end}_");
    let hint = "   Enter keeps the filter, Esc clears it";
    if width(&line) + width(hint) <= max { line + hint } else { cut_end(&line, max) }
}

/// As many hints as there is room for. The first ones matter most.
fn hints(state: &State, max: usize, palette: Palette) -> Line<'static> {
    let mut spans = Vec::new();
    let mut used = 0;
    for (key, what) in of_page(state) {
        let needed = width(key) + 1 + width(what) + if used > 0 { 2 } else { 0 };
        if used + needed > max {
            break;
        }
        if used > 0 {
            spans.push(Span::raw("  "));
        }
        used += needed;
        spans.push(Span::styled(key, palette.title()));
        spans.push(Span::raw(format!(" {what}")));
    }
    Line::from(spans)
}

fn of_page(state: &State) -> Vec<Hint> {
    let mut hints = vec![("q", "quit"), ("h", "help")];
    let pause = ("p", if state.is_paused() { "go on" } else { "pause" });
    if state.is_opened() || matches!(state.page(), Page::Paths | Page::Labels | Page::Threads) {
        hints.push(("Esc", "back"));
    }
    match state.page() {
        Page::Sites | Page::Paths => hints.extend([("Enter", "tasks"), ("s", "functions")]),
        Page::Tasks(_) | Page::Types => hints.push(("Enter", "functions")),
        Page::Subject(_) => hints.push(("s", "sample again")),
        Page::Labels | Page::Threads => {}
    }
    match state.page() {
        Page::Types | Page::Tasks(_) | Page::Subject(_) => {}
        _ => hints.extend([("t", "tree"), ("l", "labels"), ("w", "workers"), ("i", "lives")]),
    }
    hints.extend([("/", "filter"), ("< >", "sort"), pause]);
    hints
}
