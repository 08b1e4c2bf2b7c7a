//! What the tasks of a site did during a session, as a row of a report.

use super::tree::Spawned;
use crate::pmus::counters::Counter;
use crate::pmus::cpu_time::CpuTimeCount;
use crate::pmus::life::LifeCount;
use crate::report::{LifeReport, SiteReport, SpawnSite, Usage, WakeReport};
use pertask_core::{Count, Site};

/// What the tasks of one site did during a session, on whatever path.
pub(super) struct SiteSince {
    site: &'static Site,
    started: u64,
    live: u64,
    count: CpuTimeCount,
    max_poll_ns: u64,
    life: Option<LifeCount>,
}

impl SiteSince {
    pub(super) fn new(site: &'static Site) -> Self {
        Self {
            site,
            started: 0,
            live: 0,
            count: CpuTimeCount::default(),
            max_poll_ns: 0,
            life: None,
        }
    }

    pub(super) fn add(&mut self, row: &Spawned) {
        self.started += row.started;
        self.live += row.live;
        self.count.add(&row.count);
        self.max_poll_ns = self.max_poll_ns.max(row.max_poll_ns);
        if let Some(life) = &row.life {
            self.life.get_or_insert_default().add(life);
        }
    }

    pub(super) fn report(self, counters: Vec<Counter>, wakes: Option<WakeReport>) -> SiteReport {
        SiteReport {
            site: SpawnSite::of(self.site),
            tasks_started: self.started,
            tasks_live: self.live,
            usage: Usage::of(&self.count, self.max_poll_ns),
            counters,
            wakes,
            life: self.life.map(|life| LifeReport::of(&life, self.count.cpu_ns)),
            memory: None,
        }
    }
}
