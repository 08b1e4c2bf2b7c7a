//! What a session measures, and of which tasks; and their counts as rows.

use super::memory::MemorySource;
use super::rows::{Rows, Running};
use crate::pmus::counters::{Counter, CounterCounts, Counters, CountersPmu};
use crate::pmus::cpu_time::{CpuTime, CpuTimeCount};
use crate::pmus::memory::Memory;
use crate::pmus::wake::{Latencies, WakeLatency, Wakes};
use crate::tasks::accounts::Watch;
use crate::tasks::past::Times;
use pertask_core::{Event, Inherit, PmuHandle, Task};
use std::sync::Arc;

/// What a session measures.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) cpu_time: PmuHandle<CpuTime>,
    pub(crate) counters: Option<Counters>,
    pub(crate) wakes: Option<Wakes>,
    pub(crate) memory: MemorySource,
    /// Present in a session on all tasks.
    pub(crate) labels: Option<Watch>,
}

/// Which counts are read, and of which tasks.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) measured: &'a Measured,
    pub(crate) of: Selection<'a>,
}

/// The tasks that a session measures.
#[derive(Clone, Copy)]
pub(crate) enum Selection<'a> {
    All,
    Tasks(&'a [Attached]),
}

/// A task, with a session's events on it.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) task: Arc<Task>,
    pub(crate) cpu_time: Event<CpuTime>,
    pub(crate) counters: Option<Event<CountersPmu>>,
    pub(crate) wakes: Option<Event<WakeLatency>>,
    pub(crate) memory: Option<Event<Memory>>,
}

impl Measured {
    /// Attaches a session's events to a task.
    pub(crate) fn attach(
        &self,
        task: &Arc<Task>,
        inherit: Inherit,
    ) -> Result<Attached, pertask_core::Error> {
        let counters = self.counters.as_ref();
        let counters = counters.map(|counters| counters.handle().attach_task(task, inherit));
        let wakes = self.wakes.as_ref().map(|wakes| wakes.handle.attach_task(task, inherit));
        let memory = self.memory.handle().map(|memory| memory.attach_task(task, inherit));
        Ok(Attached {
            task: Arc::clone(task),
            cpu_time: self.cpu_time.attach_task(task, inherit)?,
            counters: counters.transpose()?,
            wakes: wakes.transpose()?,
            memory: memory.transpose()?,
        })
    }

    pub(crate) fn values(&self, counts: &CounterCounts) -> Vec<Counter> {
        self.counters.as_ref().map(|counters| counters.values(counts)).unwrap_or_default()
    }
}

impl Sources<'_> {
    pub(crate) fn labels(&self) -> Times {
        self.measured.labels.as_ref().map(Watch::read).unwrap_or_default()
    }

    pub(crate) fn cpu_time_rows(&self, running: &[Running]) -> Rows<CpuTimeCount> {
        match self.of {
            Selection::All => Rows::of_all(self.measured.cpu_time, running, |count| {
                count.cpu_ns == 0 && count.polls == 0
            }),
            Selection::Tasks(tasks) => {
                let events = tasks.iter().map(|attached| (&*attached.task, &attached.cpu_time));
                Rows::of_some(self.measured.cpu_time, running, events)
            }
        }
    }

    pub(crate) fn counter_rows(&self, running: &[Running]) -> Rows<CounterCounts> {
        let counters = self.measured.counters.as_ref();
        let Some(handle) = counters.map(Counters::handle) else { return Rows::default() };
        match self.of {
            Selection::All => {
                Rows::of_all(handle, running, |count| *count == CounterCounts::default())
            }
            Selection::Tasks(tasks) => {
                let events = tasks
                    .iter()
                    .filter_map(|attached| Some((&*attached.task, attached.counters.as_ref()?)));
                Rows::of_some(handle, running, events)
            }
        }
    }

    pub(crate) fn wake_rows(&self) -> Rows<Latencies> {
        // A wait is counted when its poll begins, so no count is under way.
        let running = &[];
        let Some(handle) = self.measured.wakes.as_ref().map(|wakes| wakes.handle) else {
            return Rows::default();
        };
        match self.of {
            Selection::All => Rows::of_all(handle, running, |it| !it.were_measured()),
            Selection::Tasks(tasks) => {
                let events = tasks
                    .iter()
                    .filter_map(|attached| Some((&*attached.task, attached.wakes.as_ref()?)));
                Rows::of_some(handle, running, events)
            }
        }
    }
}
