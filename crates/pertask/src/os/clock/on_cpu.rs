//! A thread's CPU time at the price of reading the processor's counter.
//!
//! A thread that keeps its CPU uses CPU time as the counter ticks. So one reading of the thread's CPU clock is an *anchor*,
//! from which time is told by the counter alone, until a detector says that the thread was off its CPU; then the next
//! reading is a new anchor. That is one system call for each switch *of the kernel's*, not for each switch of tasks.
//!
//! The order matters: the counter first, then the detector. If the thread loses its CPU between the two, the reading is
//! thrown away and the thread clock asked. Were it the other way round, the time off the CPU could be in the counter.
//!
//! What the detectors do not see is time that a hypervisor takes from a whole virtual CPU. So an anchor is good for
//! [`ANCHOR`] at most: a longer theft ends it, and the very next reading is the truth; a shorter one is made good at the
//! next anchor, by then at the cost of whoever runs. What was stolen is summed up and shown.

use super::choice::{Choice, Detector};
use super::{Reading, arch, posix};
use crate::os::perf::Page;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How long an anchor is good for: a system call in each such time costs a thousandth, and bounds what the counter can be
/// wrong by.
const ANCHOR: Duration = Duration::from_millis(1);

/// One thread's clock. Read by that thread alone; its figures by all.
#[derive(Debug, Default)]
pub(crate) struct OnCpuClock {
    /// The counter and both times at one moment. `until` 0: there is no anchor.
    anchor_ticks: AtomicU64,
    anchor_cpu_ns: AtomicU64,
    anchor_wall_ns: AtomicU64,
    until: AtomicU64,
    /// The perf page's sequence count at the anchor.
    sequence: AtomicU32,
    /// INVARIANT: null, or a box of this clock's own, opened by the thread that reads it.
    page: AtomicPtr<Page>,
    /// The last CPU time that was told: it never goes back.
    last_cpu_ns: AtomicU64,
    stolen_ns: AtomicU64,
}

impl OnCpuClock {
    /// The calling thread's CPU time, and wall time; `None` when it takes a system call to tell.
    #[inline(always)]
    pub(crate) fn read(&self, choice: &Choice) -> Option<Reading> {
        // Relaxed, here and below: this thread's own.
        let since = arch::ticks().wrapping_sub(self.anchor_ticks.load(Ordering::Relaxed));
        if since >= self.until.load(Ordering::Relaxed) || !self.has_kept_its_cpu(choice.detector) {
            return None;
        }
        let since_ns = choice.counter?.ns_of_few(since);
        Some(Reading {
            cpu_ns: self.forward(self.anchor_cpu_ns.load(Ordering::Relaxed) + since_ns),
            wall_ns: self.anchor_wall_ns.load(Ordering::Relaxed) + since_ns,
        })
    }

    /// For a thread that ends or is another's from now on: lets go of what was opened, and of the anchor.
    pub(crate) fn stop(&self, choice: &Choice) {
        self.until.store(0, Ordering::Relaxed);
        self.last_cpu_ns.store(0, Ordering::Relaxed);
        self.set_page(ptr::null_mut());
        if let Detector::Rseq { offset } = choice.detector {
            arch::rseq_disarm(offset);
        }
    }

    /// How far the counter was ahead of the thread's CPU clock at the ends of anchors that no detector had ended: time
    /// stolen from the virtual CPU. By now it is made good.
    pub(crate) fn stolen_ns(&self) -> u64 {
        self.stolen_ns.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn has_kept_its_cpu(&self, detector: Detector) -> bool {
        match detector {
            Detector::Rseq { offset } => arch::rseq_is_armed(offset),
            Detector::PerfPage => self
                .page()
                .and_then(Page::sequence)
                .is_some_and(|sequence| sequence == self.sequence.load(Ordering::Relaxed)),
            Detector::None => false,
        }
    }

    /// Asks the thread's CPU clock, and tells time from there.
    #[cold]
    #[inline(never)]
    pub(crate) fn read_by_system_call(&self, choice: &Choice) -> Reading {
        let Some(counter) = choice.counter else {
            return Reading { cpu_ns: posix::thread_cpu_ns(), wall_ns: posix::wall_ns() };
        };
        let had_anchor = self.until.load(Ordering::Relaxed) != 0;
        let merely_old = had_anchor && self.has_kept_its_cpu(choice.detector);
        if !merely_old {
            self.arm(choice.detector);
        }
        let before = arch::ticks();
        let cpu_ns = posix::thread_cpu_ns();
        let after = arch::ticks();
        // The clock was read about half way; if the thread lost its CPU in between, there is no half way.
        let kept = self.has_kept_its_cpu(choice.detector);
        let ticks = before.wrapping_add(after.wrapping_sub(before) / 2);
        if merely_old && kept {
            let since = ticks.wrapping_sub(self.anchor_ticks.load(Ordering::Relaxed));
            let told = self.anchor_cpu_ns.load(Ordering::Relaxed) + counter.ns(since);
            add(&self.stolen_ns, told.saturating_sub(cpu_ns));
        }
        self.anchor_ticks.store(ticks, Ordering::Relaxed);
        self.anchor_cpu_ns.store(cpu_ns, Ordering::Relaxed);
        self.anchor_wall_ns.store(counter.ns(ticks), Ordering::Relaxed);
        self.until.store(if kept { counter.ticks(ANCHOR) } else { 0 }, Ordering::Relaxed);
        let now = if kept { cpu_ns + counter.ns(after.wrapping_sub(ticks)) } else { cpu_ns };
        Reading { cpu_ns: self.forward(now), wall_ns: counter.ns(after) }
    }

    fn arm(&self, detector: Detector) {
        match detector {
            Detector::Rseq { offset } => arch::rseq_arm(offset),
            Detector::PerfPage => {
                if self.page().is_none()
                    && let Ok(page) = Page::open_dummy()
                {
                    self.set_page(Box::into_raw(Box::new(page)));
                }
                let sequence = self.page().and_then(Page::sequence).unwrap_or(0);
                self.sequence.store(sequence, Ordering::Relaxed);
            }
            Detector::None => {}
        }
    }

    #[inline(always)]
    fn page(&self) -> Option<&Page> {
        // SAFETY: null, or a box that lives until this thread sets another. Relaxed: this thread's own.
        unsafe { self.page.load(Ordering::Relaxed).as_ref() }
    }

    fn set_page(&self, page: *mut Page) {
        let old = self.page.swap(page, Ordering::Relaxed);
        if !old.is_null() {
            // SAFETY: it came from a box, and no reference to it is held across this call.
            drop(unsafe { Box::from_raw(old) });
        }
    }

    /// A new anchor may lie behind what the old one told by some nanoseconds: time then stands still.
    #[inline(always)]
    fn forward(&self, cpu_ns: u64) -> u64 {
        let cpu_ns = cpu_ns.max(self.last_cpu_ns.load(Ordering::Relaxed));
        self.last_cpu_ns.store(cpu_ns, Ordering::Relaxed);
        cpu_ns
    }
}

impl Drop for OnCpuClock {
    fn drop(&mut self) {
        self.set_page(ptr::null_mut());
    }
}

/// Adds to a figure that one thread writes.
fn add(figure: &AtomicU64, amount: u64) {
    figure.store(figure.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
}
