//! Whole lives as JSON, with the fields of one state's tables.

use std::io::{self, Write};

use pertask::profile::{GroupBy, LifeSummary, Times};

use super::{Report, SCHEMA, Shown, Table, group, head, row, texts, write};

/// Writes the tables of all states as indented JSON, each with at most `most_rows` rows. `states` is what the file has in each state.
///
/// # Errors
///
/// Returns the errors of `to`.
pub fn report(
    to: &mut dyn Write,
    shown: &Shown<'_>,
    states: Times,
    by: &[GroupBy],
    most_rows: usize,
) -> io::Result<()> {
    let lives: Vec<_> = by.iter().map(|by| shown.profile().lives(by)).collect();
    let tables = lives.iter().map(|lives| table(lives, most_rows)).collect();
    let mut head = head(shown, states);
    (head.state, head.time_ns) = ("life", shown.whole.times().sum());
    head.label_keys = texts(shown.whole.label_keys_of_lives());
    // Samples and waits are no sum.
    (head.samples, head.samples_whole) = (None, None);
    if let (Some(matched), Some((part, _))) = (&mut head.matched, shown.part) {
        (matched.time_ns, matched.samples) = (part.times().sum(), None);
    }
    write(to, &Report { schema: SCHEMA, head, tables, allocations: Vec::new() })
}

fn table(lives: &LifeSummary, most_rows: usize) -> Table<'_> {
    let (by, label_key) = group(&lives.by);
    let rows_left_out = lives.rows.len().saturating_sub(most_rows);
    let rows = lives.rows.iter().take(most_rows);
    let rows = rows.map(|it| row(&it.subject, it.own, it.total, [None, None])).collect();
    Table { by, label_key, rows, rows_left_out }
}
