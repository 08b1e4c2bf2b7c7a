//! What a session measures, and of which tasks; and their counts as rows.

use super::lives::{self, Lives};
use super::memory::MemorySource;
use super::rows::{Rows, Running};
use crate::pmus::counters::{Counter, CounterCounts, Counters, CountersPmu};
use crate::pmus::cpu_time::{CpuTime, CpuTimeCount};
use crate::pmus::life::{Life, LifeCount};
use crate::pmus::memory::Memory;
use crate::pmus::stint::Stints;
use crate::pmus::wake::{Latencies, WakeLatency};
use crate::pmus::waker::Wanted;
use crate::tasks::accounts::{self, Watch};
use crate::tasks::used::ByPlace;
use pertask_core::{Event, Inherit, PmuHandle, Task};
use std::sync::Arc;

/// What a session measures.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) cpu_time: PmuHandle<CpuTime>,
    pub(crate) counters: Option<Counters>,
    pub(crate) wakes: Option<PmuHandle<WakeLatency>>,
    pub(crate) life: Option<PmuHandle<Life>>,
    /// Present where wakes or lives are measured.
    pub(crate) wanted: Option<Wanted>,
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
    pub(crate) life: Option<Event<Life>>,
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
        let wakes = self.wakes.map(|wakes| wakes.attach_task(task, inherit));
        let life = self.life.map(|life| life.attach_task(task, inherit));
        let memory = self.memory.handle().map(|memory| memory.attach_task(task, inherit));
        Ok(Attached {
            task: Arc::clone(task),
            cpu_time: self.cpu_time.attach_task(task, inherit)?,
            counters: counters.transpose()?,
            wakes: wakes.transpose()?,
            life: life.transpose()?,
            memory: memory.transpose()?,
        })
    }

    pub(crate) fn values(&self, counts: &CounterCounts) -> Vec<Counter> {
        self.counters.as_ref().map(|counters| counters.values(counts)).unwrap_or_default()
    }
}

impl<'a> Sources<'a> {
    /// Begins to read what labels have used. `None` where they are not measured.
    pub(crate) fn begin_labels(&self) -> Option<accounts::Reading<'a>> {
        self.measured.labels.as_ref().map(Watch::begin_reading)
    }

    /// Reads what labels have used by now, except for lives.
    pub(super) fn by_place(&self) -> ByPlace {
        let by_place = ByPlace::read_cpu_time();
        match self.measured.memory.handle() {
            Some(_) => by_place.with_memory(),
            None => by_place,
        }
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
        let handle = self.measured.counters.as_ref().map(Counters::handle);
        self.optional_rows(
            handle,
            running,
            |attached| attached.counters.as_ref(),
            |count| *count == CounterCounts::default(),
        )
    }

    /// A wait is counted when its poll begins, so no count is under way.
    pub(crate) fn wake_rows(&self) -> Rows<Latencies> {
        let is_idle = |latencies: &Latencies| !latencies.were_measured();
        self.optional_rows(self.measured.wakes, &[], |attached| attached.wakes.as_ref(), is_idle)
    }

    /// A reading has all of a task's life so far, so no count is under way.
    pub(crate) fn lives(&self) -> Lives {
        if let (Some(handle), Some(_)) = (self.measured.life, &self.measured.labels) {
            return lives::read_all(handle);
        }
        let is_idle = |count: &LifeCount| count.life_ns() == 0;
        let life = |attached: &'a Attached| attached.life.as_ref();
        let rows = self.optional_rows(self.measured.life, &[], life, is_idle);
        Lives { rows, by_place: Vec::new() }
    }

    /// The rows of a PMU that a session may do without.
    fn optional_rows<P: Stints<Count: PartialEq>>(
        &self,
        handle: Option<PmuHandle<P>>,
        running: &[Running],
        event: impl Fn(&'a Attached) -> Option<&'a Event<P>>,
        is_idle: impl Fn(&P::Count) -> bool,
    ) -> Rows<P::Count> {
        let Some(handle) = handle else { return Rows::default() };
        match self.of {
            Selection::All => Rows::of_all(handle, running, is_idle),
            Selection::Tasks(tasks) => {
                let events = tasks.iter().filter_map(|it| Some((&*it.task, event(it)?)));
                Rows::of_some(handle, running, events)
            }
        }
    }
}
