//! The processor's counter as a clock: from ticks to nanoseconds.

use super::{arch, posix};
use crate::os::perf::Page;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The rate of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counter {
    /// Nanoseconds per tick, times 2^32.
    ns_per_tick: u64,
}

/// How long a calibration compares the counter with the kernel's clock, at least. An error of 100 ns in that time is 20 parts in a
/// million, and an anchor bounds what a reading extrapolates.
const CALIBRATION: Duration = Duration::from_millis(5);

/// A comparison of the counter with the kernel's clock, which goes on.
#[derive(Debug)]
pub(super) struct Calibration {
    start: (u64, u64),
    begun: Instant,
    /// Asks the kernel for its rate meanwhile: its first perf event may take it 15 ms. `None` if there was no thread to be had.
    kernels: Option<JoinHandle<Option<Counter>>>,
}

impl Calibration {
    /// Begins to compare. Returns an error with the reason if the counter is no clock.
    pub(super) fn begin() -> Result<Self, &'static str> {
        arch::counter_is_steady()?;
        let ask = std::thread::Builder::new().name("pertask-probe".to_owned());
        let kernels = ask.spawn(Counter::of_the_kernel).ok();
        Ok(Self { start: pair(), begun: Instant::now(), kernels })
    }

    /// Ends the comparison, as soon as it has lasted for some milliseconds. Returns an error with the reason if the counter is no
    /// clock.
    pub(super) fn end(self) -> Result<Counter, &'static str> {
        let kernels = match self.kernels {
            Some(asks) => asks.join().ok().flatten(),
            None => Counter::of_the_kernel(),
        };
        std::thread::sleep(CALIBRATION.saturating_sub(self.begun.elapsed()));
        Counter::between(self.start, pair(), kernels)
    }
}

impl Counter {
    /// The counter that read so at two moments, and which has this rate if the kernel is right.
    fn between(
        start: (u64, u64),
        end: (u64, u64),
        kernels: Option<Self>,
    ) -> Result<Self, &'static str> {
        let (ticks, ns) = (end.0.wrapping_sub(start.0), end.1.wrapping_sub(start.1));
        if ticks == 0 || ns == 0 || ticks > 1 << 40 {
            return Err("the counter does not tick");
        }
        let measured = Self::of_rate(ticks, ns).ok_or("the counter ticks too slowly")?;
        // A rate that the kernel or the processor states is exact, unless the firmware is wrong. So the measurement has to agree.
        let mut stated = [kernels, Self::of_the_processor()].into_iter().flatten();
        Ok(stated.find(|stated| stated.agrees(measured)).unwrap_or(measured))
    }

    /// The rate that a perf event's page states, on arm64, and on x86 where the kernel's own clock is the TSC.
    fn of_the_kernel() -> Option<Self> {
        let (ns, shift) = Page::open_dummy().ok()?.tick_rate()?;
        let ns_per_tick = u64::try_from((u128::from(ns) << 32) >> shift).ok()?;
        (ns_per_tick > 0).then_some(Self { ns_per_tick })
    }

    /// The rate that the processor states, where it does.
    fn of_the_processor() -> Option<Self> {
        Self::of_rate(arch::stated_ticks_a_second()?, 1_000_000_000)
    }

    fn of_rate(ticks: u64, ns: u64) -> Option<Self> {
        let ns_per_tick = u64::try_from((u128::from(ns) << 32) / u128::from(ticks)).ok()?;
        Some(Self { ns_per_tick })
    }

    /// Whether two rates are equal to a thousandth.
    fn agrees(self, other: Self) -> bool {
        self.ns_per_tick.abs_diff(other.ns_per_tick) <= other.ns_per_tick / 1000
    }

    pub(super) fn ns(self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.ns_per_tick)) >> 32) as u64
    }

    /// The nanoseconds of less than four seconds of ticks. The product then fits 64 bits.
    #[inline(always)]
    pub(super) fn ns_of_few(self, ticks: u64) -> u64 {
        ticks.wrapping_mul(self.ns_per_tick) >> 32
    }

    pub(super) fn ticks(self, time: Duration) -> u64 {
        let ticks = (time.as_nanos() << 32) / u128::from(self.ns_per_tick.max(1));
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// The rate in millions of ticks per second.
    pub(super) fn mhz(self) -> f64 {
        1_000.0 * (1_u64 << 32) as f64 / self.ns_per_tick as f64
    }
}

/// The counter and the clock at nearly the same moment: the closest pair of some tries.
fn pair() -> (u64, u64) {
    let tries = (0..16).map(|_| {
        let before = arch::ticks();
        let ns = posix::raw_wall_ns();
        let apart = arch::ticks().wrapping_sub(before);
        (apart, before.wrapping_add(apart / 2), ns)
    });
    tries.min_by_key(|(apart, ..)| *apart).map_or((0, 0), |(_, ticks, ns)| (ticks, ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibrate() -> Result<Counter, &'static str> {
        Calibration::begin()?.end()
    }

    #[test]
    fn keeps_time_with_the_kernels_clock() {
        let Ok(counter) = calibrate() else { return };
        let start = pair();
        std::thread::sleep(10 * CALIBRATION);
        let end = pair();
        let (told, real) = (counter.ns(end.0.wrapping_sub(start.0)), end.1 - start.1);
        assert!(told.abs_diff(real) <= real / 1000, "{told} ns for {real}");
    }

    #[test]
    fn the_kernels_rate_is_the_counters() {
        use std::io::Write;
        let Ok(page) = Page::open_dummy() else {
            let _ = writeln!(std::io::stderr(), "SKIPPED: perf is refused, and with it its page");
            return;
        };
        let Some(kernels) = Counter::of_the_kernel() else {
            assert_ne!(std::env::consts::ARCH, "aarch64", "arm64's page has its times: {page:?}");
            let _ = writeln!(std::io::stderr(), "SKIPPED: the page has no times here");
            return;
        };
        assert!(kernels.agrees(calibrate().unwrap()), "{kernels:?}");
        if let Some(stated) = Counter::of_the_processor() {
            let (a, b) = (kernels.ns(1 << 40), stated.ns(1 << 40));
            assert!(a.abs_diff(b) <= b / 1_000_000, "{a} and {b} ns");
        }
    }

    #[test]
    fn takes_the_rate_that_the_processor_states() {
        if let Some(stated) = arch::stated_ticks_a_second() {
            let second = calibrate().unwrap().ns(stated);
            assert!(second.abs_diff(1_000_000_000) <= 1, "{second} ns a second");
        }
    }
}
