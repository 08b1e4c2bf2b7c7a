//! What the table shows of memory: the parts of the process, and each site's share, or why there is none.

use super::rows::{MAX_NAME, MAX_PATH, indented, location};
use crate::pmus::memory::count::MemoryCount;
use crate::report::{ProcessMemory, SiteReport, TreeReport};
use pertask_text::grid::{Cell, Column};
use pertask_text::human;
use pertask_text::ink::Tint;

/// The line above the parts of the process.
pub(super) const PARTS: &str = "Memory allocated and freed (% of bytes allocated)";

/// The columns of a list of parts.
pub(super) const PART_COLUMNS: &[Column<'static>] =
    &columns(Column::Text { title: "", least: 10, most: MAX_NAME });

/// The columns of [`numbers`], and whose they are.
pub(super) const fn columns(whose: Column<'static>) -> [Column<'static>; 7] {
    [
        Column::Number { title: "ALLOC%", rank: None },
        Column::Number { title: "ALLOCATED", rank: None },
        Column::Number { title: "CALLS", rank: None },
        Column::Number { title: "AVERAGE", rank: Some(1) },
        Column::Number { title: "FREED", rank: None },
        Column::Number { title: "FREES", rank: Some(0) },
        whose,
    ]
}

/// The cells of each part of the process.
pub(super) fn parts(memory: &ProcessMemory) -> Vec<Vec<Cell>> {
    let ProcessMemory { process, tasks, unknown, workers, other } = memory;
    let part = |count: &MemoryCount, what: &str| {
        let mut cells = numbers(count, process).to_vec();
        cells.push(Cell::new(what));
        cells
    };
    let mut rows = vec![part(tasks, "in tasks")];
    if *unknown != MemoryCount::default() {
        rows.push(part(unknown, "task unknown"));
    }
    rows.extend([
        part(workers, "workers, outside tasks"),
        part(other, "other threads"),
        part(process, "process"),
    ]);
    rows
}

/// A row of a list of memory.
pub(super) trait Holder {
    /// The line above the list.
    const TITLE: &str;
    /// The list's columns.
    const COLUMNS: &[Column<'static>];

    /// What the list is sorted by, and the bytes of rows beyond the maximum.
    fn memory(&self) -> Option<&MemoryCount>;

    /// One cell for each column.
    fn cells(&self, process: &MemoryCount) -> Option<Vec<Cell>>;
}

impl Holder for SiteReport {
    const TITLE: &str = "Memory by spawn site (% of bytes allocated)";
    const COLUMNS: &[Column<'static>] = &[
        Column::Number { title: "ALLOC%", rank: None },
        Column::Number { title: "ALLOCATED", rank: None },
        Column::Number { title: "CALLS", rank: Some(2) },
        Column::Number { title: "AVERAGE", rank: Some(1) },
        Column::Number { title: "FREED", rank: None },
        Column::Number { title: "FREES", rank: Some(0) },
        Column::Text { title: "TASK", least: 14, most: MAX_NAME },
        Column::Text { title: "SITE", least: 20, most: MAX_PATH },
    ];

    fn memory(&self) -> Option<&MemoryCount> {
        self.memory.as_ref()
    }

    fn cells(&self, process: &MemoryCount) -> Option<Vec<Cell>> {
        let mut cells = numbers(self.memory.as_ref()?, process).to_vec();
        cells.push(Cell::new(self.site.name.as_deref().unwrap_or(human::NONE)));
        cells.push(place(&self.site.file, self.site.line));
        Some(cells)
    }
}

impl Holder for TreeReport {
    const TITLE: &str = "Memory by spawn path, own and inclusive (% of bytes)";
    const COLUMNS: &[Column<'static>] = &[
        Column::Number { title: "ALLOC%", rank: None },
        Column::Number { title: "INCL", rank: None },
        Column::Number { title: "OWN", rank: None },
        Column::Number { title: "CALLS", rank: Some(0) },
        Column::Number { title: "FREED INCL", rank: Some(1) },
        Column::Text { title: "TASK", least: 24, most: MAX_NAME },
        Column::Text { title: "SITE", least: 16, most: MAX_PATH },
    ];

    fn memory(&self) -> Option<&MemoryCount> {
        self.memory.as_ref()
    }

    fn cells(&self, process: &MemoryCount) -> Option<Vec<Cell>> {
        let (own, inclusive) = (self.memory.as_ref()?, self.inclusive_memory.as_ref()?);
        Some(vec![
            Cell::new(&human::percent(inclusive.allocated_bytes, process.allocated_bytes)),
            Cell::new(&human::bytes(inclusive.allocated_bytes)),
            Cell::new(&human::bytes(own.allocated_bytes)),
            Cell::new(&human::count(own.allocations)),
            Cell::new(&human::bytes(inclusive.freed_bytes)),
            Cell::new(&indented(self.depth, self.site.name.as_deref().unwrap_or(human::NONE))),
            place(&self.site.file, self.site.line),
        ])
    }
}

/// The rows with memory, most bytes first.
pub(super) fn by_bytes(sites: &[SiteReport]) -> Vec<&SiteReport> {
    let has_any = |site: &&SiteReport| site.memory.is_some_and(|it| it != MemoryCount::default());
    let mut sites: Vec<_> = sites.iter().filter(has_any).collect();
    let bytes = |site: &SiteReport| site.memory.unwrap_or_default().allocated_bytes;
    // Of two equal rows, the one with more CPU time comes first, as in the report.
    sites.sort_by_key(|site| std::cmp::Reverse(bytes(site)));
    sites
}

/// The line in place of the rows beyond the maximum.
pub(super) fn more<R: Holder>(cut: &[&R]) -> String {
    let bytes = cut.iter().filter_map(|row| Some(row.memory()?.allocated_bytes));
    let bytes = bytes.fold(0, u64::saturating_add);
    format!("… and {} more, {} allocated", cut.len(), human::bytes(bytes))
}

/// The line in place of figures that there are not.
pub(super) fn refused(why: &str) -> String {
    format!("memory: not measured ({why})")
}

pub(super) fn numbers(count: &MemoryCount, process: &MemoryCount) -> [Cell; 6] {
    let MemoryCount { allocated_bytes, allocations, freed_bytes, frees } = *count;
    let average = allocated_bytes.checked_div(allocations);
    [
        Cell::new(&human::percent(allocated_bytes, process.allocated_bytes)),
        Cell::new(&human::bytes(allocated_bytes)),
        Cell::new(&human::count(allocations)),
        Cell::new(&average.map_or(human::NONE.into(), human::bytes)),
        Cell::new(&human::bytes(freed_bytes)),
        Cell::new(&human::count(frees)),
    ]
}

fn place(file: &str, line: u32) -> Cell {
    Cell::path(&location(file, line)).tint(Tint::Secondary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Report, SpawnSite, TableStyle};

    fn memory(allocated_bytes: u64, allocations: u64) -> MemoryCount {
        MemoryCount { allocated_bytes, allocations, freed_bytes: allocated_bytes / 2, frees: 1 }
    }

    fn site(name: &str, memory: Option<MemoryCount>) -> SiteReport {
        SiteReport {
            site: SpawnSite { name: Some(name.into()), file: "src/a.rs".into(), line: 7 },
            tasks_started: 1,
            tasks_live: 0,
            usage: crate::Usage::default(),
            counters: Vec::new(),
            wakes: None,
            life: None,
            memory,
        }
    }

    fn path(depth: u32, name: &str, own: MemoryCount, inclusive: MemoryCount) -> TreeReport {
        TreeReport {
            id: depth,
            parent: depth.checked_sub(1),
            depth,
            site: site(name, None).site,
            tasks_started: 1,
            tasks_live: 0,
            usage: crate::Usage::default(),
            inclusive_cpu_ns: 0,
            life: None,
            memory: Some(own),
            inclusive_memory: Some(inclusive),
        }
    }

    fn report() -> Report {
        let (small, large) = (memory(2_048, 2), memory(6 << 20, 3));
        let (workers, other) = (memory(1 << 20, 10), memory(0, 0));
        let tasks = small.plus(large);
        Report {
            memory: Some(ProcessMemory {
                process: tasks.plus(workers).plus(other),
                tasks,
                unknown: MemoryCount::default(),
                workers,
                other,
            }),
            sites: vec![
                site("small", Some(small)),
                site("large", Some(large)),
                site("none", Some(MemoryCount::default())),
            ],
            tree: vec![path(0, "small", small, tasks), path(1, "large", large, large)],
            ..Report::default()
        }
    }

    /// The words of each line of a section.
    fn section(report: &Report, style: TableStyle, title: &str) -> Vec<String> {
        let shown = report.table(style).to_string();
        let section = shown.split("\n\n").find(|section| section.starts_with(title));
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        section.unwrap_or_else(|| panic!("no {title}: {shown}")).lines().map(words).collect()
    }

    #[test]
    fn the_parts_of_the_process_come_first() {
        let lines = section(&report(), TableStyle::default(), "Memory allocated and freed");
        assert_eq!(
            lines[1..],
            [
                "ALLOC% ALLOCATED CALLS AVERAGE FREED FREES",
                "85.7% 6.00 MiB 5 1.20 MiB 3.00 MiB 2 in tasks",
                "14.3% 1.00 MiB 10 102 KiB 512 KiB 1 workers, outside tasks",
                "0.0% 0 B 0 - 0 B 1 other threads",
                "100.0% 7.00 MiB 15 478 KiB 3.50 MiB 4 process",
            ]
        );
        let mut report = report();
        report.memory.as_mut().unwrap().unknown = memory(7, 1);
        let lines = section(&report, TableStyle::default(), "Memory allocated and freed");
        assert!(lines[3].ends_with("task unknown"), "{lines:#?}");
    }

    #[test]
    fn sites_are_sorted_by_bytes_and_those_beyond_are_counted() {
        let lines = section(&report(), TableStyle::default(), "Memory by spawn site");
        assert_eq!(
            lines[1..],
            [
                "ALLOC% ALLOCATED CALLS AVERAGE FREED FREES TASK SITE",
                "85.7% 6.00 MiB 3 2.00 MiB 3.00 MiB 1 large src/a.rs:7",
                "<0.1% 2.00 KiB 2 1.00 KiB 1.00 KiB 1 small src/a.rs:7",
            ]
        );
        let style = TableStyle { max_sites: 1, ..TableStyle::default() };
        let lines = section(&report(), style, "Memory by spawn site");
        assert_eq!(lines[3], "… and 1 more, 2.00 KiB allocated");
    }

    #[test]
    fn the_tree_has_own_and_inclusive_bytes() {
        let style = TableStyle { tree: true, ..TableStyle::default() };
        let lines = section(&report(), style, "Memory by spawn path");
        assert_eq!(lines[2], "85.7% 6.00 MiB 2.00 KiB 2 3.00 MiB small src/a.rs:7");
        assert_eq!(lines[3], "85.7% 6.00 MiB 6.00 MiB 3 3.00 MiB large src/a.rs:7");
    }

    #[test]
    fn where_nothing_was_measured_a_line_says_why_or_nothing_does() {
        let mut report = Report { memory: None, memory_source: Some("why".into()), ..report() };
        assert_eq!(
            section(&report, TableStyle::default(), "memory:"),
            ["memory: not measured (why)"]
        );
        report.memory_source = None;
        assert!(!report.to_string().to_lowercase().contains("memory"));
    }
}
