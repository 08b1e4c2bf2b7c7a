//! The paths of Go's `net/http/pprof`, which `go tool pprof` and continuous profilers know.

use super::asked::{Asked, Parameter, Refusal};
use super::limits::MOST_SECONDS;
use super::measure::Measuring;
use super::profile::{ALLOCATIONS, Wanted};
use super::running::Running;
use crate::sampler::SamplerOptions;
use crate::sessions::MemorySource;
use pertask_agent::Answer;

/// What is where.
const INDEX: &str = "\
/debug/pprof/

profile?seconds=30&hz=199   where the CPU time goes, by task: gzip'd pprof
                            go tool pprof 'http://HOST:PORT/debug/pprof/profile?seconds=10'
profile?waits=true          the same, and where tasks wait and how long: waiting, waits, ready, blocked
                            go tool pprof -sample_index=waiting 'http://HOST:PORT/debug/pprof/profile?seconds=10&waits=true'
allocs?seconds=10           where tasks allocate in that time, if the program has pertask::Alloc: gzip'd pprof
                            go tool pprof 'http://HOST:PORT/debug/pprof/allocs?seconds=10'
tasks?seconds=1             CPU time, polls and longest polls by spawn site; text, or JSON with format=json

There is no heap, block, mutex, goroutine or trace: pertask makes no such profiles.
";

pub(super) const OF_PROFILE: &[Parameter] = &[
    Parameter { name: "seconds", meaning: "how long to sample [default: 30]" },
    Parameter {
        name: "hz",
        meaning: "samples for each second of a thread's CPU time [default: 199]",
    },
    Parameter {
        name: "waits",
        meaning: "true: also see where tasks wait, and how long: waiting, waits, ready, blocked [default: false]",
    },
    ALLOCATIONS,
];

pub(super) const OF_ALLOCS: &[Parameter] =
    &[Parameter { name: "seconds", meaning: "how long to sample; it must be there" }];

pub(super) const OF_TASKS: &[Parameter] = &[
    Parameter { name: "seconds", meaning: "how long to measure [default: 1]" },
    Parameter { name: "format", meaning: "text or json [default: text]" },
];

pub(super) fn index(_: &Asked<'_>) -> Result<Answer, Refusal> {
    Ok(Answer::text(INDEX.to_owned()))
}

/// A profile with the names of functions, as these tools want it.
pub(super) fn profile(asked: &Asked<'_>) -> Result<Answer, Refusal> {
    let default_hz = SamplerOptions::default().frequency_hz;
    let wanted = Wanted {
        time: asked.seconds(30.0, &(0.001..=MOST_SECONDS))?,
        frequency_hz: asked.number("hz", default_hz, &(1..=SamplerOptions::HIGHEST_HZ))?,
        waits: asked.flag("waits", false)?,
        allocations: asked.flag("allocations", false)?,
        only_allocations: false,
        resolved: true,
    };
    wanted.get(asked)
}

/// Where tasks allocate, as Go's `allocs` says it of a program; here of some seconds, for which it must be asked: Go's tools and continuous
/// profilers that ask for no time expect an answer at once, of all the time before.
pub(super) fn allocs(asked: &Asked<'_>) -> Result<Answer, Refusal> {
    if asked.text("seconds").is_none() {
        let why = "seconds is missing: what tasks have allocated so far nobody has looked at";
        return Err(Refusal::bad(why));
    }
    if let Some(why) = MemorySource::open(true)?.refused() {
        return Err(Refusal::new(503, why));
    }
    let wanted = Wanted {
        time: asked.seconds(30.0, &(0.001..=MOST_SECONDS))?,
        // These have no part in it.
        frequency_hz: 1,
        waits: false,
        allocations: true,
        only_allocations: true,
        resolved: true,
    };
    wanted.get(asked)
}

/// A report.
pub(super) fn tasks(asked: &Asked<'_>) -> Result<Answer, Refusal> {
    let time = asked.seconds(1.0, &(0.0..=MOST_SECONDS))?;
    let in_json = match asked.text("format") {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => {
            return Err(Refusal::bad(format!("format is {other:?}, and not text or json")));
        }
    };
    let running = Running::begin(asked)?;
    let measuring = Measuring::begin(asked)?;
    running.wait(time, asked.caller());
    let report = measuring.report();
    Ok(match in_json {
        true => Answer::json(report.to_json() + "\n"),
        false => Answer::text(report.to_string()),
    })
}
