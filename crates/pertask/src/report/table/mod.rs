//! The report as text for a terminal, like `perf report`.
//!
//! Rendering changes nothing and hides nothing. The parts of the summary add up to the process, or the difference has its own
//! row. Rows beyond a maximum are counted.

mod advice;
mod blocked;
mod counters;
mod labels;
mod life;
mod lost;
mod memory;
mod rows;
mod summary;
#[cfg(test)]
mod tests;

use std::fmt;

use self::life::Lives;
use self::memory::Holder;
use self::rows::{Counted, Row, Waits};
use super::{LabelReport, LifeReport, Report, SiteReport};
use crate::pmus::counters::CounterSource;
use pertask_text::grid::Grid;
use pertask_text::human;
use pertask_text::ink::{Ink, Tint};
use pertask_text::text::{harmless, wrap};

/// How a [`Table`] looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableStyle {
    /// The width of the widest line, at least 60 columns, or `None` for no limit.
    pub width: Option<u16>,
    /// Whether to use ANSI colours.
    pub color: bool,
    /// Whether to show the tree of spawns in place of the list of spawn sites.
    pub tree: bool,
    /// The most spawn sites, or spawn paths, to show.
    pub max_sites: usize,
    /// The most live tasks to show.
    pub max_tasks: usize,
    /// The most values of each label to show.
    pub max_label_values: usize,
    /// The most threads to show.
    pub max_threads: usize,
}

impl Default for TableStyle {
    fn default() -> Self {
        Self {
            width: None,
            color: false,
            tree: false,
            max_sites: 30,
            max_tasks: 10,
            max_label_values: 10,
            max_threads: 12,
        }
    }
}

/// A [`Report`] that displays as text, made by [`Report::table`].
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    report: &'a Report,
    style: TableStyle,
}

impl Report {
    /// Renders this report as text.
    ///
    /// Control characters in names are escaped, so no name can steer the terminal.
    #[must_use]
    pub fn table(&self, style: TableStyle) -> Table<'_> {
        Table { report: self, style }
    }
}

/// Displays the report as a table with [`TableStyle::default`].
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table(TableStyle::default()).fmt(f)
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { sites, tree, tasks, labels, threads, counters, .. } = self.report;
        let max_sites = self.style.max_sites;
        let mut sections = vec![
            self.header(),
            summary::lines(self.report, self.max_width(), self.ink()),
            self.advice(),
            if self.style.tree { self.list(tree, max_sites) } else { self.list(sites, max_sites) },
            self.counts(sites, self.style.max_sites),
            self.waits(sites),
            if self.style.tree {
                self.lives(life::as_they_stand(tree, max_sites))
            } else {
                self.lives(life::longest_first(sites, max_sites))
            },
            self.blocked(),
            self.memory(),
            if self.style.tree {
                self.holders(&tree.iter().collect::<Vec<_>>())
            } else {
                self.holders(&memory::by_bytes(sites))
            },
            self.list(tasks, self.style.max_tasks),
            self.counts(tasks, self.style.max_tasks),
            self.lives(life::longest_first(tasks, self.style.max_tasks)),
        ];
        for (number, label) in labels.iter().take(MAX_KEYS).enumerate() {
            let lives = self.lives_of_label(label, number == 0);
            sections.extend([self.label(label), lives, self.memory_of_label(label)]);
        }
        if let Some(more @ 1..) = labels.len().checked_sub(MAX_KEYS) {
            let more = format!(
                "… and {} of labels, which JSON has",
                human::counted(more as u64, "more key")
            );
            sections.push(self.prose(&more, Tint::Secondary));
        }
        sections.extend([
            self.sources(counters),
            self.list(threads, self.style.max_threads),
            self.lost(),
        ]);
        sections.retain(|lines| !lines.is_empty());
        let sections: Vec<_> = sections.iter().map(|lines| lines.join("\n")).collect();
        f.write_str(&sections.join("\n\n"))
    }
}

/// The most keys of labels to show.
const MAX_KEYS: usize = 8;

/// The least width at which the columns that matter fit.
const MIN_WIDTH: u16 = 60;

impl Table<'_> {
    fn header(&self) -> Vec<String> {
        let Report { duration_ns, process_cpu_ns, clock, .. } = self.report;
        let totals = format!(
            "{} of CPU time in {}: {} CPUs busy",
            human::duration_ns(*process_cpu_ns),
            human::duration_ns(*duration_ns),
            busy_cpus(*process_cpu_ns, *duration_ns),
        );
        let mut lines = self.prose(&totals, Tint::Title);
        if !clock.is_empty() {
            lines.extend(self.prose(&format!("clock: {clock}"), Tint::Secondary));
        }
        lines
    }

    fn advice(&self) -> Vec<String> {
        let lines = advice::lines(self.report);
        lines.iter().flat_map(|line| self.prose(line, Tint::Warning)).collect()
    }

    fn list<R: Row>(&self, rows: &[R], max: usize) -> Vec<String> {
        if rows.is_empty() {
            return Vec::new();
        }
        let (shown, cut) = rows.split_at(max.min(rows.len()));
        let mut lines = vec![self.ink().paint(R::TITLE, Tint::Title)];
        if !shown.is_empty() {
            let cells = shown.iter().map(|row| row.cells(self.report.process_cpu_ns)).collect();
            lines.extend(Grid::new(R::COLUMNS, cells).lines(self.max_width(), self.ink()));
        }
        if !cut.is_empty() {
            lines.push(self.ink().paint(&more(cut), Tint::Secondary));
        }
        lines
    }

    fn counts<R: Counted>(&self, rows: &[R], max: usize) -> Vec<String> {
        let shown = counters::shown(&self.report.counters);
        if rows.is_empty() || shown.is_empty() {
            return Vec::new();
        }
        let rows = &rows[..max.min(rows.len())];
        let cells = rows.iter().map(|row| counters::cells(row, &shown)).collect();
        let grid = Grid::new(&counters::columns::<R>(&shown), cells);
        let mut lines = vec![self.ink().paint(R::COUNTED, Tint::Title)];
        lines.extend(grid.lines(self.max_width(), self.ink()));
        lines
    }

    fn waits(&self, sites: &[SiteReport]) -> Vec<String> {
        let waits = |site| Waits::of(site).filter(|row| row.waits.count > 0);
        self.list(&sites.iter().filter_map(waits).collect::<Vec<_>>(), self.style.max_sites)
    }

    fn lives<R: Lives>(&self, rows: Vec<(&R, &LifeReport)>) -> Vec<String> {
        if rows.is_empty() {
            return Vec::new();
        }
        let (columns, cells) = life::grid(&rows);
        let mut lines = vec![self.ink().paint(R::LIVED, Tint::Title)];
        lines.extend(Grid::new(&columns, cells).lines(self.max_width(), self.ink()));
        lines.extend(self.prose(&life::legend(), Tint::Secondary));
        lines
    }

    fn blocked(&self) -> Vec<String> {
        let Some(blocked) = &self.report.blocked else { return Vec::new() };
        let most = self.style.max_sites;
        let mut lines = blocked::lines(blocked, most, self.max_width(), self.ink());
        let remarks = blocked::remarks(blocked);
        lines.extend(remarks.iter().flat_map(|remark| self.prose(remark, Tint::Secondary)));
        lines
    }

    /// What the process has allocated and freed, or why that is not known.
    fn memory(&self) -> Vec<String> {
        let Report { memory, memory_source, .. } = self.report;
        let Some(process) = memory else {
            let why = memory_source.iter().map(|why| memory::refused(why));
            return why.flat_map(|line| self.prose(&line, Tint::Warning)).collect();
        };
        let mut lines = vec![self.ink().paint(memory::PARTS, Tint::Title)];
        let grid = Grid::new(memory::PART_COLUMNS, memory::parts(process));
        lines.extend(grid.lines(self.max_width(), self.ink()));
        lines
    }

    fn holders<R: Holder>(&self, rows: &[&R]) -> Vec<String> {
        let Some(process) = &self.report.memory else { return Vec::new() };
        let (shown, cut) = rows.split_at(self.style.max_sites.min(rows.len()));
        let cells: Vec<_> = shown.iter().filter_map(|row| row.cells(&process.process)).collect();
        if rows.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![self.ink().paint(R::TITLE, Tint::Title)];
        if !cells.is_empty() {
            lines.extend(Grid::new(R::COLUMNS, cells).lines(self.max_width(), self.ink()));
        }
        if !cut.is_empty() {
            lines.push(self.ink().paint(&memory::more(cut), Tint::Secondary));
        }
        lines
    }

    fn label(&self, label: &LabelReport) -> Vec<String> {
        let most = self.style.max_label_values;
        labels::lines(label, self.report.process_cpu_ns, most, self.max_width(), self.ink())
    }

    fn lives_of_label(&self, label: &LabelReport, with_legend: bool) -> Vec<String> {
        let most = self.style.max_label_values;
        let mut lines = labels::lives(label, most, self.max_width(), self.ink());
        if with_legend && !lines.is_empty() {
            lines.extend(self.prose(&life::legend(), Tint::Secondary));
        }
        lines
    }

    fn memory_of_label(&self, label: &LabelReport) -> Vec<String> {
        let Some(memory) = &self.report.memory else { return Vec::new() };
        let most = self.style.max_label_values;
        labels::memory(label, &memory.process, most, self.max_width(), self.ink())
    }

    fn sources(&self, sources: &[CounterSource]) -> Vec<String> {
        let lines = counters::sources(sources).into_iter();
        let mut lines: Vec<_> = lines.flat_map(|(line, tint)| self.prose(&line, tint)).collect();
        let sites = self.report.sites.iter().flat_map(|site| &site.counters);
        if sites.into_iter().any(|counter| counter.estimated) {
            lines.extend(
                self.prose("~ an estimate: pertask saw only a part of it", Tint::Secondary),
            );
        }
        lines
    }

    fn lost(&self) -> Vec<String> {
        lost::lines(&self.report.lost).flat_map(|line| self.prose(&line, Tint::Warning)).collect()
    }

    /// Breaks running text at spaces. Unlike a row, it would lose its meaning if it were cut.
    fn prose(&self, text: &str, tint: Tint) -> Vec<String> {
        let lines = wrap(&harmless(text), self.max_width().unwrap_or(usize::MAX), 4);
        lines.iter().map(|line| self.ink().paint(line, tint)).collect()
    }

    fn max_width(&self) -> Option<usize> {
        self.style.width.map(|width| width.max(MIN_WIDTH).into())
    }

    fn ink(&self) -> Ink {
        Ink { color: self.style.color }
    }
}

fn busy_cpus(cpu_ns: u64, duration_ns: u64) -> String {
    match duration_ns {
        0 => human::NONE.into(),
        _ => format!("{:.2}", cpu_ns as f64 / duration_ns as f64),
    }
}

/// The line in place of the rows beyond the maximum.
fn more<R: Row>(cut: &[R]) -> String {
    let cpu_ns = cut.iter().map(Row::cpu_ns).fold(0, u64::saturating_add);
    format!("… and {} more, {} CPU", cut.len(), human::duration_ns(cpu_ns))
}
