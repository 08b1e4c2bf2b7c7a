//! A recording of the program from its launch, as `PERTASK=record,PATH` asks for it.
//!
//! A thread writes all samples so far, again and again, so that a program that is killed leaves nearly all of them. At the program's own end
//! it writes the rest.

use super::part::Part;
use super::setting::Wanted;
use crate::os::exit;
use crate::sampler::{RawProfile, Sampler, SamplerOptions};
use pertask_agent::leave_signals_to_the_program;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// When the file is first written.
const FIRST: Duration = Duration::from_secs(1);

/// The shortest time between two versions of the file.
const SHORTEST: Duration = Duration::from_secs(5);

/// How many times as long as writing takes, nothing is written: so writing takes 2 % of a CPU at most.
const REST: u32 = 50;

/// How long the end of the program waits for the last version of the file.
const PATIENCE: Duration = Duration::from_secs(10);

/// A recording that has begun.
#[derive(Clone, Debug)]
pub(super) struct Recording(Arc<State>);

#[derive(Debug)]
struct State {
    path: PathBuf,
    process: u32,
    phase: Mutex<Phase>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Sampling,
    /// The program ends.
    Ending,
    /// All has been written that could be.
    Ended,
}

/// The process's recording, for its end. There is one at most, because a forked child cannot sample.
static RECORDING: OnceLock<Recording> = OnceLock::new();

impl Recording {
    /// Begins to record.
    ///
    /// # Errors
    /// Returns why not.
    pub(super) fn start(wanted: &Wanted) -> Result<Self, String> {
        let cannot = |why: &dyn std::fmt::Display| format!("{}: {why}", wanted.path.display());
        // The program may change its directory.
        let path = std::path::absolute(&wanted.path).map_err(|why| cannot(&why))?;
        let part = Part::claim(&path).map_err(|why| cannot(&why))?;
        let options = SamplerOptions::with_frequency(wanted.frequency_hz);
        let sampler = Sampler::start(options).map_err(|why| cannot(&why))?;
        let (phase, process) = (Mutex::new(Phase::Sampling), std::process::id());
        let recording = Self(Arc::new(State { path, process, phase, changed: Condvar::new() }));
        let (writer, end) =
            (recording.clone(), wanted.time.and_then(|time| Instant::now().checked_add(time)));
        thread::Builder::new()
            .name("pertask-record".to_owned())
            .spawn(move || writer.run(sampler, part, end))
            .map_err(|why| cannot(&why))?;
        if RECORDING.set(recording.clone()).is_ok() {
            exit::at_exit(finish);
        }
        Ok(recording)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0.path
    }

    /// Samples until then, or until the program ends.
    fn run(&self, sampler: Sampler, part: Part, end: Option<Instant>) {
        // The end of the program waits for this, also if something panics. It comes after the part's own end.
        let _ended = Ended(self);
        let mut part = part;
        leave_signals_to_the_program();
        let (mut failed, mut pause) = (false, FIRST);
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if self.sleep(left.map_or(pause, |left| left.min(pause))) == Phase::Ending {
                break;
            }
            if end.is_some_and(|end| end <= Instant::now()) {
                break;
            }
            let begun = Instant::now();
            write(&mut part, &sampler.snapshot(), &mut failed);
            pause = SHORTEST.max(begun.elapsed().saturating_mul(REST));
        }
        write(&mut part, &sampler.stop(), &mut failed);
    }

    /// Sleeps for some time, or until the program ends.
    fn sleep(&self, time: Duration) -> Phase {
        let asleep = |phase: &mut Phase| *phase == Phase::Sampling;
        let waited = self.0.changed.wait_timeout_while(self.phase(), time, asleep);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.0.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self) {
        let mut phase = self.phase();
        if *phase == Phase::Sampling {
            *phase = Phase::Ending;
            self.0.changed.notify_all();
        }
        let unfinished = |phase: &mut Phase| *phase != Phase::Ended;
        let _ended = self.0.changed.wait_timeout_while(phase, PATIENCE, unfinished);
    }
}

/// Says at its drop that the recording has ended.
struct Ended<'a>(&'a Recording);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        *self.0.phase() = Phase::Ended;
        self.0.0.changed.notify_all();
    }
}

/// Writes the profile, and says what fails, once until it works again.
fn write(part: &mut Part, profile: &RawProfile, failed: &mut bool) {
    let written = part.replace(|out| profile.write_pprof_unresolved(out));
    if let (Err(why), false) = (&written, *failed) {
        // `eprintln` would end a program that has no stderr.
        let _ =
            writeln!(std::io::stderr(), "pertask: cannot write {}: {why}", part.path().display());
    }
    *failed = written.is_err();
}

/// Ends the recording before the program ends.
extern "C" fn finish() {
    // A forked child has the function, too, and not the thread.
    if let Some(recording) = RECORDING.get().filter(|it| it.0.process == std::process::id()) {
        recording.finish();
    }
}
