//! What is known of the subject of a page, beside its functions.

use pertask::{LifeReport, SpawnSite, TaskReport};

use crate::top::source::Subject;

use super::{
    column::Column,
    figures::Figures,
    life::{self, Lived},
    rows::Rows,
    tasks::TaskRates,
    value::Value,
};

/// A few words, and the value that they introduce.
pub type Fact<'a> = (&'static str, Value<'a>);

/// A task that the user has opened, as it was last seen.
#[derive(Clone, Debug)]
pub struct SeenTask {
    /// What it had used.
    pub task: TaskReport,
    /// Whether it is in the newest report.
    pub present: bool,
    rates: TaskRates,
}

impl SeenTask {
    /// Looks for a task in the newest report. A task that is not there stays as it was.
    pub fn look(figures: &Figures, id: u64, seen: Option<Self>) -> Option<Self> {
        match TaskRates::of_task(figures, id) {
            Some((task, rates)) => Some(Self { task: task.clone(), rates, present: true }),
            None => seen.filter(|seen| seen.task.id == id).map(|seen| Self {
                present: false,
                rates: TaskRates::default(),
                ..seen
            }),
        }
    }

    fn facts(&self) -> Vec<Fact<'_>> {
        let TaskReport { parent, usage, wakes, .. } = &self.task;
        let mut facts = vec![
            ("CPU now", Value::percent(self.rates.cpu.percent_of_time())),
            ("CPU in all", Value::Time(usage.cpu_ns)),
            ("polls/s", Value::per_second(self.rates.polls.per_second())),
            ("polls in all", Value::Count(usage.polls)),
            ("longest poll", Value::Time(usage.max_poll_ns)),
            ("blocked in polls", self.blocked()),
            ("spawned by task", parent.map_or(Value::Nothing, Value::Id)),
        ];
        if let Some(wakes) = wakes {
            facts.extend([
                ("wakes", Value::Count(wakes.count)),
                ("wake to poll, median", Value::time(wakes.p50_ns)),
                ("p99", Value::time(wakes.p99_ns)),
                ("longest", Value::time(wakes.max_ns)),
            ]);
        }
        facts
    }

    /// The time off the CPU in polls, unless it is among the parts of the life.
    fn blocked(&self) -> Value<'static> {
        let usage = &self.task.usage;
        match self.task.life {
            Some(_) => Value::Nothing,
            None => Value::Time(usage.wall_ns.saturating_sub(usage.cpu_ns)),
        }
    }
}

/// Returns how a subject has spent its life since the session began, each part with its share. Nothing if lives are not measured.
pub fn of_life(
    subject: &Subject,
    figures: &Figures,
    seen: Option<&SeenTask>,
) -> Vec<Fact<'static>> {
    let life: Option<&LifeReport> = match subject {
        Subject::Task(_) => seen.and_then(|seen| seen.task.life.as_ref()),
        Subject::Site(site) => figures.sites.find(site).and_then(|at| figures.sites.life(at)),
        Subject::Type(_) => None,
    };
    life.map_or_else(Vec::new, life::facts)
}

/// Returns how a subject has spent the last interval, if that is known.
pub fn lived(subject: &Subject, figures: &Figures, seen: Option<&SeenTask>) -> Option<Lived> {
    match subject {
        Subject::Task(_) => seen?.rates.life.lived(),
        Subject::Site(site) => figures.sites.lived(figures.sites.find(site)?),
        Subject::Type(_) => None,
    }
}

/// Returns what is known of a subject. There is nothing of one that has vanished.
pub fn of<'a>(
    subject: &Subject,
    figures: &'a Figures,
    seen: Option<&'a SeenTask>,
) -> Vec<Fact<'a>> {
    let mut facts = match subject {
        Subject::Task(_) => seen.map_or_else(Vec::new, SeenTask::facts),
        Subject::Site(site) => of_site(figures, site),
        Subject::Type(name) => of_type(figures, name),
    };
    facts.retain(|(_, value)| *value != Value::Nothing);
    facts
}

fn of_site<'a>(figures: &'a Figures, site: &SpawnSite) -> Vec<Fact<'a>> {
    const COLUMNS: [(&str, Column); 8] = [
        ("CPU now", Column::Cpu),
        ("CPU in all", Column::TotalCpu),
        ("polls/s", Column::Polls),
        ("CPU/poll", Column::CpuPerPoll),
        ("longest poll", Column::MaxPoll),
        ("blocked", Column::Blocked),
        ("started/s", Column::Started),
        ("live", Column::Live),
    ];
    let at = figures.sites.find(site);
    let mut facts = at.map_or_else(Vec::new, |at| values(&figures.sites, at, &COLUMNS));
    // It is among the parts of the life.
    facts.retain(|(words, _)| !figures.has_lives() || *words != "blocked");
    facts
}

fn of_type<'a>(figures: &'a Figures, name: &str) -> Vec<Fact<'a>> {
    const COLUMNS: [(&str, Column); 3] =
        [("CPU now", Column::Cpu), ("CPU in all", Column::TotalCpu), ("samples", Column::Samples)];
    figures.types.find(name).map_or_else(Vec::new, |at| values(&figures.types, at, &COLUMNS))
}

fn values<'a>(rows: &'a dyn Rows, at: usize, of: &[(&'static str, Column)]) -> Vec<Fact<'a>> {
    of.iter().map(|(words, column)| (*words, rows.value(at, *column))).collect()
}
