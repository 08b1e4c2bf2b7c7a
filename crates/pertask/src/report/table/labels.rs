//! The labels: for each key, its values with their CPU time.

use crate::report::{LabelReport, LabelValueReport};
use pertask_text::grid::{Cell, Column, Grid};
use pertask_text::human;
use pertask_text::ink::{Ink, Tint};
use pertask_text::text::{cut_end, harmless};

/// The widest key to show, so that the title fits the narrowest terminal.
const MAX_KEY: usize = 26;

/// The widest value to show.
const MAX_VALUE: usize = 56;

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
    let key = cut_end(&harmless(&label.key), MAX_KEY);
    let columns = [
        Column::Number { title: "CPU%", rank: None },
        Column::Number { title: "CPU", rank: None },
        Column::Text { title: "VALUE", least: 8, most: MAX_VALUE },
    ];
    let title = format!("Tasks by label {key} (% of process CPU)");
    let mut lines = vec![ink.paint(&title, Tint::Title)];
    lines.extend(Grid::new(&columns, rows).lines(width, ink));
    lines
}
