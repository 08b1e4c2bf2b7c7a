//! The difference of two profiles as JSON, with the fields that `docs/PROFILE.md` describes.

use std::io::{self, Write};

use pertask::profile::{
    Amount, Comparison, Difference, DifferenceRow, GroupBy, Part, Side, Times, Verdict, Whole,
};
use serde::Serialize;

use super::{Head, Named, Shown, group, head, named, write};

/// The name and version of the schema.
const SCHEMA: &str = "pertask.difference/1";

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    state: &'static str,
    is_net: bool,
    noise_is_judged: bool,
    before: Head<'a>,
    after: Head<'a>,
    tables: Vec<Table<'a>>,
}

#[derive(Serialize)]
struct Table<'a> {
    by: &'static str,
    label_key: Option<&'a str>,
    part: &'static str,
    rows: Vec<Row<'a>>,
    rows_left_out: usize,
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    subject: Named<'a>,
    before_ns: u64,
    after_ns: u64,
    before_cpu_ns: u64,
    after_cpu_ns: u64,
    before_samples: Option<u64>,
    after_samples: Option<u64>,
    change_ns_per_s: Option<i64>,
    change_share_ppm: Option<i64>,
    rate_p: Option<f64>,
    rate_differs: Option<bool>,
    share_p: Option<f64>,
    share_differs: Option<bool>,
}

/// Writes the tables as indented JSON, each with at most `most_rows` rows. `states` is what the files have in each state.
///
/// # Errors
///
/// Returns the errors of `to`.
pub fn report(
    to: &mut dyn Write,
    comparison: &Comparison<'_>,
    states: [Times; 2],
    tables: &[(GroupBy, Part)],
    most_rows: usize,
) -> io::Result<()> {
    let differences: Vec<_> =
        tables.iter().map(|(by, part)| comparison.difference(by, *part)).collect();
    let (before, after) = (shown(comparison.before), shown(comparison.after));
    let report = Report {
        schema: SCHEMA,
        state: comparison.measure.state().name(),
        is_net: comparison.is_net,
        noise_is_judged: comparison.has_counts(),
        before: head(&before, states[0]),
        after: head(&after, states[1]),
        tables: differences.iter().map(|difference| table(difference, most_rows)).collect(),
    };
    write(to, &report)
}

fn shown(side: Side<'_>) -> Shown<'_> {
    Shown { whole: side.whole, part: side.part }
}

fn table(difference: &Difference, most_rows: usize) -> Table<'_> {
    let (by, label_key) = group(&difference.by);
    let part = match difference.part {
        Part::Own => "self",
        Part::Total => "total",
    };
    let rows = &difference.rows;
    let rows_left_out = rows.len().saturating_sub(most_rows);
    let rows = rows.iter().take(most_rows).map(|it| row(difference, it)).collect();
    Table { by, label_key, part, rows, rows_left_out }
}

fn row<'a>(difference: &Difference, row: &'a DifferenceRow) -> Row<'a> {
    let known = |whole: Whole, samples| (whole.has_counts && !difference.is_net).then_some(samples);
    let p = |verdict: Option<Verdict>| verdict.map(|verdict| verdict.p);
    let differs = |verdict: Option<Verdict>| verdict.map(|verdict| verdict.differs);
    let cpu = |amount: Amount| Times::of(difference.measure.state(), amount.time_ns).on_cpu_ns;
    Row {
        subject: named(&row.subject),
        before_ns: row.before.time_ns,
        after_ns: row.after.time_ns,
        before_cpu_ns: cpu(row.before),
        after_cpu_ns: cpu(row.after),
        before_samples: known(difference.before, row.before.samples),
        after_samples: known(difference.after, row.after.samples),
        // Both fit: they are rounded, and stop at the largest integer.
        change_ns_per_s: difference.rate_change(row).map(|change| change.round() as i64),
        change_share_ppm: difference.share_change(row).map(|change| (change * 1e6).round() as i64),
        rate_p: p(row.rate),
        rate_differs: differs(row.rate),
        share_p: p(row.share),
        share_differs: differs(row.share),
    }
}
