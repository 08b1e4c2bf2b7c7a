//! A thread's CPU time at the price of reading the processor's counter.
//!
//! While a thread keeps its CPU, its CPU time grows as the counter ticks. So one reading of the thread's CPU clock is an
//! *anchor*, from which the counter alone tells the time. When a detector says that the thread was off its CPU, the next
//! reading makes a new anchor. That costs one system call for each of the *kernel's* switches, and not for each switch of
//! tasks.
//!
//! A reading asks the counter first, and then the detector. If the thread loses its CPU between the two, the reading is thrown
//! away, and the thread's CPU clock is asked instead. In the other order, the counter could include the time off the CPU.
//!
//! The detectors do not see the time that a hypervisor takes from a whole virtual CPU. So an anchor is valid for [`ANCHOR`] at
//! most. A longer theft ends the anchor, and the next reading is exact. A shorter theft is corrected at the next anchor, at the
//! cost of the task that runs then. The clock adds up what was stolen, and reports show it.

use super::choice::{Choice, Detector};
use super::{Reading, arch, posix};
use crate::os::perf::Page;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How long an anchor is valid. One system call in this time costs a thousandth of it, and bounds the counter's error.
const ANCHOR: Duration = Duration::from_millis(1);

/// The clock of one thread. Only that thread reads it; any thread may read its figures.
#[derive(Debug, Default)]
pub(crate) struct OnCpuClock {
    /// The anchor: the counter and both times at one moment. There is none while `until` is 0.
    anchor_ticks: AtomicU64,
    anchor_cpu_ns: AtomicU64,
    anchor_wall_ns: AtomicU64,
    until: AtomicU64,
    /// The perf page's sequence count at the anchor.
    sequence: AtomicU32,
    /// INVARIANT: null, or a pointer from a box that this clock owns. The thread that reads the clock has opened the page.
    page: AtomicPtr<Page>,
    /// The last CPU time that a reading returned. Time never goes back.
    last_cpu_ns: AtomicU64,
    stolen_ns: AtomicU64,
}

impl OnCpuClock {
    /// The calling thread's CPU time, and wall time, or `None` if that takes a system call.
    #[inline(always)]
    pub(crate) fn read(&self, choice: &Choice) -> Option<Reading> {
        // Relaxed, here and below: only this thread uses these words, and other threads read a figure.
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

    /// Closes the page and drops the anchor. This is for a clock whose thread ends, or which another thread will read.
    pub(crate) fn stop(&self, choice: &Choice) {
        self.until.store(0, Ordering::Relaxed);
        self.last_cpu_ns.store(0, Ordering::Relaxed);
        self.set_page(ptr::null_mut());
        if let Detector::Rseq { offset } = choice.detector {
            arch::rseq_disarm(offset);
        }
    }

    /// The time stolen from the virtual CPU: how far the counter was ahead of the thread's CPU clock at the end of anchors that
    /// no detector had ended. The clock has corrected this.
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

    /// Reads the thread's CPU clock, and makes that reading the new anchor.
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
        // The clock was read about half way between the two. If the thread lost its CPU in between, there is no half way.
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
        // SAFETY: the pointer is null, or from a box that lives until this thread sets another page. Relaxed: only this thread
        // writes it.
        unsafe { self.page.load(Ordering::Relaxed).as_ref() }
    }

    fn set_page(&self, page: *mut Page) {
        let old = self.page.swap(page, Ordering::Relaxed);
        if !old.is_null() {
            // SAFETY: the pointer came from a box, the swap has given it to this call alone, and no reference to the page is held
            // across this call.
            drop(unsafe { Box::from_raw(old) });
        }
    }

    /// Keeps time from going back. A new anchor may be some nanoseconds behind the last reading; time then stands still.
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

/// Adds to a figure that only one thread writes.
fn add(figure: &AtomicU64, amount: u64) {
    figure.store(figure.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
}
