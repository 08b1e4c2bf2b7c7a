//! Perf events, counted for each task.
//!
//! [`event`] knows perf's names. [`set`] finds by trying how each event can be counted on this machine. [`bank`] is a set that
//! is open on one worker. [`pmu`] charges each task with what its worker counted while the task ran. [`usage`] is the fallback
//! where the kernel refuses perf.

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
use std::borrow::Cow;
use std::sync::Arc;

/// A set of events that every worker counts as long as this value lives.
///
/// The counts are charged to tasks that have an event of [`handle`](Self::handle) attached.
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
    /// The columns, in the order of this caller's request.
    order: Vec<usize>,
}

/// Finds by trying what would count an event.
pub(crate) fn examine(event: &CounterEvent) -> CounterSource {
    Set::plan_one(event).describe()
}

/// The count of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct Counter {
    /// The event's name.
    pub event: String,
    /// How often the event happened, or `None` where it could not be counted.
    pub count: Option<u64>,
    /// Whether the count is an estimate.
    ///
    /// An estimate is scaled up because the processor has too few counters for all events at once, or was seen only at
    /// switches, or is too low because some workers had no counters.
    pub estimated: bool,
}

/// The source of an event's counts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
pub struct CounterSource {
    /// The event's name.
    pub event: String,
    /// The unit of the counts: `ns` for clocks, or `None` for events that are counted one by one.
    pub unit: Option<Cow<'static, str>>,
    /// The modes in which the event is counted: `u`, `k` or `uk`, for user and kernel.
    ///
    /// This is less than the caller asked for where `refused` says so.
    pub modes: Cow<'static, str>,
    /// What counts the event, for people to read, or `None` where nothing does.
    pub source: Option<String>,
    /// Why no better source is used, and the remedy, for people to read.
    pub refused: Option<String>,
}

impl Counters {
    /// Begins to count these events on every worker, including workers that begin later.
    ///
    /// This tries each event first, which takes some milliseconds, and up to a tenth of a second where the processor has too few
    /// counters. An event that cannot be counted here is no error: [`sources`](Self::sources) says why.
    ///
    /// Two different sets can be counted at the same time. While no task has an event attached, a worker's counters cost only
    /// what perf events cost the kernel at its switches.
    ///
    /// # Errors
    /// Returns [`Error::TooManyEvents`] if there are more events than a set can count, [`Error::CountersBusy`] if two other
    /// sets are being counted, and [`Error::Attach`] if the system has no place for the PMU.
    pub fn open(events: &[CounterEvent]) -> Result<Self, Error> {
        let (handle, set) = CountersPmu::claim(events)?;
        let order = set.order_of(events);
        Ok(Self { handle, set, order })
    }

    /// The handle through which events are attached to tasks.
    #[must_use]
    pub fn handle(&self) -> PmuHandle<CountersPmu> {
        self.handle
    }

    /// The source of each event's counts, in the order of the request, each event once.
    #[must_use]
    pub fn sources(&self) -> Vec<CounterSource> {
        self.columns().map(Column::describe).collect()
    }

    /// The counts of each event, in the order of [`sources`](Self::sources).
    #[must_use]
    pub fn values(&self, counts: &CounterCounts) -> Vec<Counter> {
        self.columns().map(|column| column.value(counts)).collect()
    }

    fn columns(&self) -> impl Iterator<Item = &Column> {
        self.order.iter().map(|place| &self.set.columns[*place])
    }

    /// What could not be counted so far.
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
        // The count lacks what ran on workers without counters.
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
        let unit = self.event.is_clock().then_some(Cow::Borrowed("ns"));
        let modes = self.modes().into();
        CounterSource { event: self.event.name().to_owned(), unit, modes, source, refused }
    }
}
