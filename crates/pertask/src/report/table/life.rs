//! How the table shows lives: as shares, and as a bar.

use super::rows::{Subject, duration};
use crate::report::{LifeReport, SiteReport, TaskReport, TreeReport};
use pertask_text::grid::{Cell, Column};
use pertask_text::human;
use pertask_text::ink::Tint;

/// A row that has a life.
pub(super) trait Living {
    /// The columns that say whose life it is.
    const WHOSE: &[Column<'static>];

    /// One cell for each of these columns.
    fn whose(&self) -> Vec<Cell>;

    fn life(&self) -> Option<&LifeReport>;
}

/// A row of a list of lives.
pub(super) trait Lives: Living {
    /// The line above the list.
    const LIVED: &str;
}

impl Living for SiteReport {
    const WHOSE: &[Column<'static>] = Self::SUBJECT;

    fn whose(&self) -> Vec<Cell> {
        self.subject()
    }

    fn life(&self) -> Option<&LifeReport> {
        self.life.as_ref()
    }
}

impl Lives for SiteReport {
    const LIVED: &str = "Lives of tasks by spawn site (% of their lives)";
}

impl Living for TreeReport {
    const WHOSE: &[Column<'static>] = Self::SUBJECT;

    fn whose(&self) -> Vec<Cell> {
        self.subject()
    }

    fn life(&self) -> Option<&LifeReport> {
        self.life.as_ref()
    }
}

impl Lives for TreeReport {
    const LIVED: &str = "Own lives of tasks by spawn path (% of their lives)";
}

impl Living for TaskReport {
    const WHOSE: &[Column<'static>] = Self::SUBJECT;

    fn whose(&self) -> Vec<Cell> {
        self.subject()
    }

    fn life(&self) -> Option<&LifeReport> {
        self.life.as_ref()
    }
}

impl Lives for TaskReport {
    const LIVED: &str = "Lives of live tasks (% of their lives)";
}

/// A part of a life as the table shows it.
struct Part {
    title: &'static str,
    /// What stands for it in a bar.
    mark: char,
    tint: Tint,
    ns: fn(&LifeReport) -> u64,
    /// Whether most lives lack it, so that it has a column only where one has it.
    is_rare: bool,
}

/// In the order of the bar: what makes progress first.
const PARTS: [Part; 7] = [
    Part {
        title: "ON CPU", mark: '█', tint: Tint::Running, ns: |it| it.on_cpu_ns, is_rare: false
    },
    Part {
        title: "BLOCKED", mark: '▓', tint: Tint::Alarm, ns: |it| it.blocked_ns, is_rare: false
    },
    Part { title: "READY", mark: '▒', tint: Tint::Warning, ns: |it| it.ready_ns, is_rare: false },
    Part {
        title: "WAITING",
        mark: '░',
        tint: Tint::Waiting,
        ns: |it| it.waiting_ns,
        is_rare: false,
    },
    Part { title: "INSIDE", mark: '=', tint: Tint::Plain, ns: |it| it.inside_ns, is_rare: true },
    Part { title: "NEW", mark: '-', tint: Tint::Secondary, ns: |it| it.new_ns, is_rare: true },
    Part {
        title: "UNKNOWN",
        mark: '·',
        tint: Tint::Secondary,
        ns: |it| it.unknown_ns,
        is_rare: true,
    },
];

/// The width of a bar.
const BAR: u32 = 20;

/// The rows that have lives, longest life first, at most `max` of them.
pub(super) fn longest_first<R: Living>(rows: &[R], max: usize) -> Vec<(&R, &LifeReport)> {
    let mut lives: Vec<_> = rows.iter().filter_map(|row| Some((row, row.life()?))).collect();
    lives.retain(|(_, life)| life.life_ns() > 0);
    lives.sort_by_key(|(_, life)| std::cmp::Reverse(life.life_ns()));
    lives.truncate(max);
    lives
}

/// The first `max` rows of a tree, if any row has a life. Those without one stay, because the indentation of others hangs on them.
pub(super) fn as_they_stand<R: Living>(rows: &[R], max: usize) -> Vec<(&R, &LifeReport)> {
    if rows.iter().all(|row| row.life().is_none_or(|life| life.life_ns() == 0)) {
        return Vec::new();
    }
    rows.iter().take(max).map(|row| (row, row.life().unwrap_or(&LifeReport::NONE))).collect()
}

/// The columns and cells of these rows.
pub(super) fn grid<R: Living>(
    lives: &[(&R, &LifeReport)],
) -> (Vec<Column<'static>>, Vec<Vec<Cell>>) {
    let is_there = |part: &&Part| !part.is_rare || lives.iter().any(|(_, life)| shows(part, life));
    let parts: Vec<_> = PARTS.iter().filter(is_there).collect();
    let cells = |(row, life): &(&R, &LifeReport)| {
        let ns = life.life_ns();
        let mut cells = vec![duration((ns > 0).then_some(ns))];
        cells.extend(parts.iter().map(|part| share(part, life)));
        cells.push(Cell::pieces(&bar(life)));
        cells.extend(row.whose());
        cells
    };
    let numbers = parts
        .iter()
        .map(|part| Column::Number { title: part.title, rank: part.is_rare.then_some(0) });
    let mut columns = vec![Column::Number { title: "LIFE", rank: Some(1) }];
    columns.extend(numbers);
    columns.push(Column::Text { title: "", least: 0, most: BAR as usize });
    columns.extend_from_slice(R::WHOSE);
    (columns, lives.iter().map(cells).collect())
}

/// The line that says what the marks of the bars stand for.
pub(super) fn legend() -> String {
    let parts = PARTS.iter().map(|part| format!("{} {}", part.mark, part.title.to_lowercase()));
    parts.collect::<Vec<_>>().join("  ")
}

/// Whether a part is a thousandth of a life, so that it is not shown as 0.
fn shows(part: &Part, life: &LifeReport) -> bool {
    (part.ns)(life) > life.life_ns() / 1_000
}

fn share(part: &Part, life: &LifeReport) -> Cell {
    let ns = (part.ns)(life);
    let text = match ns {
        0 => human::NONE.into(),
        ns => human::percent(ns, life.life_ns()),
    };
    Cell::new(&text)
}

/// A bar of all parts.
fn bar(life: &LifeReport) -> Vec<(String, Tint)> {
    let parts = PARTS.iter().map(|part| ((part.ns)(life), part.mark, part.tint));
    pertask_text::bar::of(&parts.collect::<Vec<_>>(), BAR)
}
