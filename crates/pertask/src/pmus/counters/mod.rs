//! Perf events, counted for each task.
//!
//! [`event`] knows perf's names; [`set`] finds by trying where each event can be counted on this machine; [`bank`] is a set
//! open on one worker; [`pmu`] charges to each task what was counted while it ran; [`usage`] is the fallback where the kernel
//! refuses perf.

mod bank;
mod counts;
mod event;
mod pmu;
mod set;
mod usage;

pub use counts::{CounterCounts, CountersLost};
pub use event::{CounterEvent, UnknownEvent};
pub use pmu::{CountersCpu, CountersData, CountersPmu};

use crate::error::Error;
use crate::os::perf::What;
use counts::Value;
use pertask_core::PmuHandle;
use set::{Column, Set, Source};
use std::sync::Arc;

/// A set of events that is counted on every worker for as long as this lives, for the tasks that have an event of
/// [`handle`](Self::handle) attached.
///
/// ```
/// use pertask::{Counters, Inherit, TaskExt};
///
/// let counters = Counters::open(&["page-faults".parse()?])?;
/// let work = async { std::hint::black_box(vec![1_u8; 1 << 20]); }.task("touch");
/// let event = counters.handle().attach_task(work.handle().unwrap(), Inherit::No)?;
/// futures::executor::block_on(work);
///
/// let faults = &counters.values(&event.read())[0];
/// println!("{}: {:?}, by {:?}", faults.event, faults.count, counters.sources()[0].source);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Counters {
    handle: PmuHandle<CountersPmu>,
    set: Arc<Set>,
    /// The columns, in the order in which they were asked for here.
    order: Vec<usize>,
}

/// What would count an event, found by trying.
pub(crate) fn examine(event: &CounterEvent) -> CounterSource {
    Set::plan_one(event).describe()
}

/// One event's count.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
pub struct Counter {
    /// The event's name.
    pub event: String,
    /// How often it happened. `None` where it could not be counted.
    pub count: Option<u64>,
    /// Whether the count is an estimate: scaled up because the processor has too few counters for all events at once, seen
    /// only at switches, or too low because some of the workers had no counters.
    pub estimated: bool,
}

/// Where an event's counts come from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
pub struct CounterSource {
    /// The event's name.
    pub event: String,
    /// What the counts are in: `ns` for clocks, `None` for events that are counted one by one.
    pub unit: Option<&'static str>,
    /// In which modes it is counted: `u`, `k` or `uk`, for user and kernel. Less than was asked for where `refused` says so.
    pub modes: &'static str,
    /// What counts it, for people. `None`: nothing does.
    pub source: Option<String>,
    /// Why no better source is used, and what can be done about it, for people.
    pub refused: Option<String>,
}

impl Counters {
    /// Begins to count these events on every worker, those to come included. Each is tried first, which takes some
    /// milliseconds, and up to a tenth of a second where the processor has too few counters; one that cannot be counted here
    /// is no error, see [`sources`](Self::sources).
    ///
    /// Two different sets can be counted at the same time. What a worker's counting costs while no task on it has an event
    /// attached is what perf events cost the kernel at its switches.
    ///
    /// # Errors
    /// [`Error::TooManyEvents`], [`Error::CountersBusy`].
    pub fn open(events: &[CounterEvent]) -> Result<Self, Error> {
        let (handle, set) = CountersPmu::claim(events)?;
        let order = set.order_of(events);
        Ok(Self { handle, set, order })
    }

    /// What events are attached through.
    #[must_use]
    pub fn handle(&self) -> PmuHandle<CountersPmu> {
        self.handle
    }

    /// Where each event's counts come from, in the order in which they were asked for, each once.
    #[must_use]
    pub fn sources(&self) -> Vec<CounterSource> {
        self.columns().map(Column::describe).collect()
    }

    /// What counts of a task mean, in the same order.
    #[must_use]
    pub fn values(&self, counts: &CounterCounts) -> Vec<Counter> {
        self.columns().map(|column| column.value(counts)).collect()
    }

    fn columns(&self) -> impl Iterator<Item = &Column> {
        self.order.iter().map(|place| &self.set.columns[*place])
    }

    /// What cannot be counted.
    #[must_use]
    pub fn lost(&self) -> CountersLost {
        self.handle.pmu().lost(self.handle)
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        self.handle.pmu().end(self.handle);
    }
}

impl Column {
    fn value(&self, counts: &CounterCounts) -> Counter {
        let counts = &counts.0;
        let value = match self.source {
            Source::Perf { place, group, .. } => counts.of_group(place, group),
            Source::Usage { place, .. } => Value::Exact(counts.counts[place]),
            Source::Watched { place, .. } => Value::Scaled(counts.counts[place]),
            Source::Nowhere(_) => Value::NeverRan,
        };
        let (count, estimated) = match value {
            Value::Exact(count) => (Some(count), false),
            Value::Scaled(count) => (Some(count), true),
            Value::NeverRan => (None, false),
        };
        // What ran on workers without counters is missing.
        let count = count.filter(|_| counts.lost == 0 || counts.stints > 0);
        let estimated = count.is_some() && (estimated || counts.lost > 0);
        Counter { event: self.event.name().to_owned(), count, estimated }
    }

    fn modes(&self) -> &'static str {
        let What { user, kernel, .. } = self.event.what;
        let narrowed = matches!(self.source, Source::Perf { user_mode_only: Some(_), .. });
        match (user, kernel && !narrowed) {
            (true, false) => "u",
            (false, true) => "k",
            _ => "uk",
        }
    }

    fn describe(&self) -> CounterSource {
        let (source, refused) = match &self.source {
            Source::Perf { user_reads, user_mode_only, .. } => {
                let how = if *user_reads {
                    "perf, read in user space"
                } else {
                    "perf, a read at each switch"
                };
                let what = if user_mode_only.is_some() { "; user mode only" } else { "" };
                let refused = user_mode_only.map(|refused| format!("kernel mode: {refused}"));
                (Some(format!("{how}{what}")), refused)
            }
            Source::Usage { perf, .. } => (
                Some("getrusage at each switch".to_owned()),
                perf.map(|refused| format!("perf: {refused}")),
            ),
            Source::Watched { perf, .. } => (
                Some("changes of the CPU seen at switches".to_owned()),
                Some(format!("perf: {perf}")),
            ),
            Source::Nowhere(reason) => (None, Some(reason.clone())),
        };
        let unit = self.event.is_clock().then_some("ns");
        let modes = self.modes();
        CounterSource { event: self.event.name().to_owned(), unit, modes, source, refused }
    }
}
