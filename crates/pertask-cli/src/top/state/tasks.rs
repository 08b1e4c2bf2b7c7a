//! The live tasks of one site.
//!
//! They are compared with the last report only while somebody looks at them: there may be a hundred thousand.

use std::{collections::HashMap, rc::Rc};

use pertask::{Report, SpawnSite, TaskReport};

use super::{
    column::Column,
    figures::Figures,
    life::LifeRates,
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
    pub life: LifeRates,
}

/// Whether a report lists all live tasks that have used something, and whether it lists all live tasks.
#[derive(Clone, Copy, Debug)]
struct Complete {
    in_use: bool,
    in_number: bool,
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
        let complete = Complete::of(before);
        let rows = report.tasks.iter().enumerate().filter(|(_, task)| task.site == *site);
        let rows = rows.map(|(at, task)| {
            let last = known.get(&task.id).copied();
            Row { at, rates: TaskRates::of(task, last, complete, figures.seconds()) }
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
        Some((task, Self::of(task, last, Complete::of(before), figures.seconds())))
    }

    /// Compares a task with the last report.
    ///
    /// A task that is not in the last report is new, and has used nothing before, if that report lacked no task. Otherwise it may
    /// only have been below the last row, and its rate is not known.
    fn of(task: &TaskReport, last: Option<&TaskReport>, complete: Complete, seconds: f64) -> Self {
        let mut rates = Self::default();
        if last.is_some() || complete.in_use {
            let (cpu_ns, polls) =
                last.map(|last| (last.usage.cpu_ns, last.usage.polls)).unwrap_or_default();
            rates.cpu.advance(cpu_ns, 0.0);
            rates.cpu.advance(task.usage.cpu_ns, seconds);
            rates.polls.advance(polls, 0.0);
            rates.polls.advance(task.usage.polls, seconds);
        }
        // A task lives also while it uses nothing.
        let is_known = last.is_some() || complete.in_number;
        rates.life.advance(last.and_then(|last| last.life.as_ref()), 0.0);
        rates.life.advance(task.life.as_ref(), if is_known { seconds } else { 0.0 });
        rates
    }
}

impl Complete {
    /// What the report before the newest had. If there was none, the session began with no counts.
    fn of(before: Option<&Rc<Report>>) -> Self {
        let Some(report) = before else { return Self { in_use: true, in_number: true } };
        let live = report.sites.iter().map(|site| site.tasks_live);
        let live = live.fold(0, u64::saturating_add);
        let in_number = report.tasks.len() as u64 >= live;
        let last = report.tasks.last();
        Self { in_use: in_number || last.is_some_and(|task| task.usage.cpu_ns == 0), in_number }
    }
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
            column => row.rates.life.value(column),
        }
    }

    fn key(&self, at: usize) -> RowKey {
        RowKey::Task(self.id(at).unwrap_or_default())
    }
}
