//! All figures of one moment, with their rates since the moment before.

use std::rc::Rc;

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
            *self = Self::default();
        }
        let before_ns = self.step.map_or(0, |step| step.now_ns);
        (last_ns != Some(now_ns)).then(|| *self.step.insert(Step { before_ns, now_ns }))
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
