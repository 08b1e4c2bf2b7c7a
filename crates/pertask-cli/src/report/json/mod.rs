//! The tables as JSON, with the fields that `docs/PROFILE.md` describes.

mod difference;
mod lives;

use std::{
    io::{self, Write},
    sync::Arc,
    time::UNIX_EPOCH,
};

use pertask::profile::{
    AllocationRow, Amount, GroupBy, Lost, Profile, State, Subject, Summary, SummaryRow, Times,
};
use serde::Serialize;

use super::{Shown, harmless_json::Harmless};
use crate::places;
pub use difference::report as difference;
pub use lives::report as lives;

/// The name and version of the schema.
const SCHEMA: &str = "pertask.profile/1";

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    #[serde(flatten)]
    head: Head<'a>,
    tables: Vec<Table<'a>>,
    allocations: Vec<Allocated<'a>>,
}

/// What was allocated at a place.
#[derive(Serialize)]
struct Allocated<'a> {
    name: Option<&'a str>,
    file: Option<&'a str>,
    line: Option<u32>,
    task_name: Option<&'a str>,
    bytes: u64,
    calls: u64,
}

/// What a profile says of itself.
#[derive(Serialize)]
struct Head<'a> {
    start_unix_ns: Option<i64>,
    duration_ns: u64,
    mechanism: &'a str,
    period_ns: u64,
    state: &'static str,
    time_ns: u64,
    cpu_ns: u64,
    samples: Option<u64>,
    samples_whole: Option<u64>,
    lost: Losses,
    remarks: &'a [String],
    matched: Option<Matched>,
    label_keys: Vec<String>,
    states: Vec<InState>,
}

/// What a file has in one state.
#[derive(Serialize)]
struct InState {
    state: &'static str,
    time_ns: u64,
}

#[derive(Serialize)]
struct Losses {
    samples_dropped: u64,
    stacks_incomplete: u64,
    samples_folded: u64,
    locations_folded: u64,
    texts_folded: u64,
    texts_cut: u64,
    stacks_cut: u64,
    threads_not_sampled: u64,
    unsampled_cpu_ns: u64,
}

#[derive(Serialize)]
struct Matched {
    time_ns: u64,
    cpu_ns: u64,
    samples: Option<u64>,
    conditions: Vec<String>,
}

#[derive(Serialize)]
struct Table<'a> {
    by: &'static str,
    label_key: Option<&'a str>,
    rows: Vec<Row<'a>>,
    rows_left_out: usize,
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    subject: Named<'a>,
    self_ns: u64,
    total_ns: u64,
    self_cpu_ns: u64,
    total_cpu_ns: u64,
    self_blocked_ns: u64,
    total_blocked_ns: u64,
    self_ready_ns: u64,
    total_ready_ns: u64,
    self_waiting_ns: u64,
    total_waiting_ns: u64,
    self_samples: Option<u64>,
    total_samples: Option<u64>,
}

/// The subject of a row.
#[derive(Serialize)]
struct Named<'a> {
    kind: &'static str,
    name: Option<&'a str>,
    file: Option<&'a str>,
    line: Option<u32>,
    task_name: Option<&'a str>,
    task: Option<u64>,
    parent: Option<u64>,
    future_type: Option<&'a str>,
    tid: Option<u32>,
}

/// Writes the tables as indented JSON, each with at most `most_rows` rows. `states` is what the file has in each state.
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
    let summaries: Vec<_> = by.iter().map(|by| shown.profile().summary(by)).collect();
    let of = |summary| table(shown, summary, most_rows);
    let tables = summaries.iter().map(of).collect();
    let places = places::allocations(shown.profile());
    let allocations = places.iter().take(most_rows).map(allocated).collect();
    write(to, &Report { schema: SCHEMA, head: head(shown, states), tables, allocations })
}

fn allocated(row: &AllocationRow) -> Allocated<'_> {
    let Named { name, file, line, task_name, .. } = named(&row.place);
    Allocated { name, file, line, task_name, bytes: row.bytes, calls: row.count }
}

fn write(to: &mut dyn Write, report: &impl Serialize) -> io::Result<()> {
    report.serialize(&mut serde_json::Serializer::with_formatter(&mut *to, Harmless::default()))?;
    to.write_all(b"\n")
}

fn head<'a>(shown: &Shown<'a>, states: Times) -> Head<'a> {
    let whole = shown.whole;
    let amount = whole.whole();
    let time = |profile: &Profile| Times::of(profile.state, profile.whole().time_ns);
    let complete = whole.samples.iter().filter(|it| it.complete && !it.stack.is_empty());
    let complete = complete.map(|sample| sample.count).fold(0, u64::saturating_add);
    Head {
        start_unix_ns: start(shown),
        duration_ns: whole.duration_ns,
        mechanism: &whole.mechanism,
        period_ns: whole.period_ns,
        state: whole.state.name(),
        time_ns: amount.time_ns,
        cpu_ns: time(whole).on_cpu_ns,
        samples: known(whole, amount.samples),
        samples_whole: known(whole, complete),
        lost: losses(whole.lost),
        remarks: &whole.remarks,
        matched: shown.part.map(|(part, filter)| Matched {
            time_ns: part.whole().time_ns,
            cpu_ns: time(part).on_cpu_ns,
            samples: known(whole, part.whole().samples),
            conditions: filter.conditions().iter().map(ToString::to_string).collect(),
        }),
        label_keys: texts(whole.label_keys()),
        states: in_states(states),
    }
}

fn texts(names: Vec<Arc<str>>) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Returns what a file has in each state.
fn in_states(times: Times) -> Vec<InState> {
    let of = |state: State| InState { state: state.name(), time_ns: times.in_state(state) };
    State::ALL.map(of).into()
}

/// Returns a number of samples, or `None` if the profile does not say how many there are.
fn known(profile: &Profile, samples: u64) -> Option<u64> {
    profile.has_counts.then_some(samples)
}

fn table<'a>(shown: &Shown<'_>, summary: &'a Summary, most_rows: usize) -> Table<'a> {
    let (profile, rows) = (shown.profile(), &summary.rows);
    let (by, label_key) = group(&summary.by);
    let rows_left_out = rows.len().saturating_sub(most_rows);
    let times = |amount: Amount| Times::of(summary.state, amount.time_ns);
    let row = |it: &'a SummaryRow| {
        let samples = [it.own, it.total].map(|amount| known(profile, amount.samples));
        row(&it.subject, times(it.own), times(it.total), samples)
    };
    let rows = rows.iter().take(most_rows).map(row).collect();
    Table { by, label_key, rows, rows_left_out }
}

/// Returns the name of a group, and its label's key.
fn group(by: &GroupBy) -> (&'static str, Option<&str>) {
    match by {
        GroupBy::Site => ("site", None),
        GroupBy::Task => ("task", None),
        GroupBy::Function => ("function", None),
        GroupBy::Place => ("place", None),
        GroupBy::Waker => ("waker", None),
        GroupBy::Thread => ("thread", None),
        GroupBy::Scope => ("scope", None),
        GroupBy::Label(key) => ("label", Some(&**key)),
        _ => ("other", None),
    }
}

fn row(subject: &Subject, own: Times, total: Times, samples: [Option<u64>; 2]) -> Row<'_> {
    Row {
        subject: named(subject),
        self_ns: own.sum(),
        total_ns: total.sum(),
        self_cpu_ns: own.on_cpu_ns,
        total_cpu_ns: total.on_cpu_ns,
        self_blocked_ns: own.blocked_ns,
        total_blocked_ns: total.blocked_ns,
        self_ready_ns: own.ready_ns,
        total_ready_ns: total.ready_ns,
        self_waiting_ns: own.waiting_ns,
        total_waiting_ns: total.waiting_ns,
        self_samples: samples[0],
        total_samples: samples[1],
    }
}

fn named(subject: &Subject) -> Named<'_> {
    let mut out = Named {
        kind: "other",
        name: None,
        file: None,
        line: None,
        task_name: None,
        task: None,
        parent: None,
        future_type: None,
        tid: None,
    };
    match subject {
        Subject::Site { name, site } => {
            out.kind = "site";
            out.name = name.as_deref();
            out.file = site.as_ref().map(|site| &*site.file);
            out.line = site.as_ref().map(|site| site.line);
        }
        Subject::Task(task) => {
            out.kind = "task";
            out.name = task.name.as_deref();
            out.file = task.site.as_ref().map(|site| &*site.file);
            out.line = task.site.as_ref().map(|site| site.line);
            (out.task, out.parent) = (task.id, task.parent);
            out.future_type = task.future.as_deref();
        }
        Subject::Function { name, file } => {
            out.kind = "function";
            out.name = Some(name);
            out.file = file.as_deref();
        }
        Subject::Place { name, at, task } => {
            out.kind = "place";
            out.name = Some(name);
            out.file = at.as_ref().map(|at| &*at.file);
            out.line = at.as_ref().map(|at| at.line);
            out.task_name = task.as_deref();
        }
        Subject::Waker { task, by, holds } => {
            out.kind = if *holds { "holder" } else { "waker" };
            out.name = by.as_deref();
            out.task_name = Some(task);
        }
        Subject::Thread(thread) => {
            out.kind = "thread";
            let named = thread.as_ref().filter(|thread| !thread.name.is_empty());
            out.name = named.map(|thread| &*thread.name);
            out.tid = thread.as_ref().map(|thread| thread.tid).filter(|tid| *tid != 0);
        }
        Subject::Scope(scope) => (out.kind, out.name) = ("scope", Some(&**scope)),
        Subject::Label(value) => (out.kind, out.name) = ("label", Some(&**value)),
        Subject::OutsideTasks => out.kind = "outside_tasks",
        Subject::Runtime(part) => (out.kind, out.name) = ("runtime", Some(&**part)),
        Subject::NoStack => out.kind = "no_stack",
        Subject::NoScope => out.kind = "no_scope",
        Subject::NoLabel => out.kind = "no_label",
        _ => (),
    }
    out
}

/// Returns when sampling began, in nanoseconds of Unix time. Programs that do not know the time write 0.
fn start(shown: &Shown<'_>) -> Option<i64> {
    let start = shown.whole.start;
    let ns = match start.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).ok()?,
        Err(before) => -i64::try_from(before.duration().as_nanos()).ok()?,
    };
    (ns != 0).then_some(ns)
}

fn losses(lost: Lost) -> Losses {
    // All fields are named here, so that the compiler reports a new one.
    let Lost {
        samples_dropped,
        stacks_incomplete,
        samples_folded,
        locations_folded,
        texts_folded,
        texts_cut,
        stacks_cut,
        threads_not_sampled,
        unsampled_cpu_ns,
    } = lost;
    Losses {
        samples_dropped,
        stacks_incomplete,
        samples_folded,
        locations_folded,
        texts_folded,
        texts_cut,
        stacks_cut,
        threads_not_sampled,
        unsampled_cpu_ns,
    }
}
