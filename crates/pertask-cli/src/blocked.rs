//! Polls that block their worker: the option that asks for them, and the longest in few words.

use std::time::Duration;

use clap::Args;
use pertask::{BlockedReport, BlockedState};
use pertask_text::human::{self, counted};

use crate::duration;

/// The option that asks a program's agent for blocked workers.
#[derive(Clone, Debug, Args)]
pub struct BlockedOption {
    /// Catch polls that block their worker for TIME or longer [default TIME: 10ms], and show where
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "10ms", value_parser = duration::parse)]
    pub blocked: Option<Duration>,
}

impl BlockedOption {
    /// Returns the threshold in milliseconds, at least one.
    pub fn milliseconds(&self) -> Option<String> {
        self.blocked.map(|blocked| blocked.as_millis().max(1).to_string())
    }
}

/// A line, if there were such polls: how many, and the longest.
pub fn in_few_words(blocked: &BlockedReport) -> Option<String> {
    let longest = blocked.rows.first()?;
    let name = match &longest.site.name {
        Some(name) => name.clone(),
        None => format!("{}:{}", longest.site.file, longest.site.line),
    };
    let does = match (longest.state, &longest.call) {
        (BlockedState::Computing, _) => "computing".to_owned(),
        (BlockedState::Blocked, Some(call)) => format!("in {call}"),
        (BlockedState::Blocked, None) => "blocked".to_owned(),
        (BlockedState::NotScheduled, _) => "without a CPU".to_owned(),
    };
    let mut line = format!(
        "blocked workers: {} of {} or longer; the longest {} by {name}, {does}",
        counted(blocked.polls, "poll"),
        human::duration_ns(blocked.threshold_ns),
        human::duration_ns(longest.max_ns),
    );
    let place = longest.place.as_ref();
    if let Some((file, at)) = place.and_then(|place| Some((place.file.as_ref()?, place.line?))) {
        let name = file.rsplit('/').next().unwrap_or(file);
        line += &format!(" at {name}:{at}");
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use pertask::{BlockedRow, SpawnSite, StackFrame};

    use super::*;

    #[test]
    fn the_longest_is_told_with_its_place() {
        let (file, line) = ("src/routes.rs".to_owned(), 40);
        let place = StackFrame { file: Some(file.clone()), line: Some(40), ..Default::default() };
        let row = BlockedRow {
            site: SpawnSite { name: Some("GET /report".to_owned()), file, line },
            state: BlockedState::Blocked,
            call: Some("fsync".to_owned()),
            polls: 2,
            under_way: 0,
            total_ns: 30_000_000,
            max_ns: 20_000_000,
            at_least: false,
            cpu_ns: 0,
            task: 1,
            tid: 2,
            labels: Vec::new(),
            place: Some(place),
            stack: Vec::new(),
            stack_complete: true,
        };
        let threshold_ns = 10_000_000;
        let blocked =
            BlockedReport { threshold_ns, polls: 2, rows: vec![row], ..Default::default() };
        assert_eq!(
            in_few_words(&blocked).as_deref(),
            Some(
                "blocked workers: 2 polls of 10.0 ms or longer; the longest 20.0 ms by GET /report, in fsync at routes.rs:40"
            )
        );
        assert_eq!(in_few_words(&BlockedReport::default()), None);
    }
}
