//! Tasks by spawn site and name: a row for each, with its rates.

use std::rc::Rc;

use pertask::{LifeReport, Report, SpawnSite};

use super::{
    column::Column,
    history::History,
    life::{LifeRates, Lived},
    meter::Meter,
    rows::{RowKey, Rows, SiteKey},
    tracks::{Step, Tracks},
    value::Value,
};

/// The rows of the sites.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    report: Option<Rc<Report>>,
    rows: Vec<Track>,
    tracks: Tracks<SiteKey, Track>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Track {
    rates: Rates,
    life: LifeRates,
    history: History,
}

/// What tasks do in a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    pub cpu: Meter,
    pub wall: Meter,
    pub polls: Meter,
    pub started: Meter,
}

/// Polls that use little of the CPU are worth a word if they hold a worker for so many percent of the time.
const NOTED_PERCENT: f64 = 2.0;

impl Sites {
    /// Begins another session of the source. Of the last one, only the pictures stay.
    pub fn restart(&mut self) {
        self.tracks.restart(|track| {
            *track = Track { history: track.history, ..Track::default() };
        });
    }

    /// Takes the next report.
    pub fn advance(&mut self, report: &Rc<Report>, step: Step) {
        self.tracks.forget_absent(report.sites.len(), step);
        let rows = report.sites.iter().map(|site| {
            self.tracks.advance(SiteKey::of(&site.site), step, |track, seconds| {
                track.rates.advance(&site.usage, site.tasks_started, seconds);
                track.life.advance(site.life.as_ref(), seconds);
                track.history.push(track.rates.cpu.percent_of_time().unwrap_or(0.0));
            })
        });
        self.rows = rows.collect();
        self.report = Some(Rc::clone(report));
    }

    /// Returns the site of a row.
    pub fn site(&self, at: usize) -> Option<&SpawnSite> {
        self.report.as_ref()?.sites.get(at).map(|site| &site.site)
    }

    /// Returns how the tasks of a row spent the last interval.
    pub fn lived(&self, at: usize) -> Option<Lived> {
        self.rows.get(at)?.life.lived()
    }

    /// Returns the life of a row since the session began.
    pub fn life(&self, at: usize) -> Option<&LifeReport> {
        self.report.as_ref()?.sites.get(at)?.life.as_ref()
    }

    /// Returns the row of a site.
    pub fn find(&self, site: &SpawnSite) -> Option<usize> {
        self.report.as_ref()?.sites.iter().position(|row| row.site == *site)
    }
}

impl Rates {
    /// Takes the next counts of these tasks.
    pub fn advance(&mut self, usage: &pertask::Usage, started: u64, seconds: f64) {
        self.cpu.advance(usage.cpu_ns, seconds);
        self.wall.advance(usage.wall_ns, seconds);
        self.polls.advance(usage.polls, seconds);
        self.started.advance(started, seconds);
    }

    /// Returns the CPU time of an average poll.
    pub fn cpu_per_poll(&self) -> Option<u64> {
        self.cpu.grown()?.checked_div(self.polls.grown()?)
    }

    /// Returns how much of a worker is held without using the CPU, if that is more than the CPU that is used.
    pub fn blocked(&self) -> Value<'static> {
        let (Some(wall), Some(cpu)) = (self.wall.percent_of_time(), self.cpu.percent_of_time())
        else {
            return Value::Nothing;
        };
        match wall - cpu {
            held if held > cpu && held >= NOTED_PERCENT => Value::Percent(held),
            _ => Value::Nothing,
        }
    }
}

impl Rows for Sites {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn value(&self, at: usize, column: Column) -> Value<'_> {
        let (Some(report), Some(Track { rates, life, history })) =
            (&self.report, self.rows.get(at))
        else {
            return Value::Nothing;
        };
        let site = &report.sites[at];
        match column {
            Column::Cpu => Value::percent(rates.cpu.percent_of_time()),
            Column::History => Value::History(history),
            Column::Polls => Value::per_second(rates.polls.per_second()),
            Column::CpuPerPoll => Value::time(rates.cpu_per_poll()),
            Column::MaxPoll => Value::Time(site.usage.max_poll_ns),
            Column::Blocked => rates.blocked(),
            Column::Started => Value::per_second(rates.started.per_second()),
            Column::Live => Value::Count(site.tasks_live),
            Column::WakeP99 => Value::time(site.wakes.as_ref().and_then(|wakes| wakes.p99_ns)),
            Column::TotalCpu => Value::Time(site.usage.cpu_ns),
            Column::Name => Value::Task(&site.site),
            Column::Place => Value::Place(&site.site),
            column => life.value(column),
        }
    }

    fn key(&self, at: usize) -> RowKey {
        RowKey::Site(SiteKey::of(self.site(at).unwrap_or(&SpawnSite::default())))
    }
}
