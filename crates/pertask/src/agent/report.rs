//! Reports: one over some time, or a stream of them.

use super::asked::{Asked, Parameter, Refusal};
use super::limits::MOST_SECONDS;
use super::measure::Measuring;
use super::running::{Running, Waited};
use crate::{Error, Report};
use pertask_agent::{Answer, Caller};
use serde_json::json;
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
    Ok(Answer::lines(JSON_LINES, Stream::begin(asked)?))
}

/// The session ends when the caller's connection does, because the stream is dropped.
struct Stream {
    measuring: Measuring,
    each: bool,
    interval: Duration,
    next: Instant,
    left: u64,
    /// Why no report follows, which the last line says.
    why: Option<Error>,
    running: Running,
    caller: Caller,
}

impl Stream {
    fn begin(asked: &Asked<'_>) -> Result<Self, Refusal> {
        let interval = Duration::from_millis(asked.number("interval_ms", 1_000, &(10..=60_000))?);
        let left = asked.number("count", u64::MAX, &(1..=u64::MAX))?;
        let each = asked.flag("each", false)?;
        if each && asked.text("task").is_some() {
            // A new session would not know the task's descendants, nor the task once it has ended.
            return Err(Refusal::bad("each is not possible with task"));
        }
        let running = Running::begin(asked)?;
        let measuring = Measuring::begin(asked)?;
        // Of no time, there is nothing to tell.
        let first = if each { interval } else { Duration::ZERO };
        let caller = asked.caller().clone();
        let next = Instant::now() + first;
        Ok(Self { measuring, each, interval, next, left, why: None, running, caller })
    }

    fn report(&mut self) -> Report {
        // The last one needs no other after it.
        if !self.each || self.left == 0 {
            return self.measuring.report();
        }
        self.measuring.next_report().unwrap_or_else(|why| {
            (self.left, self.why) = (0, Some(why));
            self.measuring.report()
        })
    }
}

impl Iterator for Stream {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if let Some(why) = self.why.take() {
            return Some(format!("{}\n", json!({ "error": why.to_string() })).into_bytes());
        }
        self.left = self.left.checked_sub(1)?;
        match self.running.wait_until(self.next, &self.caller) {
            Waited::Gone => return None,
            // The last report comes now.
            Waited::Stopped => self.left = 0,
            Waited::TimeIsUp => {}
        }
        let began = Instant::now();
        let report = self.report();
        // A caller that reads slowly misses reports, and none comes late. Where a reading takes long, at least as much time is between two.
        self.next = (self.next + self.interval).max(Instant::now() + began.elapsed());
        let mut line = serde_json::to_vec(&report).ok()?;
        line.push(b'\n');
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pertask_agent::Request;

    #[test]
    fn the_last_line_says_why_no_report_follows() {
        let (caller, _presence) = Caller::elsewhere();
        let target = "/v1/live?each=true&interval_ms=10";
        let request = Request::new("GET", target, Vec::new(), &caller);
        let mut stream = Stream::begin(&Asked::of(&request, &[OF_MANY], false).unwrap()).unwrap();
        (stream.left, stream.why) = (0, Some(Error::CountersBusy { sets: 7 }));
        let line = String::from_utf8(stream.next().expect("a line")).unwrap();
        let told: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(told["error"].as_str().is_some_and(|why| why.contains('7')), "{line}");
        assert!(line.ends_with('\n') && stream.next().is_none());
    }
}
