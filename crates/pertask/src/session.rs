//! A session: from when to when is measured, and what of it goes into a report.
//!
//! A session takes a reading of everything when it starts and another when a report is wanted; the report is the
//! difference. Any number of sessions may run at once.

use crate::cpu_time::CpuTime;
use crate::error::Error;
use crate::ledger::AccountId;
use crate::reading::{Reading, Selection};
use crate::report::Report;
use pertask_core::{Event, Inherit, PmuHandle, System, Task};
use std::sync::Arc;

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
    events: Events,
    options: SessionOptions,
    handle: PmuHandle<CpuTime>,
    base: Reading,
    account: AccountId,
}

/// What a session measures and shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// How many live tasks a report lists, those with the most CPU time. Default: 20.
    pub max_tasks: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { max_tasks: 20 }
    }
}

#[derive(Debug)]
enum Events {
    /// Counts are read from all tasks; the event is held for what its drop does.
    Global {
        _attached: Event<CpuTime>,
    },
    Tasks(Vec<(Arc<Task>, Event<CpuTime>)>),
}

impl Session {
    /// Attaches to every task of the process, those to come included.
    ///
    /// The first session of a process also finds the best clock by trying, on a thread of its own; that takes some tens of
    /// milliseconds.
    ///
    /// # Errors
    /// When the attach is refused: see [`Error`]. Nothing is left behind.
    pub fn start() -> Result<Self, Error> {
        Self::start_with(SessionOptions::default())
    }

    /// The same, with options.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(options: SessionOptions) -> Result<Self, Error> {
        let handle = CpuTime::handle()?;
        let events = Events::Global { _attached: handle.attach_global()? };
        Ok(Self::begin(handle, events, options))
    }

    /// Attaches to some tasks, and to what they will spawn if `inherit` says so.
    ///
    /// A task that has ended is left out; its event would count nothing.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_on<'a>(
        tasks: impl IntoIterator<Item = &'a Arc<Task>>,
        inherit: Inherit,
    ) -> Result<Self, Error> {
        let handle = CpuTime::handle()?;
        let mut events = Vec::new();
        for task in tasks {
            match handle.attach_task(task, inherit) {
                Ok(event) => events.push((Arc::clone(task), event)),
                Err(pertask_core::Error::TaskExited) => {}
                Err(refused) => return Err(refused.into()),
            }
        }
        Ok(Self::begin(handle, Events::Tasks(events), SessionOptions::default()))
    }

    /// What has been seen so far. The session goes on.
    #[must_use]
    pub fn snapshot(&self) -> Report {
        let reading = self
            .events
            .with_selection(|selection| Reading::next(self.handle, selection, &self.account));
        reading.since(&self.base, self.options.max_tasks)
    }

    /// What has been seen, and the end of the session.
    #[must_use]
    pub fn stop(self) -> Report {
        self.snapshot()
    }

    fn begin(handle: PmuHandle<CpuTime>, events: Events, options: SessionOptions) -> Self {
        System::global().for_each_cpu(|cpu| {
            if let Some(data) = handle.cpu_data(cpu) {
                data.adopt_running(cpu, handle.pmu().clock());
            }
        });
        let (base, account) = events.with_selection(|selection| Reading::first(handle, selection));
        Self { events, options, handle, base, account }
    }
}

impl Events {
    fn with_selection<R>(&self, read: impl FnOnce(Selection<'_>) -> R) -> R {
        match self {
            Self::Global { .. } => read(Selection::All),
            Self::Tasks(events) => {
                let events: Vec<_> = events.iter().map(|(task, event)| (&**task, event)).collect();
                read(Selection::Tasks(&events))
            }
        }
    }
}
