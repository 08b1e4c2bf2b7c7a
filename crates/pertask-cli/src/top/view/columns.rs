//! Which columns there is room for, and how wide each is.
//!
//! Widths depend on the width of the terminal alone, and on numbers that are never cut: no column moves when figures change.

use pertask_text::text::width;

use crate::top::state::{Column, HISTORY_LENGTH, State};

use super::cell;

/// The blanks between two columns.
pub const GAP: usize = 2;

/// The least widths of what can be wider.
const LEAST_HISTORY: usize = 8;
const LEAST_LIFE: usize = 10;
const LEAST_NAME: usize = 12;
const LEAST_NAME_BESIDE_LIFE: usize = 16;
const LEAST_PLACE: usize = 16;

/// The greatest width of a name beside which there is a place.
const MOST_NAME: usize = 48;

/// The greatest width of a life's bar.
const MOST_LIFE: usize = 20;

/// Returns the title of a column.
pub fn title(column: Column) -> &'static str {
    match column {
        Column::Cpu => "CPU%",
        Column::Inclusive => "INCL%",
        Column::History => "HISTORY",
        Column::Polls => "POLLS/S",
        Column::CpuPerPoll => "CPU/POLL",
        Column::MaxPoll => "MAX POLL",
        Column::Blocked => "BLOCKED",
        Column::Life => "LIFE",
        Column::TasksBlocked => "BLOCKED",
        Column::TasksReady => "READY",
        Column::TasksWaiting => "WAITING",
        Column::Started => "START/S",
        Column::Live => "LIVE",
        Column::WakeP99 => "WAKE P99",
        Column::Id => "ID",
        Column::Parent => "PARENT",
        Column::TotalCpu => "TOTAL CPU",
        Column::InTasks => "IN TASKS",
        Column::Kind => "KIND",
        Column::Tid => "TID",
        Column::Samples => "SAMPLES",
        Column::Share => "SHARE",
        Column::Name => "NAME",
        Column::Place => "SITE",
    }
}

/// Returns whether the column is aligned left.
pub fn is_text(column: Column) -> bool {
    matches!(column, Column::History | Column::Life | Column::Kind | Column::Name | Column::Place)
}

/// Returns the columns to show, each with its width. The name is always one of them.
pub fn fit(state: &State, max: usize) -> Vec<(Column, usize)> {
    let mut shown: Vec<_> =
        state.columns().iter().map(|column| (*column, least(state, *column))).collect();
    while total(&shown) > max {
        let Some(drop) = least_important(&shown) else { break };
        shown.retain(|(column, _)| *column != drop);
    }
    let room = max.saturating_sub(total(&shown));
    share_out(&mut shown, room, max);
    shown
}

fn total(shown: &[(Column, usize)]) -> usize {
    let widths: usize = shown.iter().map(|(_, width)| width).sum();
    widths + GAP * shown.len().saturating_sub(1)
}

fn least(state: &State, column: Column) -> usize {
    match column {
        Column::Cpu | Column::Inclusive | Column::Share | Column::Kind => 6,
        Column::TasksReady => 6,
        Column::Life => LEAST_LIFE,
        Column::Live => 5,
        Column::History => LEAST_HISTORY,
        // Its many columns would leave names no room.
        Column::Name if state.columns().contains(&Column::Life) => LEAST_NAME_BESIDE_LIFE,
        Column::Name => LEAST_NAME,
        Column::Place => LEAST_PLACE,
        Column::Id | Column::Parent | Column::Tid => widest(state, column).max(6),
        _ => width(title(column)),
    }
}

/// The width of a column's widest number in the window.
fn widest(state: &State, column: Column) -> usize {
    let rows = state.rows();
    let cells = state.window().map(|(row, _)| cell::text(&rows.value(row, column), 0));
    cells.map(|text| width(&text)).max().unwrap_or(0)
}

/// Returns the column that is missed least, unless only the name is left.
fn least_important(shown: &[(Column, usize)]) -> Option<Column> {
    let columns = shown.iter().map(|(column, _)| *column);
    columns.filter(|column| *column != Column::Name).min_by_key(|column| importance(*column))
}

fn importance(column: Column) -> u8 {
    match column {
        Column::Started => 0,
        Column::CpuPerPoll => 1,
        Column::Live | Column::Parent => 2,
        Column::Kind => 3,
        Column::History | Column::Tid => 4,
        Column::Blocked | Column::Samples => 5,
        Column::Place => 6,
        Column::Polls => 7,
        // There only if the user has asked for it.
        Column::MaxPoll | Column::InTasks | Column::WakeP99 => 8,
        Column::TotalCpu => 9,
        // As are these, which say more than the columns above. Of them, the picture of all is missed most.
        Column::TasksBlocked | Column::TasksReady | Column::TasksWaiting => 10,
        Column::Life => 11,
        Column::Id => 12,
        Column::Cpu => 13,
        Column::Inclusive | Column::Share | Column::Name => 14,
    }
}

/// Widens what can be wider: a life and the history each by a third of the room, then the name, and the place by what is left.
fn share_out(shown: &mut [(Column, usize)], mut room: usize, max: usize) {
    let has_place = shown.iter().any(|(column, _)| *column == Column::Place);
    for (column, width) in shown {
        let more = match column {
            Column::History => (room / 3).min(HISTORY_LENGTH - LEAST_HISTORY),
            Column::Life => (room / 3).min(MOST_LIFE - LEAST_LIFE),
            Column::Name if has_place => (room * 2 / 5).min(MOST_NAME - LEAST_NAME),
            Column::Name | Column::Place => room,
            _ => 0,
        };
        room -= more;
        *width = (*width + more).min(max);
    }
}
