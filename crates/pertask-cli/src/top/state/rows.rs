//! The rows of a page, whatever they are rows of, and the order in which they are shown.

use std::cmp::Ordering;

use super::{column::Column, sort::Sort, value::Value};

/// What a row stands for, so that it is found again in another report or another order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RowKey {
    /// The tasks of a spawn site.
    Site(SiteKey),
    /// The tasks of a spawn path, by its number.
    Path(u32),
    /// A task, by its number.
    Task(u64),
    /// A label's key, with one of its values or without.
    Label(String, Option<LabelPart>),
    /// A thread, or all ended threads of one kind.
    Thread { tid: Option<u32>, worker: bool },
    /// Tasks that samples have told apart, or a function.
    Name(String),
}

/// A spawn site and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SiteKey {
    name: Option<String>,
    file: String,
    line: u32,
}

/// A part of the CPU time that a label's row divides up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LabelPart {
    /// The time with one value.
    Value(String),
    /// The time with all values that have no row.
    Others,
    /// The time without the label.
    Without,
}

impl SiteKey {
    /// Returns the key of a site.
    pub fn of(site: &pertask::SpawnSite) -> Self {
        Self { name: site.name.clone(), file: site.file.clone(), line: site.line }
    }
}

/// The rows of a page, in the order of the report.
pub trait Rows {
    /// Returns their number.
    fn len(&self) -> usize;

    /// Returns what a row has in a column. For a column that these rows do not have, that is [`Value::Nothing`].
    fn value(&self, at: usize, column: Column) -> Value<'_>;

    /// Returns what the row stands for.
    fn key(&self, at: usize) -> RowKey;

    /// Returns the row above to which this one belongs, if these rows are a tree. It has a lower number.
    fn parent(&self, _at: usize) -> Option<usize> {
        None
    }

    /// Returns how far the row's name is indented.
    fn depth(&self, _at: usize) -> u32 {
        0
    }
}

/// Returns the rows to show, in order: those whose name or file contains `filter`, in capitals or not, and what these belong to.
pub fn order(rows: &dyn Rows, filter: &str, sort: Sort) -> Vec<usize> {
    let mut siblings = vec![Vec::new(); rows.len() + 1];
    for at in matching(rows, filter) {
        siblings[place_of_children(rows.parent(at))].push(at);
    }
    for group in &mut siblings {
        sort_group(rows, group, sort);
    }
    depth_first(&siblings)
}

/// Rows that belong to no row come first.
fn place_of_children(parent: Option<usize>) -> usize {
    parent.map_or(0, |parent| parent + 1)
}

fn matching(rows: &dyn Rows, filter: &str) -> Vec<usize> {
    let filter = filter.to_lowercase();
    let mut shown: Vec<bool> = (0..rows.len()).map(|at| says(rows, at, &filter)).collect();
    for at in (0..rows.len()).rev() {
        if let (true, Some(parent)) = (shown[at], rows.parent(at)) {
            shown[parent] = true;
        }
    }
    (0..rows.len()).filter(|at| shown[*at]).collect()
}

fn says(rows: &dyn Rows, at: usize, filter: &str) -> bool {
    let text = |column| match rows.value(at, column) {
        Value::Text(text) => text.to_lowercase().contains(filter),
        Value::Task(site) | Value::Place(site) => {
            let name = site.name.as_deref().unwrap_or_default();
            format!("{name}\n{}:{}", site.file, site.line).to_lowercase().contains(filter)
        }
        _ => false,
    };
    filter.is_empty() || text(Column::Name) || text(Column::Place)
}

fn sort_group(rows: &dyn Rows, group: &mut Vec<usize>, sort: Sort) {
    let mut keyed: Vec<_> = group.iter().map(|&at| (rows.value(at, sort.column), at)).collect();
    keyed.sort_by(|(one, at), (other, other_at)| {
        compare(sort, one, other).then_with(|| tie(rows, *at, *other_at))
    });
    *group = keyed.into_iter().map(|(_, at)| at).collect();
}

/// What is not known comes last, in either direction.
fn compare(sort: Sort, one: &Value<'_>, other: &Value<'_>) -> Ordering {
    match (one.is_known(), other.is_known()) {
        (true, true) if sort.is_descending() => other.compare(one),
        (true, true) => one.compare(other),
        (one, other) => other.cmp(&one),
    }
}

/// Equal rows stand in an order that hardly an update changes: idle rows must not dance.
fn tie(rows: &dyn Rows, one: usize, other: usize) -> Ordering {
    let by = |column| rows.value(one, column).compare(&rows.value(other, column));
    by(Column::TotalCpu)
        .reverse()
        .then_with(|| by(Column::Name))
        .then_with(|| by(Column::Place))
        .then_with(|| by(Column::Id))
        .then_with(|| by(Column::Tid))
        .then_with(|| one.cmp(&other))
}

fn depth_first(siblings: &[Vec<usize>]) -> Vec<usize> {
    let mut order = Vec::new();
    let mut open: Vec<usize> = siblings[0].iter().rev().copied().collect();
    while let Some(at) = open.pop() {
        order.push(at);
        open.extend(siblings[at + 1].iter().rev());
    }
    order
}
