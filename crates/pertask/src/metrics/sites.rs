//! The sites that have series, and what their series show.

use super::blocked::BlockedPolls;
use super::exposition::labels;
use super::life::{Lives, LivesNow};
use super::shown::Shown;
use super::waits::{Waits, WaitsNow};
use crate::report::{SiteReport, SpawnSite};
use std::collections::HashMap;

/// The sites that have series, in the order in which they came.
///
/// A site that has series keeps them for good, so that no time moves from one series to another. A site that comes when there is
/// no place left shares the series of all such sites, also for good.
#[derive(Debug)]
pub(super) struct Sites {
    max: usize,
    own: Vec<Series>,
    /// The place of each site in `own`, by its labels.
    places: HashMap<String, usize>,
    /// All other sites together, and those for which the core has no place.
    other: Series,
    has_other: bool,
    /// How many sites of the latest report share `other` because there was no place for them here.
    folded: usize,
}

/// What the series of one site show.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) labels: String,
    pub(super) cpu_ns: Shown,
    pub(super) wall_ns: Shown,
    pub(super) polls: Shown,
    pub(super) started: Shown,
    pub(super) live: u64,
    pub(super) longest_poll_ns: Shown,
    pub(super) blocking_polls: Shown,
    pub(super) blocking_ns: Shown,
    /// `None` until a wait of these tasks could be measured.
    pub(super) waits: Option<Waits>,
    /// `None` until a life of these tasks was measured.
    pub(super) life: Option<Lives>,
    now: Now,
}

/// The sums of one report's rows.
#[derive(Debug, Default)]
struct Now {
    cpu_ns: u64,
    wall_ns: u64,
    polls: u64,
    started: u64,
    live: u64,
    longest_poll_ns: u64,
    blocking_polls: u64,
    blocking_ns: u64,
    waits: Option<WaitsNow>,
    life: Option<LivesNow>,
}

/// The name in the series that sites share. The core calls its own such site so, too.
const OTHER: &str = "(other)";

impl Sites {
    pub(super) fn new(max: usize) -> Self {
        let other = Series::new(labels(&[("name", OTHER), ("site", "")]));
        Self { max, own: Vec::new(), places: HashMap::new(), other, has_other: false, folded: 0 }
    }

    /// Adds up the rows of a report and the polls that blocked their worker, and shows the sums.
    pub(super) fn update(&mut self, rows: &[SiteReport], blocked: &[BlockedPolls]) {
        self.folded = 0;
        for row in rows {
            self.series_of(&row.site).now.add(row);
        }
        let folded = self.folded;
        for BlockedPolls { site, polls, total_ns } in blocked {
            let now = &mut self.series_of(site).now;
            (now.blocking_polls, now.blocking_ns) =
                (now.blocking_polls + polls, now.blocking_ns + total_ns);
        }
        self.folded = folded;
        for series in self.own.iter_mut().chain([&mut self.other]) {
            series.show();
        }
    }

    /// The series that there are. Those of the other sites come last, if there are such sites.
    pub(super) fn series(&self) -> impl Iterator<Item = &Series> {
        self.own.iter().chain(self.has_other.then_some(&self.other))
    }

    /// How many sites have series of their own.
    pub(super) fn own(&self) -> usize {
        self.own.len()
    }

    /// How many sites share the series `(other)` because there was no place for them.
    pub(super) fn folded(&self) -> usize {
        self.folded
    }

    /// The series of a site. Two sites in one line, with one name, share theirs.
    fn series_of(&mut self, site: &SpawnSite) -> &mut Series {
        if site.file.is_empty() {
            return self.other();
        }
        let labels = labels_of(site);
        if let Some(place) = self.places.get(&labels) {
            return &mut self.own[*place];
        }
        if self.own.len() >= self.max {
            self.folded += 1;
            return self.other();
        }
        let place = self.own.len();
        self.places.insert(labels.clone(), place);
        self.own.push(Series::new(labels));
        &mut self.own[place]
    }

    fn other(&mut self) -> &mut Series {
        self.has_other = true;
        &mut self.other
    }
}

impl Series {
    fn new(labels: String) -> Self {
        Self {
            labels,
            cpu_ns: Shown::default(),
            wall_ns: Shown::default(),
            polls: Shown::default(),
            started: Shown::default(),
            live: 0,
            longest_poll_ns: Shown::default(),
            blocking_polls: Shown::default(),
            blocking_ns: Shown::default(),
            waits: None,
            life: None,
            now: Now::default(),
        }
    }

    /// Shows what has been added up. A report leaves out sites that have nothing, whose sums are zero.
    fn show(&mut self) {
        let now = std::mem::take(&mut self.now);
        self.cpu_ns.raise(now.cpu_ns);
        self.wall_ns.raise(now.wall_ns);
        self.polls.raise(now.polls);
        self.started.raise(now.started);
        self.live = now.live;
        self.longest_poll_ns.raise(now.longest_poll_ns);
        self.blocking_polls.raise(now.blocking_polls);
        self.blocking_ns.raise(now.blocking_ns);
        if let Some(now) = &now.waits {
            self.waits.get_or_insert_default().raise(now);
        }
        if let Some(now) = &now.life {
            self.life.get_or_insert_default().raise(now);
        }
    }
}

impl Now {
    fn add(&mut self, row: &SiteReport) {
        self.cpu_ns += row.usage.cpu_ns;
        self.wall_ns += row.usage.wall_ns;
        self.polls += row.usage.polls;
        self.started += row.tasks_started;
        self.live += row.tasks_live;
        self.longest_poll_ns = self.longest_poll_ns.max(row.usage.max_poll_ns);
        if let Some(waits) = &row.wakes {
            self.waits.get_or_insert_default().add(waits);
        }
        if let Some(life) = &row.life {
            self.life.get_or_insert_default().add(life);
        }
    }
}

fn labels_of(site: &SpawnSite) -> String {
    let name = site.name.as_deref().unwrap_or("");
    labels(&[("name", name), ("site", &format!("{}:{}", site.file, site.line))])
}
