//! A session as a caller wants it: of which tasks, and what is measured of them.

use super::asked::{Asked, Parameter, Refusal};
use super::blocked;
use super::limits::{self, Permit};
use crate::watch::Watch;
use crate::{CounterEvent, Inherit, Report, Session, SessionOptions, SpawnSite};
use pertask_core::{System, Task};
use std::sync::Arc;

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter { name: "task", meaning: "the number of a live task: measure that task alone" },
    Parameter {
        name: "descendants",
        meaning: "true: with `task`, its descendants from now on, too",
    },
    Parameter {
        name: "site",
        meaning: "list only tasks with this name or spawn site (FILE:LINE), and no labels; sums are of all",
    },
    Parameter { name: "events", meaning: "perf events to count, separated by commas" },
    Parameter { name: "wake_latency", meaning: "true: measure waits between wake and poll" },
    Parameter { name: "life", meaning: "true: measure how long tasks are in each of their states" },
    blocked::PARAMETER,
    Parameter { name: "memory", meaning: "true: count what tasks allocate and free" },
    Parameter { name: "max_tasks", meaning: "the most live tasks to list [default: 20]" },
    Parameter { name: "max_label_values", meaning: "the most values of each label [default: 100]" },
];

/// The most tasks and values in a report. More have a route of their own, with pages.
const MOST_ROWS: usize = 10_000;

/// A session, and what its reports list.
pub(super) struct Measuring {
    session: Session,
    watch: Option<Watch>,
    how: How,
    _permit: Permit,
}

/// What a session measures, and what its reports list.
struct How {
    options: SessionOptions,
    max_tasks: usize,
    task: Option<Arc<Task>>,
    inherit: Inherit,
    site: Option<String>,
}

impl Measuring {
    pub(super) fn begin(asked: &Asked<'_>) -> Result<Self, Refusal> {
        let how = How::of(asked)?;
        let _permit = limits::SESSIONS.take()?;
        let watch = blocked::watch(asked)?;
        Ok(Self { session: how.start()?, watch, how, _permit })
    }

    /// The report so far.
    pub(super) fn report(&self) -> Report {
        let mut report = self.session.snapshot();
        report.blocked = self.watch.as_ref().map(Watch::report);
        self.how.shown(report)
    }

    /// The report since the one before.
    ///
    /// # Errors
    ///
    /// Returns the reason why measuring cannot go on. What there is since the report before is still measured then.
    pub(super) fn next_report(&mut self) -> Result<Report, crate::Error> {
        // First the new session and then the old one's end: nothing is missed, and little is in both.
        let next = self.how.start()?;
        let last = std::mem::replace(&mut self.session, next);
        let mut report = last.stop();
        report.blocked = self.watch.as_ref().map(Watch::take);
        Ok(self.how.shown(report))
    }
}

impl How {
    fn of(asked: &Asked<'_>) -> Result<Self, Refusal> {
        let max_tasks = asked.number("max_tasks", 20, &(0..=MOST_ROWS))?;
        let site = asked.text("site").map(str::to_owned);
        let options = SessionOptions {
            // Those of a site are chosen among them.
            max_tasks: if site.is_some() { MOST_ROWS } else { max_tasks },
            max_label_values: asked.number("max_label_values", 100, &(0..=MOST_ROWS))?,
            counters: events(asked)?,
            wake_latency: asked.flag("wake_latency", false)?,
            life: asked.flag("life", false)?,
            memory: asked.flag("memory", false)?,
        };
        if asked.text("task").and(asked.text(blocked::PARAMETER.name)).is_some() {
            // Its rows are by spawn site and stack, of whatever task.
            return Err(Refusal::bad("blocked_ms is not possible with task"));
        }
        let (task, descendants) = (task(asked)?, asked.flag("descendants", false)?);
        if task.is_none() && descendants {
            return Err(Refusal::bad("descendants is there without task"));
        }
        let inherit = if descendants { Inherit::Children } else { Inherit::No };
        Ok(Self { options, max_tasks, task, inherit, site })
    }

    fn start(&self) -> Result<Session, crate::Error> {
        let options = self.options.clone();
        match &self.task {
            Some(task) => options.start_on([task], self.inherit),
            None => options.start(),
        }
    }

    fn shown(&self, mut report: Report) -> Report {
        if let Some(wanted) = &self.site {
            report.sites.retain(|row| is_at(&row.site, wanted));
            report.tree.retain(|row| is_at(&row.site, wanted));
            report.tasks.retain(|row| is_at(&row.site, wanted));
            report.tasks.truncate(self.max_tasks);
            report
                .blocked
                .iter_mut()
                .for_each(|blocked| blocked.rows.retain(|row| is_at(&row.site, wanted)));
            // They are those of all tasks.
            report.labels.clear();
        }
        report
    }
}

/// Whether a site has this name, or is this place. The end of a path is enough, also as tables show it, with `…/` before it.
pub(super) fn is_at(site: &SpawnSite, wanted: &str) -> bool {
    let is_place = |(file, line): (&str, &str)| {
        let end = site.file.strip_suffix(file.trim_start_matches("…/"));
        end.is_some_and(|before| before.is_empty() || before.ends_with('/'))
            && line.parse() == Ok(site.line)
    };
    site.name.as_deref() == Some(wanted) || wanted.rsplit_once(':').is_some_and(is_place)
}

fn events(asked: &Asked<'_>) -> Result<Vec<CounterEvent>, Refusal> {
    let names = asked.text("events").unwrap_or_default().split(',').filter(|name| !name.is_empty());
    let parse =
        |name: &str| name.parse().map_err(|why: crate::UnknownEvent| Refusal::bad(why.to_string()));
    names.map(parse).collect()
}

fn task(asked: &Asked<'_>) -> Result<Option<Arc<Task>>, Refusal> {
    let Some(id) = asked.parsed::<u64>("task", "the number of a task")? else { return Ok(None) };
    let mut found = None;
    System::global().for_each_task(|task| {
        if task.id().get() == id {
            found = Some(Arc::clone(task));
        }
    });
    match found {
        Some(task) => Ok(Some(task)),
        None => {
            Err(Refusal::new(404, format!("no task {id} is alive; /v1/tasks lists those that are")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_known_by_its_name_or_the_end_of_its_path() {
        let name = Some("GET /a:1".to_owned());
        let site = SpawnSite { name, file: "src/demo/service.rs".to_owned(), line: 97 };
        for wanted in
            ["GET /a:1", "src/demo/service.rs:97", "service.rs:97", "…/demo/service.rs:97"]
        {
            assert!(is_at(&site, wanted), "{wanted}");
        }
        for other in ["GET /a", "service.rs:9", "ervice.rs:97", "service.rs", ":97:97"] {
            assert!(!is_at(&site, other), "{other}");
        }
    }
}
