//! The clock of this process, found once by trying.
//!
//! Kernels differ and sandboxes refuse, so versions say little. Each detector has to show on this kernel that it keeps still
//! while a thread computes, and that it trips when the thread sleeps and when it is preempted.

use super::counter::{Calibration, Counter};
use super::{Reading, arch, posix};
use crate::os::perf::Page;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A clock: a detector and a counter.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(super) detector: Detector,
    /// The counter, or `None` if every reading is a system call.
    pub(super) counter: Option<Counter>,
    /// The better clocks, each with the reason why it is not used.
    refused: Vec<String>,
}

/// How a thread learns that it was off its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detector {
    /// A descriptor in the thread's rseq area, at this offset from its thread pointer.
    Rseq { offset: isize },
    /// The sequence count of a perf event's page.
    PerfPage,
    /// No detector: the thread does not learn it.
    None,
}

/// The environment variable that names a clock: `rseq`, `perf-page` or `thread`.
pub(super) const VARIABLE: &str = "PERTASK_CLOCK";

/// Tries a detector. Returns an error with the reason if it cannot be used.
type Try = fn() -> Result<Detector, String>;

/// The detectors, best first.
const DETECTORS: [(&str, Try); 2] = [("rseq", rseq), ("perf-page", perf_page)];

impl Choice {
    /// The clock of this process. The first call takes some tens of milliseconds, because it tries each detector.
    pub(crate) fn of_process() -> &'static Self {
        static CHOICE: OnceLock<Choice> = OnceLock::new();
        CHOICE.get_or_init(|| Self::find(std::env::var(VARIABLE).ok().as_deref()))
    }

    /// Finds the best clock, or the one with the wanted name.
    pub(super) fn find(wanted: Option<&str>) -> Self {
        let find = || match wanted {
            None | Some("rseq") => Self::first_of(&DETECTORS),
            Some("perf-page") => Self::first_of(&DETECTORS[1..]),
            Some("thread") => Self::thread(vec![format!("the others, because {VARIABLE} is set")]),
            Some(other) => {
                let mut choice = Self::first_of(&DETECTORS);
                choice.refused.push(format!(
                    "{VARIABLE}={other} names no clock: the names are rseq, perf-page, thread"
                ));
                choice
            }
        };
        on_a_thread_of_its_own(find).unwrap_or_else(|| Self::thread(vec![NO_THREAD.to_owned()]))
    }

    /// All clocks by the names that [`VARIABLE`] takes, best first. A clock that cannot be used has an error with the reason.
    pub(crate) fn survey() -> Vec<(&'static str, Result<(), String>)> {
        let tried = on_a_thread_of_its_own(|| {
            let counter = Calibration::begin().and_then(Calibration::end);
            let try_one = |detector: Try| counter.map_err(str::to_owned).and_then(|_| detector());
            DETECTORS.map(|(name, detector)| (name, try_one(detector).map(drop)))
        });
        let none = || DETECTORS.map(|(name, _)| (name, Err(NO_THREAD.to_owned())));
        let mut clocks = tried.unwrap_or_else(none).to_vec();
        clocks.push(("thread", Ok(())));
        clocks
    }

    /// Wall time, in the same terms as the clock's readings.
    pub(crate) fn wall_ns(&self) -> u64 {
        self.counter.map_or_else(posix::wall_ns, |counter| counter.ns(arch::ticks()))
    }

    /// CPU time and wall time of another thread, or `None` if the thread has ended.
    pub(crate) fn read_thread(&self, thread: u32) -> Option<Reading> {
        Some(Reading { cpu_ns: posix::cpu_ns_of_thread(thread)?, wall_ns: self.wall_ns() })
    }

    fn thread(refused: Vec<String>) -> Self {
        Self { detector: Detector::None, counter: None, refused }
    }

    fn first_of(detectors: &[(&str, Try)]) -> Self {
        // The detectors are tried while the calibration goes on.
        let calibration = match Calibration::begin() {
            Ok(calibration) => calibration,
            Err(reason) => return Self::thread(vec![reason.to_owned()]),
        };
        let mut refused = Vec::new();
        let works = |(name, detector): &(&str, Try)| {
            let refuse = |reason| refused.push(format!("{name}: {reason}"));
            detector().map_err(refuse).ok()
        };
        let detector = detectors.iter().find_map(works);
        match (detector, calibration.end()) {
            (Some(detector), Ok(counter)) => Self { detector, counter: Some(counter), refused },
            (_, Err(reason)) => Self::thread(vec![reason.to_owned()]),
            (None, Ok(_)) => Self::thread(refused),
        }
    }
}

/// Displays the clock for reports, with the reasons why no better clock is used.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detector = match self.detector {
            Detector::Rseq { .. } => "rseq",
            Detector::PerfPage => "perf event page",
            Detector::None => "thread CPU clock, a system call at each switch",
        };
        match self.counter {
            Some(counter) => {
                write!(
                    f,
                    "{detector} + CPU counter at {:.1} MHz + thread CPU clock",
                    counter.mhz()
                )?;
            }
            None => f.write_str(detector)?,
        }
        if !self.refused.is_empty() {
            write!(f, " (refused: {})", self.refused.join("; "))?;
        }
        Ok(())
    }
}

const NO_THREAD: &str = "the probe could not start a thread to try it";

/// Runs `tries` on a thread of its own, so that the caller's affinity and rseq area stay as they are. Returns `None` if no
/// thread could be started.
fn on_a_thread_of_its_own<R: Send>(tries: impl FnOnce() -> R + Send) -> Option<R> {
    let thread = std::thread::Builder::new().name("pertask-probe".to_owned());
    std::thread::scope(|scope| thread.spawn_scoped(scope, tries).ok()?.join().ok())
}

fn rseq() -> Result<Detector, String> {
    let offset = arch::rseq_offset()?;
    let arm = || arch::rseq_arm(offset);
    let kept = || arch::rseq_is_armed(offset);
    let verdict = behaves(arm, kept);
    arch::rseq_disarm(offset);
    verdict?;
    Ok(Detector::Rseq { offset })
}

fn perf_page() -> Result<Detector, String> {
    let page = Page::open_dummy().map_err(|refused| refused.to_string())?;
    let at = std::cell::Cell::new(None);
    let arm = || at.set(page.sequence());
    let kept = || at.get().is_some() && page.sequence() == at.get();
    behaves(arm, kept)?;
    Ok(Detector::PerfPage)
}

/// Checks on this kernel that a detector keeps still and trips when it should. Returns an error with the reason if it does not.
fn behaves(arm: impl Fn(), kept: impl Fn() -> bool) -> Result<(), &'static str> {
    let keeps_still = || {
        arm();
        spin(Duration::from_micros(20));
        kept()
    };
    // The thread may really have been preempted in a single try.
    if !(0..50).any(|_| keeps_still()) {
        return Err("it trips although the thread keeps its CPU");
    }
    let misses_a_sleep = || {
        arm();
        std::thread::sleep(Duration::from_micros(100));
        kept()
    };
    if (0..3).any(|_| misses_a_sleep()) {
        return Err("it does not trip when the thread sleeps");
    }
    match misses_a_preemption(&arm, &kept) {
        Some(true) => Err("it does not trip when the thread is preempted"),
        // The thread was not preempted in all that time, so the detector had nothing to miss.
        Some(false) | None => Ok(()),
    }
}

/// Competes with another thread for one CPU. Returns whether the detector missed that, or `None` if no competition came about.
fn misses_a_preemption(arm: &impl Fn(), kept: &impl Fn() -> bool) -> Option<bool> {
    stay_on_this_cpu()?;
    let competing = AtomicBool::new(true);
    std::thread::scope(|scope| {
        // The competitor inherits this thread's affinity.
        let competitor = std::thread::Builder::new().spawn_scoped(scope, || {
            while competing.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let missed = competitor.ok().and_then(|_| missed_while_competing(arm, kept));
        competing.store(false, Ordering::Relaxed);
        missed
    })
}

/// Whether the detector missed all preemptions, or `None` if there were none.
fn missed_while_competing(arm: &impl Fn(), kept: &impl Fn() -> bool) -> Option<bool> {
    // Now and then a preemption falls between the two readings of the count, but outside the detector's window.
    const MISSED: u32 = 2;
    let deadline = Instant::now() + Duration::from_millis(200);
    let mut missed = 0;
    while missed < MISSED && Instant::now() < deadline {
        let before = involuntary_switches();
        arm();
        spin(Duration::from_micros(200));
        let kept = kept();
        if involuntary_switches() == before {
            continue;
        }
        if !kept {
            return Some(false);
        }
        missed += 1;
    }
    (missed > 0).then_some(true)
}

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn involuntary_switches() -> i64 {
    // SAFETY: a `rusage` has only integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `rusage`, into memory of this function's own.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    usage.ru_nivcsw
}

/// Pins the calling thread to the CPU on which it runs.
fn stay_on_this_cpu() -> Option<()> {
    // SAFETY: `sched_getcpu` takes no arguments. The set is zeroed, which is a value; `CPU_SET` gets a CPU within it, and the
    // kernel reads as many bytes of it as this passes.
    unsafe {
        let cpu = usize::try_from(libc::sched_getcpu()).ok()?;
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if cpu >= 8 * size_of::<libc::cpu_set_t>() {
            return None;
        }
        libc::CPU_SET(cpu, &mut set);
        (libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == 0)
            .then_some(())
    }
}
