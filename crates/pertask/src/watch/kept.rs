//! What the watch's thread keeps, for whoever asks: the polls that were caught, and those of them that go on.

use super::caught::Caught;
use super::look::SEARCHES_A_SECOND;
use super::names::Names;
use super::poll::{BlockingPoll, Facts, PollTimes};
#[cfg(feature = "metrics")]
use super::table::BlockedSite;
use super::table::Table;
use crate::report::BlockedReport;
use crate::sampler::Catcher;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tells the program of a poll.
pub(super) type Tell = Box<dyn Fn(&BlockingPoll) + Send + Sync>;

/// What is kept. The watch's thread writes it.
pub(super) struct Kept {
    threshold_ns: u64,
    tell: Option<Tell>,
    names: Arc<Names>,
    state: Mutex<State>,
}

struct State {
    /// The polls that have ended.
    ended: Table,
    /// Those that go on, by CPU.
    under_way: BTreeMap<u32, (Arc<Facts>, PollTimes)>,
    /// What the looks have found that people should know.
    found: Vec<String>,
    /// Polls that nobody looked at, because there were too many in a second.
    passed_over: u64,
    panics: u64,
}

impl State {
    /// The polls that have ended, and those that go on.
    fn all(&self) -> Table {
        let mut table = self.ended.clone();
        self.under_way.values().for_each(|(facts, times)| table.add(facts, *times, true));
        table
    }

    fn remarks(&self) -> Vec<String> {
        let mut remarks = self.found.clone();
        let count =
            |count: u64| if count == 1 { "once".to_owned() } else { format!("{count} times") };
        if self.passed_over > 0 {
            remarks.push(format!(
                "a poll that went on for long was passed over {}, and is not counted: the watch looks at {SEARCHES_A_SECOND} in a second, \
                 among which are jobs that may take as long as they like",
                count(self.passed_over)
            ));
        }
        if self.panics > 0 {
            remarks.push(format!(
                "the function that is told of blocking polls panicked {}",
                count(self.panics)
            ));
        }
        remarks
    }
}

impl Kept {
    pub(super) fn new(threshold_ns: u64, most_rows: usize, tell: Option<Tell>) -> Self {
        let state = State {
            ended: Table::new(most_rows),
            under_way: BTreeMap::new(),
            found: Vec::new(),
            passed_over: 0,
            panics: 0,
        };
        Self { threshold_ns, tell, names: Arc::default(), state: Mutex::new(state) }
    }

    /// Notes how far a poll has come.
    pub(super) fn set_under_way(&self, cpu: u32, caught: &Caught) {
        self.lock().under_way.insert(cpu, (Arc::clone(&caught.facts), caught.times));
    }

    /// Notes the end of a poll, and tells the program of it.
    pub(super) fn end(&self, cpu: u32, caught: &mut Caught) {
        let mut state = self.lock();
        state.under_way.remove(&cpu);
        state.ended.add(&caught.facts, caught.times, false);
        drop(state);
        if caught.is_told {
            self.call(caught, true);
        }
    }

    /// Counts a poll of which no more is known.
    pub(super) fn count_unknown(&self, wall_ns: u64) {
        self.lock().ended.add_unknown(wall_ns);
    }

    /// Counts a poll that nobody looked at. It may have been a job on a thread of its own.
    pub(super) fn count_passed_over(&self) {
        self.lock().passed_over += 1;
    }

    /// Tells the program of a poll that goes on, once.
    pub(super) fn tell(&self, caught: &mut Caught) {
        if caught.is_told && !caught.was_told {
            caught.was_told = true;
            self.call(caught, false);
        }
    }

    /// Calls the program's function. A panic in it ends there.
    fn call(&self, caught: &Caught, ended: bool) {
        let Some(tell) = &self.tell else { return };
        let (facts, names) = (Arc::clone(&caught.facts), Arc::clone(&self.names));
        let poll = BlockingPoll { facts, times: caught.times, ended, names };
        if catch_unwind(AssertUnwindSafe(|| tell(&poll))).is_err() {
            self.lock().panics += 1;
        }
    }

    /// Notes what the looks have found that people should know.
    pub(super) fn set_remarks(&self, remarks: &[String]) {
        let mut state = self.lock();
        if state.found.len() != remarks.len() {
            state.found = remarks.to_vec();
        }
    }

    /// Notes what code is mapped now.
    pub(super) fn set_code(&self, catcher: &Catcher) {
        self.names.set_modules(catcher.modules());
    }

    /// All polls so far, by site.
    #[cfg(feature = "metrics")]
    pub(super) fn by_site(&self) -> Vec<BlockedSite> {
        self.lock().all().by_site()
    }

    /// The report of all polls so far.
    pub(super) fn report(&self) -> BlockedReport {
        let state = self.lock();
        let (table, remarks) = (state.all(), state.remarks());
        // To find names may take a while.
        drop(state);
        self.report_of(&table, remarks)
    }

    /// The report of all polls so far, of which those that have ended are forgotten in the same step: none is missed, and none is in two.
    pub(super) fn take_report(&self) -> BlockedReport {
        let mut state = self.lock();
        let (table, remarks) = (state.all(), state.remarks());
        state.ended.clear();
        state.passed_over = 0;
        drop(state);
        self.report_of(&table, remarks)
    }

    fn report_of(&self, table: &Table, remarks: Vec<String>) -> BlockedReport {
        BlockedReport { remarks, ..table.report(&self.names, self.threshold_ns) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_that_were_passed_over_are_told_and_not_counted() {
        let kept = Kept::new(1, 10, None);
        assert_eq!(kept.report().remarks, Vec::<String>::new());
        kept.count_passed_over();
        kept.count_passed_over();
        let report = kept.take_report();
        let [remark] = &report.remarks[..] else { panic!("{report:#?}") };
        assert!(remark.contains("passed over 2 times"), "{remark}");
        assert_eq!((report.polls, kept.report().remarks.len()), (0, 0));
    }
}
