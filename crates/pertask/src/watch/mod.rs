//! The watch, which catches polls that block their worker, while they do.
//!
//! A poll should be short: while it lasts, its worker runs no other task. A watch sees a poll that lasts longer than a threshold, and
//! tells of which task it is, whether it computes, is blocked in a system call or has no CPU, and where in the code.
//!
//! ```
//! use pertask::watch::{Watch, WatchOptions};
//! use pertask::{BlockedState, TaskExt};
//! use std::time::Duration;
//!
//! let watch = Watch::start(WatchOptions::default())?;
//! let blocks = async { std::thread::sleep(Duration::from_millis(50)) };
//! futures::executor::block_on(blocks.task("GET /report"));
//! let blocked = watch.stop();
//!
//! let row = &blocked.rows[0];
//! assert_eq!(row.site.name.as_deref(), Some("GET /report"));
//! assert!(row.max_ns >= 50_000_000);
//! # Ok::<(), pertask::Error>(())
//! ```
//!
//! [`Watch::start_with`] calls a function for each poll, as for a log. [`Watch::fill`] puts the rows into a session's report.
//!
//! # How it looks
//!
//! While there is a watch, a thread `pertask-watch` looks at all workers twice in the time of the threshold. Polls pay nothing for
//! it but what they pay for a session. A poll that is caught has its stack taken once:
//!
//! - A thread that is blocked in a system call is not disturbed, so no sleep ends with `EINTR`. The kernel tells where the thread is
//!   and where its stack is (`/proc/self/task/TID/syscall`), and the watch reads the stack from outside. It does not know the thread's
//!   other registers. Where the unwind tables want a frame pointer that is not known, the watch finds it by the code of the function,
//!   and by the call that leads there; otherwise the stack ends there.
//! - A thread that runs is interrupted at the kernel's next tick, by a timer on the thread's CPU clock with SIGURG, as the
//!   [sampler](crate::sampler) does it. It writes its stack itself. It is asked for it at half the threshold already, because a tick
//!   may be too late.
//!
//! What cannot be had on a machine is said in [`BlockedReport::remarks`], and the rest works.
//!
//! # What counts
//!
//! A poll is one task's: time in a task that is polled inside another is the inner one's, and the outer one's poll is measured
//! from there on. Closures that run on threads of their own ([`run`](crate::run), [`Job`](crate::Job), `pertask::tokio::spawn_blocking`)
//! may take as long as they like, and are not caught.

mod allowance;
mod calls;
mod caught;
mod kept;
mod kernel;
mod look;
mod names;
mod options;
mod poll;
mod table;
#[cfg(feature = "tracing")]
mod trace;
mod verdict;

pub use options::WatchOptions;
pub use poll::BlockingPoll;
#[cfg(feature = "metrics")]
pub(crate) use table::BlockedSite;
#[cfg(feature = "tracing")]
pub use trace::trace;

use self::kept::{Kept, Tell};
use self::look::Looks;
use crate::error::Error;
use crate::pmus::cpu_time::CpuTime;
use crate::report::{BlockedReport, Report};
use crate::sampler::leave_signals;
use crate::sessions::adopt_running;
use pertask_core::{Event, PmuHandle};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

/// Catches polls that block their worker, from its start until it is stopped or dropped.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// A forked child has no watch.
    process: u32,
}

struct Shared {
    kept: Kept,
    /// Whether the watch is to end.
    ends: Mutex<bool>,
    bell: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Watch {
    /// Starts to watch all workers, those that come later included.
    ///
    /// This keeps its caller for some milliseconds, and the first time for some tens of them, as the first session does. Async code
    /// should call it on a thread of its own, or with `spawn_blocking`.
    ///
    /// # Errors
    /// Returns [`Error::Attach`] if the core refuses the attach, and [`Error::CannotSample`] if there is no thread for the watch.
    pub fn start(options: WatchOptions) -> Result<Self, Error> {
        Self::begin(&options, None)
    }

    /// Starts to watch, and calls a function for each poll that is caught: while it lasts, and again when it has ended. A poll that
    /// ends before its stack is known is told once, when it has ended.
    ///
    /// The watch's thread makes the calls, and does not look meanwhile. A panic of the function ends there, and is counted
    /// ([`BlockedReport::remarks`]).
    ///
    /// ```
    /// use pertask::watch::{Watch, WatchOptions};
    ///
    /// let watch = Watch::start_with(WatchOptions::default(), |poll| eprintln!("{poll}"))?;
    /// # drop(watch);
    /// # Ok::<(), pertask::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`start`](Self::start).
    pub fn start_with(
        options: WatchOptions,
        tell: impl Fn(&BlockingPoll) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        Self::begin(&options, Some(Box::new(tell)))
    }

    fn begin(options: &WatchOptions, tell: Option<Tell>) -> Result<Self, Error> {
        let handle = CpuTime::handle()?;
        let event = handle.attach_global()?;
        adopt_running(handle);
        let kept = Kept::new(options.threshold_ns(), options.most_rows, tell);
        let shared = Arc::new(Shared { kept, ends: Mutex::new(false), bell: Condvar::new() });
        let thread = start_thread(Arc::clone(&shared), options.clone(), handle, event)?;
        Ok(Self { shared, thread: Some(thread), process: std::process::id() })
    }

    /// The polls so far, those under way included.
    ///
    /// The first time it looks up the names of functions, which takes of the order of 100 ms with full debug information. In a forked
    /// child of the process that watches, there are none.
    #[must_use]
    pub fn report(&self) -> BlockedReport {
        if self.is_anothers() {
            return BlockedReport::default();
        }
        self.shared.kept.report()
    }

    /// The polls so far, of which those that have ended are forgotten: a program that calls this again and again finds each of them once.
    /// One that goes on now is in the report with the time so far, and counts again, as a whole, in the next.
    ///
    /// Otherwise as [`report`](Self::report).
    #[must_use]
    pub fn take(&self) -> BlockedReport {
        if self.is_anothers() {
            return BlockedReport::default();
        }
        self.shared.kept.take_report()
    }

    /// All polls so far, by site, without names of functions.
    #[cfg(feature = "metrics")]
    pub(crate) fn by_site(&self) -> Vec<BlockedSite> {
        if self.is_anothers() { Vec::new() } else { self.shared.kept.by_site() }
    }

    /// Puts the polls so far into a session's report: [`Report::blocked`].
    ///
    /// ```
    /// use pertask::{Session, watch::{Watch, WatchOptions}};
    ///
    /// let (watch, session) = (Watch::start(WatchOptions::default())?, Session::start()?);
    /// let mut report = session.stop();
    /// watch.fill(&mut report);
    /// assert_eq!(report.blocked.unwrap().threshold_ns, 10_000_000);
    /// # Ok::<(), pertask::Error>(())
    /// ```
    pub fn fill(&self, report: &mut Report) {
        report.blocked = Some(self.report());
    }

    /// Stops watching, and returns the polls.
    #[must_use]
    pub fn stop(mut self) -> BlockedReport {
        self.end();
        self.report()
    }

    fn is_anothers(&self) -> bool {
        self.process != std::process::id()
    }

    /// Ends the thread. The function that is told of polls may call this, on that very thread.
    fn end(&mut self) {
        let Some(thread) = self.thread.take().filter(|_| !self.is_anothers()) else { return };
        *self.shared.ends.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.bell.notify_all();
        if thread.thread().id() != std::thread::current().id() {
            // It ends without a panic.
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts the watch's thread, and waits until it is ready.
fn start_thread(
    shared: Arc<Shared>,
    options: WatchOptions,
    handle: PmuHandle<CpuTime>,
    event: Event<CpuTime>,
) -> Result<JoinHandle<()>, Error> {
    let (tell, told) = mpsc::channel();
    let watch = move || {
        leave_signals();
        let looks = Looks::new(&options, handle);
        looks.prepare(&shared.kept);
        // Whoever starts the watch waits for this.
        let _ = tell.send(());
        shared.run(looks);
        // The polls of tasks are measured as long as the watch looks.
        drop(event);
    };
    let thread = std::thread::Builder::new().name("pertask-watch".to_owned()).spawn(watch);
    let refused = |why: std::io::Error| Error::CannotSample {
        refused: vec![format!("there is no thread for the watch: {why}")],
    };
    let thread = thread.map_err(refused)?;
    // It ends early only with a panic, and then there is nothing to wait for.
    let _ = told.recv();
    Ok(thread)
}

impl Shared {
    /// Looks until the watch ends.
    fn run(&self, mut looks: Looks) {
        let ends = || self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let pause = looks.look(&self.kept);
            let waited = self.bell.wait_timeout_while(ends(), pause, |ends| !*ends);
            if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                break;
            }
        }
        // Polls that have ended since the last look.
        looks.look(&self.kept);
        looks.end(&self.kept);
    }
}
