//! A session: from when to when is measured, and what of it goes into a report.
//!
//! A session takes a reading of everything when it starts and another when a report is wanted; the report is the
//! difference. Any number of sessions may run at once.

use super::measured::{Attached, Measured, Selection, Sources};
use super::reading::Reading;
use crate::error::Error;
use crate::pmus::counters::{CounterEvent, Counters, CountersPmu};
use crate::pmus::cpu_time::CpuTime;
use crate::pmus::cpu_time::ledger::AccountId;
use crate::pmus::stint::Stints;
use crate::pmus::wake::{WakeLatency, Wakes};
use crate::report::Report;
use pertask_core::{Event, Inherit, PmuHandle, System, Task};
use std::sync::{Arc, Mutex, PoisonError};

/// Measures which tasks spend the CPU, from [`start`](Self::start) until it is stopped or dropped.
///
/// ```
/// use pertask::{Session, TaskExt};
///
/// let session = Session::start()?;
/// futures::executor::block_on(async { std::hint::black_box((0..100_000).sum::<u64>()) }.task("sum"));
/// let report = session.stop();
///
/// assert_eq!(report.sites[0].name.as_deref(), Some("sum"));
/// assert!(report.tasks_cpu_ns > 0);
/// println!("{report}");
/// # Ok::<(), pertask::Error>(())
/// ```
#[derive(Debug)]
pub struct Session {
    // Before `measured`: events are detached while what they count is still counted.
    events: Events,
    measured: Measured,
    max_tasks: usize,
    base: Reading,
    account: AccountId,
}

/// What a session measures and shows.
///
/// ```
/// use pertask::{SessionOptions, TaskExt};
///
/// let counters = vec!["page-faults".parse()?, "context-switches".parse()?];
/// let session = SessionOptions { counters, ..SessionOptions::default() }.start()?;
/// futures::executor::block_on(async { std::hint::black_box(vec![1_u8; 1 << 20]); }.task("touch"));
/// let report = session.stop();
///
/// assert_eq!(report.sites[0].counters[0].event, "page-faults");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// How many live tasks a report lists, those with the most CPU time. Default: 20.
    pub max_tasks: usize,
    /// Perf events to count for each task, beside its CPU time. Default: none. One that cannot be counted on this machine
    /// is no error: its column says why.
    pub counters: Vec<CounterEvent>,
    /// Whether to measure how long tasks wait between being woken and being polled. Default: no. Futures are then polled
    /// with a waker around the executor's; tasks that are known by tokio's hooks alone are not measured.
    pub wake_latency: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { max_tasks: 20, counters: Vec::new(), wake_latency: false }
    }
}

/// A session's events. For all tasks, counts are read from all tasks' data: the events are held for what their drop does.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each session")]
enum Events {
    Global {
        _cpu_time: Event<CpuTime>,
        _counters: Option<Event<CountersPmu>>,
        _wakes: Option<Event<WakeLatency>>,
    },
    Tasks(Vec<Attached>),
}

impl SessionOptions {
    /// Attaches to every task of the process, those to come included.
    ///
    /// The first session of a process also finds the best clock by trying, on a thread of its own; that takes some tens of
    /// milliseconds. Each event is tried, too: see [`Counters::open`].
    ///
    /// # Errors
    /// When the attach is refused, or there is no room for more counters: see [`Error`]. Nothing is left behind.
    pub fn start(self) -> Result<Session, Error> {
        let measured = self.measured()?;
        let cpu_time = measured.cpu_time.attach_global()?;
        let counters = measured.counters.as_ref().map(|counters| counters.handle().attach_global());
        let wakes = measured.wakes.as_ref().map(|wakes| wakes.handle.attach_global());
        let events = Events::Global {
            _cpu_time: cpu_time,
            _counters: counters.transpose()?,
            _wakes: wakes.transpose()?,
        };
        Ok(Session::begin(measured, events, self.max_tasks))
    }

    /// Attaches to some tasks, and to what they will spawn if `inherit` says so.
    ///
    /// A task that has ended is left out; its event would count nothing.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_on<'a>(
        self,
        tasks: impl IntoIterator<Item = &'a Arc<Task>>,
        inherit: Inherit,
    ) -> Result<Session, Error> {
        let measured = self.measured()?;
        let mut attached = Vec::new();
        for task in tasks {
            match measured.attach(task, inherit) {
                Ok(events) => attached.push(events),
                Err(pertask_core::Error::TaskExited) => {}
                Err(refused) => return Err(refused.into()),
            }
        }
        Ok(Session::begin(measured, Events::Tasks(attached), self.max_tasks))
    }

    fn measured(&self) -> Result<Measured, Error> {
        let counters = !self.counters.is_empty();
        Ok(Measured {
            cpu_time: CpuTime::handle()?,
            counters: counters.then(|| Counters::open(&self.counters)).transpose()?,
            wakes: self.wake_latency.then(Wakes::begin).transpose()?,
        })
    }
}

impl Session {
    /// Attaches to every task of the process, with [`SessionOptions::default`].
    ///
    /// # Errors
    /// As [`SessionOptions::start`].
    pub fn start() -> Result<Self, Error> {
        SessionOptions::default().start()
    }

    /// Attaches to some tasks, with [`SessionOptions::default`].
    ///
    /// # Errors
    /// As [`SessionOptions::start_on`].
    pub fn start_on<'a>(
        tasks: impl IntoIterator<Item = &'a Arc<Task>>,
        inherit: Inherit,
    ) -> Result<Self, Error> {
        SessionOptions::default().start_on(tasks, inherit)
    }

    /// What has been seen so far. The session goes on.
    #[must_use]
    pub fn snapshot(&self) -> Report {
        let reading = Reading::next(self.events.sources(&self.measured), &self.account);
        reading.since(&self.base, &self.measured, self.max_tasks)
    }

    /// What has been seen, and the end of the session.
    #[must_use]
    pub fn stop(self) -> Report {
        self.snapshot()
    }

    /// CPU time by the clock so far.
    #[cfg(feature = "sampler")]
    pub(crate) fn clocked(&self) -> super::clocked::Clocked {
        let reading = Reading::next(self.events.sources(&self.measured), &self.account);
        reading.clocked_since(&self.base)
    }

    fn begin(measured: Measured, events: Events, max_tasks: usize) -> Self {
        adopt_running(measured.cpu_time);
        if let Some(counters) = &measured.counters {
            adopt_running(counters.handle());
        }
        let (base, account) = Reading::first(events.sources(&measured));
        Self { events, measured, max_tasks, base, account }
    }
}

/// Starts counting for the tasks that run at this moment.
fn adopt_running<P: Stints>(handle: PmuHandle<P>) {
    // A stint is adopted by one: two would take each other's start away.
    static ADOPTING: Mutex<()> = Mutex::new(());
    let _adopting = ADOPTING.lock().unwrap_or_else(PoisonError::into_inner);
    System::global().for_each_cpu(|cpu| {
        if let Some(data) = handle.cpu_data(cpu) {
            handle.pmu().adopt_running(cpu, data);
        }
    });
}

impl Events {
    fn sources<'a>(&'a self, measured: &'a Measured) -> Sources<'a> {
        let of = match self {
            Self::Global { .. } => Selection::All,
            Self::Tasks(tasks) => Selection::Tasks(tasks),
        };
        Sources { measured, of }
    }
}
