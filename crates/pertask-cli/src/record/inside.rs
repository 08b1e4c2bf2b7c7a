//! Recording by a program's own agent: its samples have the names, labels and scopes of tasks, and their exact times.

use std::{
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
    thread,
    time::{Duration, Instant},
};

use pertask::profile::Profile;

use super::{NOT_ASKED, RecordOptions, TURN};
use crate::{
    agent::{Agent, Question},
    error::Error,
    output::note,
    progress::Progress,
};

/// The longest recording. An agent keeps a profile's samples until the end.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Records until the time is over or the user asks to stop.
pub fn profile(
    agent: &Agent,
    options: &RecordOptions,
    asked: &AtomicI32,
) -> Result<Profile, Error> {
    let id = Agent::id("record");
    let time = options.duration.unwrap_or(LONGEST).min(LONGEST);
    let question = Question::new("/v1/profile")
        .with("id", &id)
        .with("seconds", &time.as_secs_f64().to_string())
        .with("hz", &options.frequency.to_string())
        .with_flag("waits", options.waits)
        .with_flag("allocations", options.allocations);
    let ended = AtomicBool::new(false);
    let bytes = thread::scope(|scope| {
        scope.spawn(|| watch(agent, &id, asked, &ended));
        let kept = scope.spawn(|| keep(agent, &id, &ended));
        let answer = agent.bytes(&question, time);
        // Relaxed: nothing else depends on when it is seen.
        ended.store(true, Ordering::Relaxed);
        let kept = kept.join().unwrap_or_default();
        answer.or_else(|why| match agent.is_alive() {
            true => Err(why),
            false => Kept::into_bytes(kept),
        })
    })?;
    let place = "the agent's profile".to_owned();
    Profile::from_pprof(&*bytes).map_err(|cause| Error::Damaged { place, cause })
}

/// What the agent had so far, for the case that the process ends.
struct Kept {
    bytes: Vec<u8>,
    at: Instant,
}

impl Kept {
    fn into_bytes(kept: Option<Self>) -> Result<Vec<u8>, Error> {
        let Some(Self { bytes, at }) = kept else {
            let why = "the process has ended, and its samples with it, which its agent had in its memory: record with --outside";
            return Err(Error::Agent(why.to_owned()));
        };
        let lost = at.elapsed().as_secs_f64();
        note(format_args!("the process has ended: the samples of its last {lost:.1} s are lost"));
        Ok(bytes)
    }
}

/// Asks for the samples so far, again and again until the recording has `ended`, and returns the last ones.
fn keep(agent: &Agent, id: &str, ended: &AtomicBool) -> Option<Kept> {
    const FIRST: Duration = Duration::from_secs(1);
    const SHORTEST: Duration = Duration::from_secs(5);
    // The service pays for each answer: 2 % of a CPU at most.
    const REST: u32 = 50;
    let question = Question::new("/v1/profile/so_far").with("id", id);
    let (mut kept, mut next) = (None, Instant::now() + FIRST);
    // Relaxed: nothing else depends on when it is seen.
    while !ended.load(Ordering::Relaxed) {
        if Instant::now() < next {
            thread::sleep(TURN);
            continue;
        }
        let at = Instant::now();
        // Its sampling may not have begun, or have ended; and older agents do not know the question.
        if let Ok(bytes) = agent.bytes(&question, Duration::ZERO) {
            kept = Some(Kept { bytes, at });
        }
        next = Instant::now() + SHORTEST.max(at.elapsed().saturating_mul(REST));
    }
    kept
}

/// Shows how long it has taken, and ends the recording when the user asks to stop, unless it has `ended` before.
fn watch(agent: &Agent, id: &str, asked: &AtomicI32, ended: &AtomicBool) {
    let (began, mut progress) = (Instant::now(), Progress::new());
    // Relaxed: nothing else depends on when they are seen.
    while !ended.load(Ordering::Relaxed) {
        if asked.load(Ordering::Relaxed) != NOT_ASKED {
            // It may have begun only now, or have no place for this caller: then it is asked again.
            let _ = agent.stop(id);
        }
        if progress.is_visible() {
            progress.draw(&format!("{:.1}s", began.elapsed().as_secs_f64()));
        }
        thread::sleep(TURN);
    }
}
