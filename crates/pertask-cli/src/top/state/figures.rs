//! All figures of one moment, with their rates since the moment before.

use std::{mem, rc::Rc};

use pertask::Report;

use crate::top::source::Sampled;

use super::{
    labels::Labels, paths::Paths, sites::Sites, threads::Threads, totals::Totals, tracks::Step,
    types::Types,
};

/// What the source has told of the program.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    report: Option<Rc<Report>>,
    before: Option<Rc<Report>>,
    sampled: Option<Rc<Sampled>>,
    step: Option<Step>,
    asks_for_lives: bool,
    has_lives: bool,
    /// The whole process.
    pub totals: Totals,
    /// Tasks by site.
    pub sites: Sites,
    /// Tasks by spawn path.
    pub paths: Paths,
    /// CPU time by label.
    pub labels: Labels,
    /// The threads.
    pub threads: Threads,
    /// Tasks by type, of a program without pertask.
    pub types: Types,
}

impl Figures {
    /// Begins another session of the source, which has told nothing yet.
    pub fn restart(&mut self, asks_for_lives: bool) {
        let (mut sites, mut paths) = (mem::take(&mut self.sites), mem::take(&mut self.paths));
        sites.restart();
        paths.restart();
        *self = Self { asks_for_lives, sites, paths, ..Self::default() };
    }

    /// Takes the next report of the session.
    ///
    /// A report of less than the last one's time belongs to another session, in which all counters have begun anew.
    pub fn advance(&mut self, report: Report) {
        let Some(step) = self.step_to(report.duration_ns) else { return };
        let report = Rc::new(report);
        self.totals.advance(&report, step.seconds());
        self.sites.advance(&report, step);
        self.paths.advance(&report, step);
        self.labels.advance(&report, step);
        self.threads.advance(&report, step);
        self.has_lives = report.sites.iter().any(|site| site.life.is_some());
        self.before = self.report.replace(report);
    }

    /// Takes the next figures of a program that is only sampled.
    pub fn advance_sampled(&mut self, sampled: Sampled) {
        let Some(step) = self.step_to(sampled.duration_ns) else { return };
        let sampled = Rc::new(sampled);
        self.totals.process.advance(sampled.process_cpu_ns, step.seconds());
        self.totals.tasks.advance(sampled.tasks_cpu_ns, step.seconds());
        self.types.advance(&sampled, step);
        self.sampled = Some(sampled);
    }

    /// Returns the step to a report of this time, or `None` if it is the last report once more.
    fn step_to(&mut self, now_ns: u64) -> Option<Step> {
        let last_ns = self.step.map(|step| step.now_ns);
        if last_ns.is_some_and(|last_ns| now_ns < last_ns) {
            *self = Self { asks_for_lives: self.asks_for_lives, ..Self::default() };
        }
        let before_ns = self.step.map_or(0, |step| step.now_ns);
        (last_ns != Some(now_ns)).then(|| *self.step.insert(Step { before_ns, now_ns }))
    }

    /// Returns whether the source was asked to measure lives.
    pub fn asks_for_lives(&self) -> bool {
        self.asks_for_lives
    }

    /// Returns whether there are lives.
    pub fn has_lives(&self) -> bool {
        self.has_lives
    }

    /// Returns whether there are none although they were asked for, and there are tasks that could have some.
    pub fn lacks_lives(&self) -> bool {
        let has_tasks = self.report.as_ref().is_some_and(|report| !report.sites.is_empty());
        self.asks_for_lives && has_tasks && !self.has_lives
    }

    /// Returns the newest report.
    pub fn report(&self) -> Option<&Rc<Report>> {
        self.report.as_ref()
    }

    /// Returns the report before the newest.
    pub fn before(&self) -> Option<&Rc<Report>> {
        self.before.as_ref()
    }

    /// Returns the newest figures of a program that is only sampled.
    pub fn sampled(&self) -> Option<&Sampled> {
        self.sampled.as_deref()
    }

    /// Returns the seconds between the two newest reports.
    pub fn seconds(&self) -> f64 {
        self.step.map_or(0.0, Step::seconds)
    }

    /// Returns the time since the session began, if anything is known.
    pub fn duration_ns(&self) -> Option<u64> {
        self.step.map(|step| step.now_ns)
    }
}
