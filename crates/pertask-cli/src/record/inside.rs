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
        .with("hz", &options.frequency.to_string());
    let ended = AtomicBool::new(false);
    let bytes = thread::scope(|scope| {
        scope.spawn(|| watch(agent, &id, asked, &ended));
        let bytes = agent.bytes(&question, time).map_err(|why| match agent.is_alive() {
            true => why,
            false => Error::Agent(
                "the process has ended, and its samples with it, which its agent had in its memory: record with --outside".to_owned(),
            ),
        });
        // Relaxed: nothing else depends on when it is seen.
        ended.store(true, Ordering::Relaxed);
        bytes
    })?;
    let place = "the agent's profile".to_owned();
    Profile::from_pprof(&*bytes).map_err(|cause| Error::Damaged { place, cause })
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
