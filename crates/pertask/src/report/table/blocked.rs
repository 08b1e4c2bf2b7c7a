//! The polls that blocked their worker: how long, what they did, and where.

use super::rows::{duration, location, poll_tint};
use crate::report::{BlockedReport, BlockedRow, BlockedState, StackFrame};
use pertask_text::grid::{Cell, Column, Grid};
use pertask_text::human::{self, counted};
use pertask_text::ink::{Ink, Tint};

const COLUMNS: &[Column<'static>] = &[
    Column::Number { title: "MAX POLL", rank: None },
    Column::Number { title: "POLLS", rank: Some(2) },
    Column::Number { title: "TOTAL", rank: Some(1) },
    Column::Number { title: "CPU", rank: Some(0) },
    Column::Text { title: "WORKER", least: 12, most: 32 },
    Column::Text { title: "TASK", least: 10, most: 40 },
    Column::Text { title: "AT", least: 16, most: 56 },
];

/// The lines of at most `most` rows, and what is missing.
pub(super) fn lines(
    blocked: &BlockedReport,
    most: usize,
    width: Option<usize>,
    ink: Ink,
) -> Vec<String> {
    let (shown, cut) = blocked.rows.split_at(most.min(blocked.rows.len()));
    let mut lines = vec![ink.paint(&title(blocked), Tint::Title)];
    if !shown.is_empty() {
        let cells = shown.iter().map(cells).collect();
        lines.extend(Grid::new(COLUMNS, cells).lines(width, ink));
    }
    if !cut.is_empty() {
        let total_ns = cut.iter().fold(0, |sum: u64, row| sum.saturating_add(row.total_ns));
        let more = format!("… and {} more, {}", cut.len(), human::duration_ns(total_ns));
        lines.push(ink.paint(&more, Tint::Secondary));
    }
    lines
}

/// What people should know of it.
pub(super) fn remarks(blocked: &BlockedReport) -> Vec<String> {
    let BlockedReport { polls_without_row, polls_without_stack, remarks, .. } = blocked;
    let mut lines = Vec::new();
    let mut line = |count: u64, what: &str| {
        if count > 0 {
            lines.push(format!("{} {what}", counted(count, "poll")));
        }
    };
    line(*polls_without_stack, "without a stack: over too soon, or stacks are taken no more often");
    line(*polls_without_row, "in no row: too many at a time, or of too many kinds");
    if blocked.rows.iter().any(|row| row.at_least) {
        lines.push("> a poll whose end nobody saw: it may have lasted longer".to_owned());
    }
    lines.extend(remarks.iter().cloned());
    lines
}

fn title(blocked: &BlockedReport) -> String {
    let threshold = human::duration_ns(blocked.threshold_ns);
    match blocked.polls {
        0 => format!("No poll blocked its worker for {threshold}"),
        polls => {
            let total = human::duration_ns(blocked.total_ns);
            let polls = counted(polls, "poll");
            format!("Polls that blocked their worker for {threshold} or longer: {polls}, {total}")
        }
    }
}

fn cells(row: &BlockedRow) -> Vec<Cell> {
    let longest = human::duration_ns(row.max_ns);
    let longest = if row.at_least { format!(">{longest}") } else { longest };
    vec![
        Cell::new(&longest).tint(poll_tint(row.max_ns)),
        Cell::new(&human::count(row.polls)),
        duration(Some(row.total_ns)),
        duration(Some(row.cpu_ns)),
        Cell::new(&does(row)),
        match &row.site.name {
            Some(name) => Cell::new(name),
            None => Cell::path(&location(&row.site.file, row.site.line)),
        },
        place(row),
    ]
}

fn does(row: &BlockedRow) -> String {
    match (row.state, &row.call) {
        (BlockedState::Computing, _) => "computing".to_owned(),
        (BlockedState::Blocked, Some(call)) => format!("in {call}"),
        (BlockedState::Blocked, None) => "blocked".to_owned(),
        (BlockedState::NotScheduled, _) => "no CPU".to_owned(),
    }
}

/// The program's own line, or its function; or else the innermost function, or its address.
fn place(row: &BlockedRow) -> Cell {
    let Some(frame) = row.place.as_ref().or(row.stack.first()) else {
        return Cell::new(human::NONE).tint(Tint::Secondary);
    };
    let StackFrame { address, function, file, line } = frame;
    match (file, line, function) {
        (Some(file), line, _) => Cell::path(&location(file, line.unwrap_or(0))),
        (None, _, Some(function)) => Cell::new(function),
        (None, _, None) => Cell::new(&format!("{address:#x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::SpawnSite;

    fn row(state: BlockedState, call: Option<&str>, place: Option<StackFrame>) -> BlockedRow {
        let name = Some("GET /report".to_owned());
        BlockedRow {
            site: SpawnSite { name, file: "src/main.rs".to_owned(), line: 7 },
            state,
            call: call.map(str::to_owned),
            polls: 19,
            under_way: 0,
            total_ns: 287_000_000,
            max_ns: 15_300_000,
            at_least: false,
            cpu_ns: 1_100_000,
            task: 1,
            tid: 2,
            labels: Vec::new(),
            place,
            stack: Vec::new(),
            stack_complete: true,
        }
    }

    fn at(function: &str, file: Option<&str>) -> Option<StackFrame> {
        let (function, file) = (Some(function.to_owned()), file.map(str::to_owned));
        Some(StackFrame { address: 0x77, line: file.as_ref().map(|_| 40), function, file })
    }

    fn shown(rows: Vec<BlockedRow>, most: usize) -> Vec<String> {
        let polls = rows.iter().map(|row| row.polls).sum();
        let total_ns = rows.iter().map(|row| row.total_ns).sum();
        let threshold_ns = 10_000_000;
        let blocked = BlockedReport { threshold_ns, polls, total_ns, rows, ..Default::default() };
        lines(&blocked, most, Some(110), Ink { color: false })
    }

    #[test]
    fn a_row_says_how_long_a_poll_lasts_what_it_does_and_where() {
        let rows = vec![
            row(
                BlockedState::Blocked,
                Some("clock_nanosleep"),
                at("report", Some("src/report.rs")),
            ),
            row(BlockedState::Computing, None, at("report::hash", None)),
            row(BlockedState::NotScheduled, None, None),
        ];
        let lines = shown(rows, 2);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            lines[0],
            "Polls that blocked their worker for 10.0 ms or longer: 57 polls, 861 ms"
        );
        assert_eq!(
            words(&lines[2]),
            "15.3 ms 19 287 ms 1.10 ms in clock_nanosleep GET /report src/report.rs:40"
        );
        assert!(words(&lines[3]).ends_with("computing GET /report report::hash"), "{lines:#?}");
        assert_eq!(lines[4], "… and 1 more, 287 ms");
    }

    #[test]
    fn where_nothing_blocks_that_is_said() {
        assert_eq!(shown(Vec::new(), 9), ["No poll blocked its worker for 10.0 ms"]);
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut long = row(BlockedState::Blocked, None, None);
        long.at_least = true;
        let blocked = BlockedReport {
            polls_without_stack: 1,
            polls_without_row: 20,
            remarks: vec!["no stacks".to_owned()],
            rows: vec![long],
            ..BlockedReport::default()
        };
        let lines = remarks(&blocked);
        assert!(lines[0].starts_with("1 poll without a stack"), "{lines:?}");
        assert!(lines[1].starts_with("20 polls in no row"), "{lines:?}");
        assert_eq!(lines[3], "no stacks");
        let shown = super::lines(&blocked, 9, None, Ink { color: false });
        assert!(shown[2].trim_start().starts_with(">15.3 ms"), "{shown:?}");
    }
}
