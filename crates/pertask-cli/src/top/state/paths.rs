//! Tasks by spawn path: the tree of spawns, with rates.

use std::{collections::HashMap, rc::Rc};

use pertask::{Report, SpawnSite};

use super::{
    column::Column,
    history::History,
    life::LifeRates,
    meter::Meter,
    rows::{RowKey, Rows},
    sites::Rates,
    tracks::{Step, Tracks},
    value::Value,
};

/// The rows of the paths.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    report: Option<Rc<Report>>,
    parents: Vec<Option<usize>>,
    rows: Vec<PathRates>,
    tracks: Tracks<u32, PathRates>,
}

#[derive(Clone, Copy, Debug, Default)]
struct PathRates {
    own: Rates,
    inclusive: Meter,
    /// Of these tasks, without those below.
    life: LifeRates,
    /// Of the inclusive time.
    history: History,
}

impl Paths {
    /// Begins another session of the source. Of the last one, only the pictures stay.
    pub fn restart(&mut self) {
        self.tracks.restart(|track| {
            *track = PathRates { history: track.history, ..PathRates::default() };
        });
    }

    /// Takes the next report.
    pub fn advance(&mut self, report: &Rc<Report>, step: Step) {
        self.tracks.forget_absent(report.tree.len(), step);
        let rows = report.tree.iter().map(|path| {
            self.tracks.advance(path.id, step, |rates, seconds| {
                rates.own.advance(&path.usage, path.tasks_started, seconds);
                rates.life.advance(path.life.as_ref(), seconds);
                rates.inclusive.advance(path.inclusive_cpu_ns, seconds);
                rates.history.push(rates.inclusive.percent_of_time().unwrap_or(0.0));
            })
        });
        self.rows = rows.collect();
        self.parents = parents(report);
        self.report = Some(Rc::clone(report));
    }

    /// Returns the site of a row.
    pub fn site(&self, at: usize) -> Option<&SpawnSite> {
        self.report.as_ref()?.tree.get(at).map(|path| &path.site)
    }
}

/// Returns the row of each row's parent. A parent that does not stand further up is none, whoever has sent such a report.
fn parents(report: &Report) -> Vec<Option<usize>> {
    let mut rows = HashMap::new();
    let parent = |(at, path): (usize, &pertask::TreeReport)| {
        let parent = path.parent.and_then(|id| rows.get(&id).copied());
        rows.insert(path.id, at);
        parent
    };
    report.tree.iter().enumerate().map(parent).collect()
}

impl Rows for Paths {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn value(&self, at: usize, column: Column) -> Value<'_> {
        let (Some(report), Some(rates)) = (&self.report, self.rows.get(at)) else {
            return Value::Nothing;
        };
        let path = &report.tree[at];
        match column {
            Column::Inclusive => Value::percent(rates.inclusive.percent_of_time()),
            Column::Cpu => Value::percent(rates.own.cpu.percent_of_time()),
            Column::History => Value::History(&rates.history),
            Column::Polls => Value::per_second(rates.own.polls.per_second()),
            Column::CpuPerPoll => Value::time(rates.own.cpu_per_poll()),
            Column::MaxPoll => Value::Time(path.usage.max_poll_ns),
            Column::Blocked => rates.own.blocked(),
            Column::Started => Value::per_second(rates.own.started.per_second()),
            Column::Live => Value::Count(path.tasks_live),
            Column::TotalCpu => Value::Time(path.inclusive_cpu_ns),
            Column::Name => Value::Task(&path.site),
            Column::Place => Value::Place(&path.site),
            column => rates.life.value(column),
        }
    }

    fn key(&self, at: usize) -> RowKey {
        RowKey::Path(self.report.as_ref().map_or(0, |report| report.tree[at].id))
    }

    fn parent(&self, at: usize) -> Option<usize> {
        self.parents[at]
    }

    fn depth(&self, at: usize) -> u32 {
        self.report.as_ref().map_or(0, |report| report.tree[at].depth)
    }
}
