//! The labels: for each key, its values with their CPU time, with the lives of tasks, and with what they allocate.

use super::life::{self, Living};
use super::memory;
use crate::pmus::memory::count::MemoryCount;
use crate::report::{LabelReport, LabelValueReport, LifeReport};
use pertask_text::grid::{Cell, Column, Grid};
use pertask_text::human;
use pertask_text::ink::{Ink, Tint};
use pertask_text::text::{cut_end, harmless};
use std::cmp::Reverse;

/// The widest key to show, so that the title fits the narrowest terminal.
const MAX_KEY: usize = 26;

/// The widest value to show.
const MAX_VALUE: usize = 56;

const VALUE: Column<'static> = Column::Text { title: "VALUE", least: 8, most: MAX_VALUE };

/// The lives of tasks that had a value, or had none.
struct Whose {
    life: Option<LifeReport>,
    who: Cell,
}

impl Living for Whose {
    const WHOSE: &[Column<'static>] = &[VALUE];

    fn whose(&self) -> Vec<Cell> {
        vec![self.who.clone()]
    }

    fn life(&self) -> Option<&LifeReport> {
        self.life.as_ref()
    }
}

/// The lines of the lives of one key, with at most `most` values: those with the longest lives. None where lives were not measured.
pub(super) fn lives(
    label: &LabelReport,
    most: usize,
    width: Option<usize>,
    ink: Ink,
) -> Vec<String> {
    let value = |it: &LabelValueReport| Whose { life: it.life.clone(), who: Cell::new(&it.value) };
    let values: Vec<_> = label.values.iter().map(value).collect();
    let mut rows = life::longest_first(&values, usize::MAX);
    let cut = rows.split_off(most.min(rows.len()));
    let others = cut.iter().map(|(_, life)| (*life).clone()).chain(label.others_life.clone());
    let rest = [
        (Some(LifeReport::sum(others)), "(other values)"),
        (label.without_life.clone(), "(without)"),
    ];
    let rest = rest.map(|(life, what)| Whose { life, who: Cell::new(what).tint(Tint::Secondary) });
    let rest = rest.iter().filter_map(|row| Some((row, row.life.as_ref()?)));
    rows.extend(rest.filter(|(_, life)| life.life_ns() > 0));
    if rows.is_empty() {
        return Vec::new();
    }
    let (columns, cells) = life::grid(&rows);
    let title = format!("Lives by label {} (% of their lives)", key(label));
    let mut lines = vec![ink.paint(&title, Tint::Title)];
    lines.extend(Grid::new(&columns, cells).lines(width, ink));
    lines
}

/// The lines of the memory of one key, with at most `most` of the values that the report has: those that have allocated most. None where memory was not counted.
pub(super) fn memory(
    label: &LabelReport,
    process: &MemoryCount,
    most: usize,
    width: Option<usize>,
    ink: Ink,
) -> Vec<String> {
    let value = |it: &LabelValueReport| Some((it.memory?, Cell::new(&it.value)));
    let mut rows: Vec<_> = label.values.iter().filter_map(value).collect();
    rows.sort_by_key(|(count, _)| Reverse(count.allocated_bytes));
    let cut = rows.split_off(most.min(rows.len()));
    let others = cut.iter().map(|(count, _)| *count).chain(label.others_memory);
    let rest =
        [(others.reduce(MemoryCount::plus), "(other values)"), (label.without_memory, "(without)")];
    let dim = |what| Cell::new(what).tint(Tint::Secondary);
    rows.extend(rest.into_iter().filter_map(|(count, what)| Some((count?, dim(what)))));
    rows.retain(|(count, _)| *count != MemoryCount::default());
    if rows.is_empty() {
        return Vec::new();
    }
    let cells = |(count, who): (MemoryCount, Cell)| {
        memory::numbers(&count, process).into_iter().chain([who]).collect()
    };
    let rows = rows.into_iter().map(cells).collect();
    let title = format!("Memory by label {} (% of bytes)", key(label));
    let mut lines = vec![ink.paint(&title, Tint::Title)];
    lines.extend(Grid::new(&memory::columns(VALUE), rows).lines(width, ink));
    lines
}

fn key(label: &LabelReport) -> String {
    cut_end(&harmless(&label.key), MAX_KEY)
}

/// The lines of one key, with at most `most` values.
pub(super) fn lines(
    label: &LabelReport,
    process_cpu_ns: u64,
    most: usize,
    width: Option<usize>,
    ink: Ink,
) -> Vec<String> {
    let (shown, cut) = label.values.split_at(most.min(label.values.len()));
    let row = |cpu_ns: u64, what: Cell| {
        let percent = human::percent(cpu_ns, process_cpu_ns);
        vec![Cell::new(&percent), Cell::new(&human::duration_ns(cpu_ns)), what]
    };
    let mut rows: Vec<_> = shown.iter().map(|it| row(it.cpu_ns, Cell::new(&it.value))).collect();
    let others_ns = |sum: u64, it: &LabelValueReport| sum.saturating_add(it.cpu_ns);
    let others_ns = cut.iter().fold(label.others_cpu_ns, others_ns);
    let rest = [(others_ns, "(other values)"), (label.without_cpu_ns, "(without)")];
    for (cpu_ns, what) in rest.into_iter().filter(|(cpu_ns, _)| *cpu_ns > 0) {
        rows.push(row(cpu_ns, Cell::new(what).tint(Tint::Secondary)));
    }
    let columns = [
        Column::Number { title: "CPU%", rank: None },
        Column::Number { title: "CPU", rank: None },
        VALUE,
    ];
    let title = format!("Tasks by label {} (% of process CPU)", key(label));
    let mut lines = vec![ink.paint(&title, Tint::Title)];
    lines.extend(Grid::new(&columns, rows).lines(width, ink));
    lines
}
