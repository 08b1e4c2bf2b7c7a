//! Metrics: what a session has counted so far, as an answer to a scrape of Prometheus.
//!
//! A [`Metrics`] has a session of its own on all tasks, so several of them do not disturb each other. Each answer is a snapshot
//! of that session, taken by the thread that asks. Tasks and their workers are not involved.
//!
//! A report may have a little less than the report before, because its figures are read one after the other. A counter that
//! falls reads as a restart of the program. So a `Metrics` remembers what its earlier answers have shown, and never shows less. It
//! also remembers which sites have series, so that the number of series is bounded and no site moves from one series to another.
//!
//! `docs/METRICS.md` describes each metric.

mod blocked;
mod exposition;
mod families;
mod figures;
mod format;
mod life;
mod shown;
mod sites;
mod threads;
mod waits;

use self::blocked::Watching;
use self::figures::Figures;
use self::format::Format;
use crate::error::Error;
use crate::os::clock;
use crate::sessions::{Session, SessionOptions};
use std::sync::{Mutex, PoisonError};
#[cfg(feature = "sampler")]
use std::time::Duration;

/// Counts for all tasks from its [`start`](Self::start) on, and answers scrapes.
///
/// ```
/// use pertask::TaskExt;
/// use pertask::metrics::Metrics;
///
/// let metrics = Metrics::start()?;
/// futures::executor::block_on(async { std::hint::black_box((0..100_000).sum::<u64>()) }.task("sum"));
/// let answer = metrics.answer(None);
///
/// assert_eq!(answer.content_type, "text/plain; version=0.0.4; charset=utf-8");
/// assert!(answer.body.contains("pertask_task_polls_total{name=\"sum\",site=\""));
/// # Ok::<(), pertask::Error>(())
/// ```
#[derive(Debug)]
pub struct Metrics {
    session: Session,
    watching: Option<Watching>,
    figures: Mutex<Figures>,
}

/// What [`Metrics`] measure, and how many series they have at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsOptions {
    /// Whether to measure how long tasks wait between being woken and being polled.
    ///
    /// By default this is off. See [`SessionOptions::wake_latency`] for what it does to tasks.
    pub wake_latency: bool,
    /// Whether to measure how long tasks are in each of their states: on a CPU, blocked in their polls, ready, waiting.
    ///
    /// By default this is off. See [`SessionOptions::life`].
    pub life: bool,
    /// Whether to count polls that block their worker, and how long those last (feature `sampler`).
    ///
    /// By default they are not counted. If they are, a thread looks at the workers twice in that time: see [`watch`](crate::watch).
    #[cfg(feature = "sampler")]
    pub blocked: Option<Duration>,
    /// The number of sites that have series of their own. A site is a name and a place in the source.
    ///
    /// The sites that are seen first have them, and keep them. All later sites share the series `(other)`. The default is 1,000.
    /// A site has 6 series, 14 more if waits are measured, 7 more if lives are measured,
    /// and 2 more if blocking polls are counted.
    pub max_sites: usize,
}

/// An answer to a scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsAnswer {
    /// The value of the header `Content-Type`.
    pub content_type: &'static str,
    /// The metrics, in the format that `content_type` names.
    pub body: String,
}

impl Default for MetricsOptions {
    fn default() -> Self {
        Self {
            wake_latency: false,
            life: false,
            #[cfg(feature = "sampler")]
            blocked: None,
            max_sites: 1_000,
        }
    }
}

impl MetricsOptions {
    /// Attaches to all tasks of the process, including tasks that are made later.
    ///
    /// Like [`SessionOptions::start`], the first call of a process keeps its caller for some tens of milliseconds.
    ///
    /// # Errors
    /// Returns [`Error::Attach`] if the core refuses the attach, and [`Error::CannotSample`] if blocking polls are to be counted and there
    /// is no thread for that.
    pub fn start(self) -> Result<Metrics, Error> {
        // Metrics show no single tasks, and no values of labels.
        let session = SessionOptions {
            max_tasks: 0,
            max_label_values: 0,
            counters: Vec::new(),
            wake_latency: self.wake_latency,
            life: self.life,
            memory: false,
        };
        #[cfg(feature = "sampler")]
        let watching = Watching::begin(&self)?;
        #[cfg(not(feature = "sampler"))]
        let watching = None;
        let mut figures = Figures::new(self.max_sites, self.wake_latency);
        figures.measures_lives = self.life;
        figures.counts_blocked = watching.is_some();
        Ok(Metrics { session: session.start()?, watching, figures: Mutex::new(figures) })
    }
}

impl Metrics {
    /// Attaches to all tasks of the process, with [`MetricsOptions::default`].
    ///
    /// # Errors
    /// Returns the errors of [`MetricsOptions::start`].
    pub fn start() -> Result<Self, Error> {
        MetricsOptions::default().start()
    }

    /// Answers a scrape. `accept` is the request's header `Accept`, or `None` if it has none.
    ///
    /// The answer is in OpenMetrics 1.0.0 if the header prefers that to Prometheus's text format 0.0.4, else in the latter.
    ///
    /// This reads the counts of all live tasks, which takes some milliseconds where there are ten thousand. Async code should
    /// call it with `spawn_blocking`, or on a thread of its own. Callers on several threads take turns.
    #[must_use]
    pub fn answer(&self, accept: Option<&str>) -> MetricsAnswer {
        let format = Format::preferred(accept);
        // The lock is held during the snapshot, so that the snapshots of two callers are shown in the order they were taken in.
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let began_ns = clock::thread_cpu_ns();
        let blocked = self.watching.as_ref().map(Watching::by_site).unwrap_or_default();
        figures.update(&self.session.snapshot(), &blocked);
        let body = families::page(format, &figures);
        figures.add_scrape(clock::thread_cpu_ns().saturating_sub(began_ns));
        MetricsAnswer { content_type: format.content_type(), body }
    }
}
