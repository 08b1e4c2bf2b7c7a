//! The polls that were caught, added up in a bounded table.

use super::names::Names;
use super::poll::{Facts, PollTimes};
use crate::report::{BlockedLabel, BlockedReport, BlockedRow, BlockedState, SpawnSite};
use std::collections::HashMap;
use std::sync::Arc;

/// Polls by what tells their rows apart. Cloning it copies no stack.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    most_rows: usize,
    rows: HashMap<Key, Row>,
    /// All polls, by the number of their site. There are at most 4097 sites.
    #[cfg(feature = "metrics")]
    sites: HashMap<u32, BlockedSite>,
    polls: u64,
    total_ns: u64,
    without_row: u64,
    without_stack: u64,
}

/// All polls of a site.
#[cfg(feature = "metrics")]
#[derive(Clone, Debug)]
pub(crate) struct BlockedSite {
    pub(crate) site: SpawnSite,
    pub(crate) polls: u64,
    pub(crate) total_ns: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    site: u32,
    state: BlockedState,
    call: Option<String>,
    functions: Box<[u64]>,
}

#[derive(Clone, Debug)]
struct Row {
    polls: u64,
    under_way: u64,
    total_ns: u64,
    cpu_ns: u64,
    at_least: bool,
    longest_ns: u64,
    longest: Arc<Facts>,
}

impl Table {
    pub(super) fn new(most_rows: usize) -> Self {
        Self { most_rows, ..Self::default() }
    }

    /// Adds a poll. `under_way`: it has not ended.
    pub(super) fn add(&mut self, facts: &Arc<Facts>, times: PollTimes, under_way: bool) {
        self.polls += 1;
        self.total_ns += times.wall_ns;
        self.without_stack += u64::from(facts.stack.is_empty());
        #[cfg(feature = "metrics")]
        self.add_to_site(facts.site.id(), || SpawnSite::of(facts.site), times.wall_ns);
        let key = Key::of(facts);
        if !self.rows.contains_key(&key) && self.rows.len() >= self.most_rows {
            self.without_row += 1;
            return;
        }
        let row = self.rows.entry(key).or_insert_with(|| Row::new(facts));
        row.polls += 1;
        row.under_way += u64::from(under_way);
        row.total_ns += times.wall_ns;
        row.cpu_ns += times.cpu_ns;
        row.at_least |= times.at_least;
        if times.wall_ns >= row.longest_ns {
            (row.longest_ns, row.longest) = (times.wall_ns, Arc::clone(facts));
        }
    }

    /// Adds a poll that has lasted so long when it was caught, and of which no more is known.
    pub(super) fn add_unknown(&mut self, wall_ns: u64) {
        self.polls += 1;
        self.total_ns += wall_ns;
        (self.without_row, self.without_stack) = (self.without_row + 1, self.without_stack + 1);
        // Together with those of the site that stands for all without a place of their own.
        #[cfg(feature = "metrics")]
        self.add_to_site(0, SpawnSite::default, wall_ns);
    }

    #[cfg(feature = "metrics")]
    fn add_to_site(&mut self, id: u32, site: impl FnOnce() -> SpawnSite, wall_ns: u64) {
        let new = || BlockedSite { site: site(), polls: 0, total_ns: 0 };
        let site = self.sites.entry(id).or_insert_with(new);
        (site.polls, site.total_ns) = (site.polls + 1, site.total_ns + wall_ns);
    }

    /// All polls, by site.
    #[cfg(feature = "metrics")]
    pub(super) fn by_site(self) -> Vec<BlockedSite> {
        self.sites.into_values().collect()
    }

    /// Forgets all polls.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.most_rows);
    }

    /// The report of what is there.
    pub(super) fn report(&self, names: &Names, threshold_ns: u64) -> BlockedReport {
        let mut rows: Vec<_> = self.rows.values().map(|row| row.report(names)).collect();
        rows.sort_by(|a, b| b.max_ns.cmp(&a.max_ns).then_with(|| a.task.cmp(&b.task)));
        BlockedReport {
            threshold_ns,
            polls: self.polls,
            total_ns: self.total_ns,
            rows,
            polls_without_row: self.without_row,
            polls_without_stack: self.without_stack,
            remarks: Vec::new(),
        }
    }
}

impl Key {
    fn of(facts: &Facts) -> Self {
        Self {
            site: facts.site.id(),
            state: facts.state,
            call: facts.call.clone(),
            functions: facts.functions.clone(),
        }
    }
}

impl Row {
    fn new(facts: &Arc<Facts>) -> Self {
        Self {
            polls: 0,
            under_way: 0,
            total_ns: 0,
            cpu_ns: 0,
            at_least: false,
            longest_ns: 0,
            longest: Arc::clone(facts),
        }
    }

    fn report(&self, names: &Names) -> BlockedRow {
        let facts = &self.longest;
        let (stack, place, has_root) = names.frames(&facts.stack);
        let label = |(key, value): (&str, &str)| BlockedLabel {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        BlockedRow {
            site: SpawnSite::of(facts.site),
            state: facts.state,
            call: facts.call.clone(),
            polls: self.polls,
            under_way: self.under_way,
            total_ns: self.total_ns,
            max_ns: self.longest_ns,
            at_least: self.at_least,
            cpu_ns: self.cpu_ns,
            task: facts.task.get(),
            tid: facts.thread,
            labels: facts.labels.iter().map(label).collect(),
            place,
            stack,
            stack_complete: has_root || facts.stack_complete,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::label_set::Labels;
    use pertask_core::{Cpu, System};
    use std::panic::Location;

    fn facts(state: BlockedState, functions: &[u64]) -> Arc<Facts> {
        let site = System::global().site(Some("table"), Location::caller());
        Arc::new(Facts {
            task: Cpu::with(|cpu| cpu.fork(site)).handle().id(),
            site,
            labels: Labels::new([("tenant", "acme")]),
            thread: 7,
            state,
            call: None,
            stack: functions.to_vec(),
            stack_complete: true,
            functions: functions.into(),
        })
    }

    fn lasted(wall_ns: u64) -> PollTimes {
        PollTimes { wall_ns, cpu_ns: wall_ns / 2, at_least: false }
    }

    #[test]
    fn polls_of_the_same_kind_share_a_row_and_the_longest_is_shown() {
        let mut table = Table::new(8);
        let longest = facts(BlockedState::Computing, &[1, 2]);
        table.add(&facts(BlockedState::Computing, &[1, 2]), lasted(20), false);
        table.add(&longest, lasted(50), true);
        table.add(&facts(BlockedState::Blocked, &[1, 2]), lasted(30), false);
        table.add(&facts(BlockedState::Blocked, &[]), lasted(90), false);
        let report = table.report(&Names::default(), 10);
        assert_eq!((report.polls, report.total_ns, report.polls_without_stack), (4, 190, 1));
        let rows: Vec<_> =
            report.rows.iter().map(|row| (row.max_ns, row.polls, row.total_ns)).collect();
        assert_eq!(rows, [(90, 1, 90), (50, 2, 70), (30, 1, 30)], "the longest first");
        let row = &report.rows[1];
        assert_eq!((row.under_way, row.cpu_ns, row.task), (1, 35, longest.task.get()));
        assert_eq!(row.labels[0].value, "acme");
    }

    #[test]
    fn the_table_is_bounded_and_what_has_no_row_is_counted() {
        let mut table = Table::new(3);
        for function in 0..1_000 {
            table.add(&facts(BlockedState::Computing, &[function]), lasted(10), false);
        }
        table.add(&facts(BlockedState::Computing, &[1]), lasted(10), false);
        let report = table.report(&Names::default(), 10);
        assert_eq!((report.rows.len(), report.polls_without_row), (3, 997));
        assert_eq!((report.polls, report.total_ns), (1_001, 10_010));
        table.add_unknown(5);
        let report = table.report(&Names::default(), 10);
        assert_eq!((report.polls, report.total_ns, report.polls_without_row), (1_002, 10_015, 998));
        table.clear();
        assert_eq!(table.report(&Names::default(), 10).polls, 0);
    }
}
