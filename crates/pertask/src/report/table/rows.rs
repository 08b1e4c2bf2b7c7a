//! The rows of the table: a spawn site, a spawn path, a task, a thread.

use crate::pmus::counters::Counter;
use crate::report::{SiteReport, TaskReport, ThreadReport, TreeReport, WakeReport};
use pertask_text::grid::{Cell, Column};
use pertask_text::human;
use pertask_text::ink::Tint;

/// A type of which the table has a list.
pub(super) trait Row {
    /// The line above the list.
    const TITLE: &'static str;
    /// The list's columns.
    const COLUMNS: &'static [Column<'static>];

    /// One cell for each column.
    fn cells(&self, process_cpu_ns: u64) -> Vec<Cell>;

    /// The CPU time of the row. The table adds it up for rows beyond the maximum.
    fn cpu_ns(&self) -> u64;
}

/// The widest name and path to show, however wide the terminal is: one long name would push all other columns apart.
pub(super) const MAX_NAME: usize = 40;
pub(super) const MAX_PATH: usize = 56;

/// The deepest indentation in the tree of spawns. Below it, a number says how deep the row is, because blanks would leave no
/// room for the name.
const MAX_INDENT: u32 = 6;

/// A poll that holds its worker for this long delays every task behind it.
const SLOW_POLL_NS: u64 = 10_000_000;
/// Users notice a poll of this length.
const STUCK_POLL_NS: u64 = 100_000_000;

impl Row for SiteReport {
    const TITLE: &str = "Tasks by spawn site (% of process CPU)";
    const COLUMNS: &[Column<'static>] = &[
        Column::Number { title: "CPU%", rank: None },
        Column::Number { title: "CPU", rank: None },
        Column::Number { title: "WALL", rank: Some(2) },
        Column::Number { title: "POLLS", rank: Some(4) },
        Column::Number { title: "CPU/POLL", rank: Some(3) },
        Column::Number { title: "MAX POLL", rank: None },
        Column::Number { title: "STARTED", rank: Some(1) },
        Column::Number { title: "LIVE", rank: Some(0) },
        Column::Text { title: "TASK", least: 14, most: MAX_NAME },
        Column::Text { title: "SITE", least: 20, most: MAX_PATH },
    ];

    fn cells(&self, process_cpu_ns: u64) -> Vec<Cell> {
        vec![
            Cell::new(&human::percent(self.usage.cpu_ns, process_cpu_ns)),
            duration(Some(self.usage.cpu_ns)),
            duration(Some(self.usage.wall_ns)),
            Cell::new(&human::count(self.usage.polls)),
            duration(self.usage.cpu_ns.checked_div(self.usage.polls)),
            longest_poll(self.usage.max_poll_ns),
            Cell::new(&human::count(self.tasks_started)),
            Cell::new(&human::count(self.tasks_live)),
            Cell::new(self.site.name.as_deref().unwrap_or(human::NONE)),
            Cell::path(&location(&self.site.file, self.site.line)).tint(Tint::Secondary),
        ]
    }

    fn cpu_ns(&self) -> u64 {
        self.usage.cpu_ns
    }
}

impl Row for TreeReport {
    const TITLE: &str = "Tasks by spawn path, own and inclusive (% of process CPU)";
    const COLUMNS: &[Column<'static>] = &[
        Column::Number { title: "CPU%", rank: None },
        Column::Number { title: "INCL", rank: None },
        Column::Number { title: "OWN", rank: None },
        Column::Number { title: "POLLS", rank: Some(2) },
        Column::Number { title: "STARTED", rank: Some(1) },
        Column::Number { title: "LIVE", rank: Some(0) },
        Column::Text { title: "TASK", least: 24, most: MAX_NAME },
        Column::Text { title: "SITE", least: 16, most: MAX_PATH },
    ];

    fn cells(&self, process_cpu_ns: u64) -> Vec<Cell> {
        vec![
            Cell::new(&human::percent(self.inclusive_cpu_ns, process_cpu_ns)),
            duration(Some(self.inclusive_cpu_ns)),
            duration(Some(self.usage.cpu_ns)),
            Cell::new(&human::count(self.usage.polls)),
            Cell::new(&human::count(self.tasks_started)),
            Cell::new(&human::count(self.tasks_live)),
            Cell::new(&indented(self.depth, self.site.name.as_deref().unwrap_or(human::NONE))),
            Cell::path(&location(&self.site.file, self.site.line)).tint(Tint::Secondary),
        ]
    }

    fn cpu_ns(&self) -> u64 {
        self.usage.cpu_ns
    }
}

/// The waits of a site.
pub(super) struct Waits<'a> {
    site: &'a SiteReport,
    pub(super) waits: &'a WakeReport,
}

impl<'a> Waits<'a> {
    pub(super) fn of(site: &'a SiteReport) -> Option<Self> {
        site.wakes.as_ref().map(|waits| Self { site, waits })
    }
}

impl Row for Waits<'_> {
    const TITLE: &'static str = "Waits between wake and poll, by spawn site";
    const COLUMNS: &'static [Column<'static>] = &[
        Column::Number { title: "WAKES", rank: Some(0) },
        Column::Number { title: "P50", rank: None },
        Column::Number { title: "P90", rank: Some(1) },
        Column::Number { title: "P99", rank: None },
        Column::Number { title: "MAX", rank: None },
        Column::Text { title: "TASK", least: 14, most: MAX_NAME },
        Column::Text { title: "SITE", least: 20, most: MAX_PATH },
    ];

    fn cells(&self, _process_cpu_ns: u64) -> Vec<Cell> {
        let WakeReport { count, p50_ns, p90_ns, p99_ns, max_ns, .. } = self.waits;
        let mut cells = vec![Cell::new(&human::count(*count))];
        cells.extend([p50_ns, p90_ns, p99_ns, max_ns].map(|ns| duration(*ns)));
        cells.extend(self.site.subject());
        cells
    }

    fn cpu_ns(&self) -> u64 {
        self.site.usage.cpu_ns
    }
}

impl Row for TaskReport {
    const TITLE: &str = "Live tasks with the most CPU time";
    const COLUMNS: &[Column<'static>] = &[
        Column::Number { title: "ID", rank: None },
        Column::Number { title: "PARENT", rank: Some(0) },
        Column::Number { title: "CPU", rank: None },
        Column::Number { title: "POLLS", rank: Some(1) },
        Column::Number { title: "MAX POLL", rank: None },
        Column::Text { title: "TASK", least: 20, most: MAX_PATH },
    ];

    fn cells(&self, _process_cpu_ns: u64) -> Vec<Cell> {
        vec![
            Cell::new(&self.id.to_string()),
            Cell::new(&self.parent.map_or(human::NONE.into(), |id| id.to_string())),
            duration(Some(self.usage.cpu_ns)),
            Cell::new(&human::count(self.usage.polls)),
            longest_poll(self.usage.max_poll_ns),
            subject_of_task(self.site.name.as_deref(), &self.site.file, self.site.line),
        ]
    }

    fn cpu_ns(&self) -> u64 {
        self.usage.cpu_ns
    }
}

impl Row for ThreadReport {
    const TITLE: &str = "Threads (% of process CPU)";
    const COLUMNS: &[Column<'static>] = &[
        Column::Number { title: "CPU%", rank: None },
        Column::Number { title: "CPU", rank: None },
        Column::Number { title: "IN TASKS", rank: Some(1) },
        Column::Text { title: "KIND", least: 6, most: 6 },
        Column::Number { title: "TID", rank: Some(0) },
        Column::Text { title: "THREAD", least: 16, most: MAX_NAME },
    ];

    fn cells(&self, process_cpu_ns: u64) -> Vec<Cell> {
        let ended = Cell::new("(ended threads)").tint(Tint::Secondary);
        vec![
            Cell::new(&human::percent(self.cpu_ns, process_cpu_ns)),
            duration(Some(self.cpu_ns)),
            Cell::new(&human::percent(self.tasks_cpu_ns, self.cpu_ns)),
            Cell::new(if self.worker { "worker" } else { "other" }),
            Cell::new(&self.tid.map_or(human::NONE.into(), |tid| tid.to_string())),
            if self.tid.is_some() { Cell::new(&self.name) } else { ended },
        ]
    }

    fn cpu_ns(&self) -> u64 {
        self.cpu_ns
    }
}

/// A row that more lists than its own name.
pub(super) trait Subject: Row {
    /// The columns that identify the site, path or task.
    const SUBJECT: &[Column<'static>];

    /// One cell for each column.
    fn subject(&self) -> Vec<Cell>;
}

/// A row whose events are counted.
pub(super) trait Counted: Subject {
    /// The line above the list of counts.
    const COUNTED: &str;

    fn counters(&self) -> &[Counter];
}

impl Counted for SiteReport {
    const COUNTED: &str = "Events by spawn site";

    fn counters(&self) -> &[Counter] {
        &self.counters
    }
}

impl Counted for TaskReport {
    const COUNTED: &str = "Events of the live tasks with the most CPU time";

    fn counters(&self) -> &[Counter] {
        &self.counters
    }
}

impl Subject for SiteReport {
    const SUBJECT: &[Column<'static>] = &[
        Column::Text { title: "TASK", least: 14, most: MAX_NAME },
        Column::Text { title: "SITE", least: 20, most: MAX_PATH },
    ];

    fn subject(&self) -> Vec<Cell> {
        vec![
            Cell::new(self.site.name.as_deref().unwrap_or(human::NONE)),
            Cell::path(&location(&self.site.file, self.site.line)).tint(Tint::Secondary),
        ]
    }
}

impl Subject for TreeReport {
    const SUBJECT: &[Column<'static>] = &[
        Column::Text { title: "TASK", least: 20, most: MAX_NAME },
        Column::Text { title: "SITE", least: 16, most: MAX_PATH },
    ];

    fn subject(&self) -> Vec<Cell> {
        vec![
            Cell::new(&indented(self.depth, self.site.name.as_deref().unwrap_or(human::NONE))),
            Cell::path(&location(&self.site.file, self.site.line)).tint(Tint::Secondary),
        ]
    }
}

impl Subject for TaskReport {
    const SUBJECT: &[Column<'static>] = &[
        Column::Number { title: "ID", rank: None },
        Column::Text { title: "TASK", least: 20, most: MAX_PATH },
    ];

    fn subject(&self) -> Vec<Cell> {
        vec![
            Cell::new(&self.id.to_string()),
            subject_of_task(self.site.name.as_deref(), &self.site.file, self.site.line),
        ]
    }
}

fn subject_of_task(name: Option<&str>, file: &str, line: u32) -> Cell {
    match name {
        Some(name) => Cell::new(name),
        None => Cell::path(&location(file, line)),
    }
}

pub(super) fn duration(ns: Option<u64>) -> Cell {
    let text = ns.map_or(human::NONE.into(), human::duration_ns);
    // The blank aligns the digits of "1.23 s" with those of "1.23 ms".
    let blank = if text.ends_with(" s") { " " } else { "" };
    Cell::new(&(text + blank))
}

fn longest_poll(ns: u64) -> Cell {
    duration((ns > 0).then_some(ns)).tint(poll_tint(ns))
}

pub(super) fn poll_tint(ns: u64) -> Tint {
    match ns {
        STUCK_POLL_NS.. => Tint::Alarm,
        SLOW_POLL_NS.. => Tint::Warning,
        _ => Tint::Plain,
    }
}

/// `name`, indented by its depth.
pub(super) fn indented(depth: u32, name: &str) -> String {
    let blanks = "  ".repeat(depth.min(MAX_INDENT) as usize);
    match depth {
        0..=MAX_INDENT => blanks + name,
        _ => format!("{blanks}{depth}: {name}"),
    }
}

/// `file:line`, or the file alone where no line is known.
pub(super) fn location(file: &str, line: u32) -> String {
    match line {
        0 => file.to_owned(),
        _ => format!("{file}:{line}"),
    }
}
