//! A session, which measures from its start to its stop.
//!
//! A session takes a reading of everything when it starts, and another one for each report. The report is the difference of the
//! two. Any number of sessions may run at once.

use super::longest::LongestPolls;
use super::measured::{Attached, Measured, Selection, Sources};
use super::memory::MemorySource;
#[cfg(feature = "agent")]
use super::reading::TaskUsage;
use super::reading::{Most, Reading};
use super::rows::Running;
use crate::error::Error;
use crate::pmus::counters::{CounterEvent, Counters, CountersPmu};
use crate::pmus::cpu_time::ledger::AccountId;
use crate::pmus::cpu_time::{CpuTime, longest};
use crate::pmus::life::Life;
use crate::pmus::memory::Memory;
use crate::pmus::memory::epoch::Counting;
use crate::pmus::stint::Stints;
use crate::pmus::wake::WakeLatency;
use crate::pmus::waker::Wanted;
use crate::report::Report;
use crate::tasks::accounts::Watch;
use pertask_core::{Event, Inherit, PmuHandle, System, Task};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Measures which tasks spend the CPU, from [`start`](Self::start) until it is stopped or dropped.
///
/// ```
/// use pertask::{Session, TaskExt};
///
/// let session = Session::start()?;
/// futures::executor::block_on(async { std::hint::black_box((0..100_000).sum::<u64>()) }.task("sum"));
/// let report = session.stop();
///
/// assert_eq!(report.sites[0].site.name.as_deref(), Some("sum"));
/// assert!(report.tasks_cpu_ns > 0);
/// println!("{report}");
/// # Ok::<(), pertask::Error>(())
/// ```
#[derive(Debug)]
pub struct Session(Arc<Attachment>);

/// What a session has attached, and where it began.
#[derive(Debug)]
struct Attachment {
    // Dropped first: threads count only while events are attached.
    _counting: Option<Counting>,
    // Dropped before `measured`, so that events are detached while their counters are still open.
    events: Events,
    measured: Measured,
    most: Most,
    base: Reading,
    account: AccountId,
    /// Without those of the latest epoch.
    longest: Mutex<LongestPolls>,
}

/// The sessions that run. Who begins one, or reads one, holds the lock: so no epoch ends during a reading.
static RUNNING: Mutex<Vec<Weak<Attachment>>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<Weak<Attachment>>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// The number of live tasks that a report lists, those with the most CPU time.
    ///
    /// The default is 20.
    pub max_tasks: usize,
    /// The number of values that a report lists for each key of labels, those with the most CPU time.
    ///
    /// The default is 100.
    pub max_label_values: usize,
    /// The perf events to count for each task, in addition to its CPU time.
    ///
    /// By default there are none. An event that cannot be counted on this machine is no error: the report says why.
    pub counters: Vec<CounterEvent>,
    /// Whether to measure how long tasks wait between being woken and being polled.
    ///
    /// By default this is off. If it is on, tracked futures are polled with a waker around the executor's. Tasks that only
    /// tokio's hooks track are not measured.
    pub wake_latency: bool,
    /// Whether to measure how long tasks are in each of their states: on the CPU, blocked, ready and waiting.
    ///
    /// By default this is off. If it is on, tracked futures are polled with a waker around the executor's. Of tasks that only
    /// tokio's hooks track, it is not known when they were woken. See [`LifeReport`](crate::LifeReport).
    pub life: bool,
    /// Whether to count the bytes that tasks allocate and free.
    ///
    /// By default this is off. It takes the global allocator [`Alloc`](crate::Alloc): without it, the report says so. Memory is
    /// freed by the task in which it is freed, whichever task allocated it. So these figures do not say how much a task holds.
    pub memory: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            max_tasks: 20,
            max_label_values: 100,
            counters: Vec::new(),
            wake_latency: false,
            life: false,
            memory: false,
        }
    }
}

/// A session's events. A session on all tasks reads the counts from the tasks' data, and holds its events only to detach them.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each session")]
enum Events {
    Global {
        _cpu_time: Event<CpuTime>,
        _counters: Option<Event<CountersPmu>>,
        _wakes: Option<Event<WakeLatency>>,
        _life: Option<Event<Life>>,
        _memory: Option<Event<Memory>>,
    },
    Tasks(Vec<Attached>),
}

impl SessionOptions {
    /// Attaches to all tasks of the process, including tasks that are made later.
    ///
    /// The first session of a process keeps its caller for some tens of milliseconds, while a thread finds the best clock by
    /// trying. Counting events takes longer, because each is tried first: see [`Counters::open`]. Async code should call this
    /// on a thread of its own, or with `spawn_blocking`, because a runtime's worker runs no other task meanwhile.
    ///
    /// # Errors
    /// Returns [`Error::Attach`] if the core refuses the attach, and [`Error::TooManyEvents`] or [`Error::CountersBusy`] if the
    /// events cannot be counted. After an error, nothing stays attached.
    pub fn start(self) -> Result<Session, Error> {
        let measured = self.measured()?;
        let measured = Measured { labels: Some(Watch::begin()), ..measured };
        let attaching = measured.wanted.as_ref().map(Wanted::attach);
        let cpu_time = measured.cpu_time.attach_global()?;
        let counters = measured.counters.as_ref().map(|counters| counters.handle().attach_global());
        let wakes = measured.wakes.map(PmuHandle::attach_global);
        let life = measured.life.map(PmuHandle::attach_global);
        let memory = measured.memory.handle().map(PmuHandle::attach_global);
        let events = Events::Global {
            _cpu_time: cpu_time,
            _counters: counters.transpose()?,
            _wakes: wakes.transpose()?,
            _life: life.transpose()?,
            _memory: memory.transpose()?,
        };
        drop(attaching);
        Ok(Session::begin(measured, events, self.most()))
    }

    /// Attaches to some tasks, and to the tasks that they will spawn if `inherit` says so.
    ///
    /// The session leaves out tasks that have ended. Like [`start`](Self::start), this may keep its caller for a while.
    ///
    /// # Errors
    /// Returns the errors of [`start`](Self::start).
    pub fn start_on<'a>(
        self,
        tasks: impl IntoIterator<Item = &'a Arc<Task>>,
        inherit: Inherit,
    ) -> Result<Session, Error> {
        let measured = self.measured()?;
        let attaching = measured.wanted.as_ref().map(Wanted::attach);
        let mut attached = Vec::new();
        for task in tasks {
            match measured.attach(task, inherit) {
                Ok(events) => attached.push(events),
                Err(pertask_core::Error::TaskExited) => {}
                Err(refused) => return Err(refused.into()),
            }
        }
        drop(attaching);
        Ok(Session::begin(measured, Events::Tasks(attached), self.most()))
    }

    fn measured(&self) -> Result<Measured, Error> {
        let counters = !self.counters.is_empty();
        Ok(Measured {
            cpu_time: CpuTime::handle()?,
            counters: counters.then(|| Counters::open(&self.counters)).transpose()?,
            wakes: self.wake_latency.then(WakeLatency::handle).transpose()?,
            life: self.life.then(Life::handle).transpose()?,
            wanted: (self.wake_latency || self.life).then(Wanted::begin),
            memory: MemorySource::open(self.memory)?,
            labels: None,
        })
    }

    fn most(&self) -> Most {
        Most { tasks: self.max_tasks, label_values: self.max_label_values }
    }
}

impl Session {
    /// Attaches to all tasks of the process, with [`SessionOptions::default`].
    ///
    /// The first session of a process keeps its caller for some tens of milliseconds: see [`SessionOptions::start`].
    ///
    /// # Errors
    /// Returns [`Error::Attach`] if the core refuses the attach.
    pub fn start() -> Result<Self, Error> {
        SessionOptions::default().start()
    }

    /// Attaches to some tasks, with [`SessionOptions::default`].
    ///
    /// # Errors
    /// Returns [`Error::Attach`] if the core refuses an attach.
    pub fn start_on<'a>(
        tasks: impl IntoIterator<Item = &'a Arc<Task>>,
        inherit: Inherit,
    ) -> Result<Self, Error> {
        SessionOptions::default().start_on(tasks, inherit)
    }

    /// Makes a report of the session so far.
    ///
    /// The session goes on.
    #[must_use]
    pub fn snapshot(&self) -> Report {
        let Attachment { base, measured, most, .. } = &*self.0;
        self.read().since(base, measured, *most)
    }

    /// Makes the last report, and ends the session.
    #[must_use]
    pub fn stop(self) -> Report {
        self.snapshot()
    }

    /// What each live task has used so far.
    #[cfg(feature = "agent")]
    pub(crate) fn usage(&self) -> TaskUsage {
        self.read().usage_since(&self.0.base)
    }

    /// The CPU time by the clock so far.
    #[cfg(feature = "sampler")]
    pub(crate) fn clocked(&self) -> super::clocked::Clocked {
        self.read().clocked_since(&self.0.base)
    }

    fn read(&self) -> Reading {
        let _running = running();
        let longest = self.0.longest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Reading::next(self.0.sources(), &self.0.account, longest)
    }

    fn begin(measured: Measured, events: Events, most: Most) -> Self {
        let mut running = running();
        longest::begin_epoch();
        for session in running.iter().filter_map(Weak::upgrade) {
            session.keep_longest();
        }
        adopt_running(measured.cpu_time);
        if let Some(counters) = &measured.counters {
            adopt_running(counters.handle());
        }
        if let Some(life) = measured.life {
            Life::adopt(life);
        }
        let memory = measured.memory.handle();
        let counting = memory.map(|_| Counting::begin());
        if let Some(memory) = memory {
            adopt_running(memory);
        }
        let (base, account) = Reading::first(events.sources(&measured));
        let longest = Mutex::new(LongestPolls::none());
        let session =
            Attachment { _counting: counting, events, measured, most, base, account, longest };
        let session = Arc::new(session);
        running.push(Arc::downgrade(&session));
        Self(session)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Nobody else holds the attachment after this, so it ends here.
        running().retain(|session| !std::ptr::eq(session.as_ptr(), Arc::as_ptr(&self.0)));
    }
}

impl Attachment {
    fn sources(&self) -> Sources<'_> {
        self.events.sources(&self.measured)
    }

    /// Keeps the longest polls of the epoch that has just ended.
    fn keep_longest(&self) {
        let rows = self.sources().cpu_time_rows(&Running::everywhere());
        self.longest.lock().unwrap_or_else(PoisonError::into_inner).add(&rows);
    }
}

/// Starts to count for the tasks that run at this moment.
pub(crate) fn adopt_running<P: Stints>(handle: PmuHandle<P>) {
    // Only one thread adopts stints at a time: two would overwrite each other's starts.
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
