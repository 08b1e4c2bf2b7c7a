//! The live tasks of one site.
//!
//! They are compared with the last report only while somebody looks at them: there may be a hundred thousand.

use std::{collections::HashMap, rc::Rc};

use pertask::{Report, SpawnSite, TaskReport};

use super::{
    column::Column,
    figures::Figures,
    meter::Meter,
    rows::{RowKey, Rows},
    value::Value,
};

/// The rows of a site's tasks.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    report: Option<Rc<Report>>,
    rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    /// The task's place in the report.
    at: usize,
    rates: TaskRates,
}

/// What a task does in a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskRates {
    pub cpu: Meter,
    pub polls: Meter,
}

impl Tasks {
    /// Finds a site's tasks in the newest report, and measures them.
    pub fn of_site(figures: &Figures, site: &SpawnSite) -> Self {
        let Some(report) = figures.report() else { return Self::default() };
        let before = figures.before();
        let known = before.map_or_else(HashMap::new, |before| {
            let tasks = before.tasks.iter().filter(|task| task.site == *site);
            tasks.map(|task| (task.id, task)).collect()
        });
        let all = before.is_none_or(|before| has_all_tasks(before));
        let rows = report.tasks.iter().enumerate().filter(|(_, task)| task.site == *site);
        let rows = rows.map(|(at, task)| {
            let last = known.get(&task.id).copied();
            Row { at, rates: TaskRates::of(task, last, all, figures.seconds()) }
        });
        Self { rows: rows.collect(), report: Some(Rc::clone(report)) }
    }

    /// Returns the number of the task in a row.
    pub fn id(&self, at: usize) -> Option<u64> {
        self.task(at).map(|task| task.id)
    }

    fn task(&self, at: usize) -> Option<&TaskReport> {
        self.report.as_ref()?.tasks.get(self.rows.get(at)?.at)
    }
}

impl TaskRates {
    /// Measures one task of the newest report, or returns `None` if that report does not have it.
    pub fn of_task(figures: &Figures, id: u64) -> Option<(&TaskReport, Self)> {
        let find = |report: &Rc<Report>| report.tasks.iter().position(|task| task.id == id);
        let report = figures.report()?;
        let task = &report.tasks[find(report)?];
        let before = figures.before();
        let last = before.and_then(|before| find(before).map(|at| &before.tasks[at]));
        let all = before.is_none_or(|before| has_all_tasks(before));
        Some((task, Self::of(task, last, all, figures.seconds())))
    }

    /// Compares a task with the last report.
    ///
    /// A task that is not in the last report is new, and has used nothing before, if that report had `all` tasks. Otherwise it may
    /// only have been below the last row, and its rate is not known.
    fn of(task: &TaskReport, last: Option<&TaskReport>, all: bool, seconds: f64) -> Self {
        let last = match last {
            None if !all => return Self::default(),
            last => last.map(|last| (last.usage.cpu_ns, last.usage.polls)).unwrap_or_default(),
        };
        let mut rates = Self::default();
        rates.cpu.advance(last.0, 0.0);
        rates.cpu.advance(task.usage.cpu_ns, seconds);
        rates.polls.advance(last.1, 0.0);
        rates.polls.advance(task.usage.polls, seconds);
        rates
    }
}

/// Returns whether no task that has used anything is missing from the report.
fn has_all_tasks(report: &Report) -> bool {
    let live = report.sites.iter().fold(0, |sum: u64, site| sum.saturating_add(site.tasks_live));
    report.tasks.len() as u64 >= live
        || report.tasks.last().is_some_and(|task| task.usage.cpu_ns == 0)
}

impl Rows for Tasks {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn value(&self, at: usize, column: Column) -> Value<'_> {
        let (Some(task), Some(row)) = (self.task(at), self.rows.get(at)) else {
            return Value::Nothing;
        };
        match column {
            Column::Id => Value::Id(task.id),
            Column::Parent => task.parent.map_or(Value::Unknown, Value::Id),
            Column::Cpu => Value::percent(row.rates.cpu.percent_of_time()),
            Column::TotalCpu => Value::Time(task.usage.cpu_ns),
            Column::Polls => Value::per_second(row.rates.polls.per_second()),
            Column::MaxPoll => Value::Time(task.usage.max_poll_ns),
            Column::WakeP99 => Value::time(task.wakes.as_ref().and_then(|wakes| wakes.p99_ns)),
            Column::Name => Value::Task(&task.site),
            _ => Value::Nothing,
        }
    }

    fn key(&self, at: usize) -> RowKey {
        RowKey::Task(self.id(at).unwrap_or_default())
    }
}
