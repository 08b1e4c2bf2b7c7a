//! The whole process: what it uses, and which part of that is in tasks.

use pertask::Report;

use super::meter::Meter;

/// The CPU time of the process and its parts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// All of it.
    pub process: Meter,
    /// Inside tasks.
    pub tasks: Meter,
    /// Perhaps inside tasks.
    pub unknown: Meter,
    /// Of workers, outside tasks.
    pub workers: Meter,
    /// Of other threads.
    pub other: Meter,
}

impl Totals {
    /// Takes the next report.
    pub fn advance(&mut self, report: &Report, seconds: f64) {
        self.process.advance(report.process_cpu_ns, seconds);
        self.tasks.advance(report.tasks_cpu_ns, seconds);
        self.unknown.advance(report.unknown_cpu_ns, seconds);
        self.workers.advance(report.workers_cpu_ns, seconds);
        self.other.advance(report.other_cpu_ns, seconds);
    }

    /// Returns how many CPUs the process keeps busy.
    pub fn cpus(&self) -> Option<f64> {
        self.process.percent_of_time().map(|percent| percent / 100.0)
    }

    /// Returns the percentage that a part is of the process, or `None` if the process used nothing.
    ///
    /// The clocks are read one after the other, so parts are compared with their sum if that is more than the process used.
    pub fn percent(&self, part: Meter) -> Option<f64> {
        let parts = [self.tasks, self.unknown, self.workers, self.other];
        let parts = parts.iter().filter_map(|part| part.grown()).fold(0, u64::saturating_add);
        let whole = self.process.grown()?.max(parts);
        (whole > 0).then(|| part.grown().map(|part| part as f64 / whole as f64 * 100.0))?
    }
}
