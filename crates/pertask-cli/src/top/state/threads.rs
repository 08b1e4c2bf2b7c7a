//! The threads of the process, and how busy they are.

use std::rc::Rc;

use pertask::Report;

use super::{
    column::Column,
    meter::Meter,
    rows::{RowKey, Rows},
    tracks::{Step, Tracks},
    value::Value,
};

/// The rows of the threads.
#[derive(Clone, Debug, Default)]
pub struct Threads {
    report: Option<Rc<Report>>,
    rows: Vec<ThreadRates>,
    tracks: Tracks<RowKey, ThreadRates>,
}

#[derive(Clone, Copy, Debug, Default)]
struct ThreadRates {
    cpu: Meter,
    in_tasks: Meter,
}

/// How busy a worker is, in parts of a CPU. Both are from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Busy {
    /// The part inside tasks.
    pub in_tasks: f64,
    /// The part outside tasks.
    pub outside: f64,
}

impl Threads {
    /// Takes the next report.
    pub fn advance(&mut self, report: &Rc<Report>, step: Step) {
        self.tracks.forget_absent(report.threads.len(), step);
        let rows = report.threads.iter().map(|thread| {
            self.tracks.advance(key(thread), step, |rates, seconds| {
                rates.cpu.advance(thread.cpu_ns, seconds);
                rates.in_tasks.advance(thread.tasks_cpu_ns, seconds);
            })
        });
        self.rows = rows.collect();
        self.report = Some(Rc::clone(report));
    }

    /// Returns how busy each worker is, in the order of their numbers, so that each keeps its place.
    pub fn workers(&self) -> Vec<Busy> {
        let threads = self.report.iter().flat_map(|report| &report.threads).zip(&self.rows);
        let workers = threads.filter(|(thread, _)| thread.worker);
        let mut workers: Vec<_> =
            workers.filter_map(|(thread, rates)| Some((thread.tid?, rates.busy()))).collect();
        workers.sort_by_key(|(tid, _)| *tid);
        workers.into_iter().map(|(_, busy)| busy).collect()
    }
}

impl ThreadRates {
    fn busy(&self) -> Busy {
        let part = |meter: Meter| meter.percent_of_time().unwrap_or(0.0) / 100.0;
        let busy = part(self.cpu).min(1.0);
        let in_tasks = part(self.in_tasks).min(busy);
        Busy { in_tasks, outside: busy - in_tasks }
    }

    fn percent_in_tasks(&self) -> Option<f64> {
        let (cpu, in_tasks) = (self.cpu.grown()?, self.in_tasks.grown()?);
        // Two clocks are read one after the other, so the part can exceed the whole.
        (cpu > 0).then(|| (in_tasks as f64 / cpu as f64 * 100.0).min(100.0))
    }
}

fn key(thread: &pertask::ThreadReport) -> RowKey {
    RowKey::Thread { tid: thread.tid, worker: thread.worker }
}

impl Rows for Threads {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn value(&self, at: usize, column: Column) -> Value<'_> {
        let (Some(report), Some(rates)) = (&self.report, self.rows.get(at)) else {
            return Value::Nothing;
        };
        let thread = &report.threads[at];
        match column {
            Column::Cpu => Value::percent(rates.cpu.percent_of_time()),
            Column::InTasks => Value::percent(rates.percent_in_tasks()),
            Column::TotalCpu => Value::Time(thread.cpu_ns),
            Column::Kind => Value::Text(if thread.worker { "worker" } else { "other" }),
            Column::Tid => thread.tid.map_or(Value::Unknown, |tid| Value::Id(tid.into())),
            Column::Name => Value::Text(&thread.name),
            _ => Value::Nothing,
        }
    }

    fn key(&self, at: usize) -> RowKey {
        self.report.as_ref().map_or_else(
            || RowKey::Thread { tid: None, worker: false },
            |report| key(&report.threads[at]),
        )
    }
}
