//! Reports: one over some time, or a stream of them.

use super::asked::{Asked, Parameter, Refusal};
use super::limits::MOST_SECONDS;
use super::measure::Measuring;
use super::running::{Running, Waited};
use pertask_agent::{Answer, Caller};
use std::time::{Duration, Instant};

pub(super) const OF_ONE: &[Parameter] = &[Parameter {
    name: "seconds",
    meaning: "how long to measure [default: 1]; 0 lists the live tasks' sites, without times",
}];

pub(super) const OF_MANY: &[Parameter] = &[
    Parameter { name: "interval_ms", meaning: "the time between two reports [default: 1000]" },
    Parameter { name: "count", meaning: "how many reports [default: until the caller goes]" },
    Parameter { name: "each", meaning: "true: each report is of the time since the one before" },
];

const JSON: &str = "application/json";
const JSON_LINES: &str = "application/x-ndjson";

/// One report.
pub(super) fn one(asked: &Asked<'_>) -> Result<Answer, Refusal> {
    let time = asked.seconds(1.0, &(0.0..=MOST_SECONDS))?;
    let running = Running::begin(asked)?;
    let measuring = Measuring::begin(asked)?;
    running.wait(time, asked.caller());
    Ok(Answer::bytes(JSON, (measuring.report().to_json() + "\n").into_bytes()))
}

/// A stream of reports, each of all the time since the first, or of the time since the one before. The first comes at once.
pub(super) fn many(asked: &Asked<'_>) -> Result<Answer, Refusal> {
    let interval = Duration::from_millis(asked.number("interval_ms", 1_000, &(10..=60_000))?);
    let left = asked.number("count", u64::MAX, &(1..=u64::MAX))?;
    let each = asked.flag("each", false)?;
    let running = Running::begin(asked)?;
    let measuring = Measuring::begin(asked)?;
    if each && measuring.is_of_a_task() {
        // A new session would not know the task's descendants, nor the task once it has ended.
        return Err(Refusal::bad("each is not possible with task"));
    }
    // Of no time, there is nothing to tell.
    let first = if each { interval } else { Duration::ZERO };
    let caller = asked.caller().clone();
    let next = Instant::now() + first;
    Ok(Answer::lines(JSON_LINES, Stream { measuring, each, interval, next, left, running, caller }))
}

/// The session ends when the caller's connection does, because the stream is dropped.
struct Stream {
    measuring: Measuring,
    each: bool,
    interval: Duration,
    next: Instant,
    left: u64,
    running: Running,
    caller: Caller,
}

impl Iterator for Stream {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        self.left = self.left.checked_sub(1)?;
        match self.running.wait_until(self.next, &self.caller) {
            Waited::Gone => return None,
            // The last report comes now.
            Waited::Stopped => self.left = 0,
            Waited::TimeIsUp => {}
        }
        let began = Instant::now();
        // The last one needs no other after it.
        let next = (self.each && self.left > 0).then(|| self.measuring.next_report()).flatten();
        let report = next.unwrap_or_else(|| {
            self.left = if self.each { 0 } else { self.left };
            self.measuring.report()
        });
        // A caller that reads slowly misses reports, and none comes late. Where a reading takes long, at least as much time is between two.
        self.next = (self.next + self.interval).max(Instant::now() + began.elapsed());
        let mut line = serde_json::to_vec(&report).ok()?;
        line.push(b'\n');
        Some(line)
    }
}
