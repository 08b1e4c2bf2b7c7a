//! The collector thread, which turns the engine, and the tickets of the sessions.

use super::cannot_sample;
use super::engine::{Engine, TURN};
use super::modules::Changes;
use super::options::SamplerOptions;
use super::profile::RawProfile;
use super::record::Record;
use super::roster::Roster;
use super::signals;
use super::summons::{self, Summoner};
use super::way::Way;
use super::workers;
use crate::error::Error;
use crate::tasks::accounts;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError, mpsc};
use std::thread::JoinHandle;

static STATE: Mutex<State> = Mutex::new(State { engine: None, roster: Roster::new(), sessions: 0 });

/// The id of the process that has sampled, or 0.
static OWNER: AtomicU32 = AtomicU32::new(0);

struct State {
    /// The engine, while at least one session samples.
    engine: Option<Engine>,
    roster: Roster,
    /// The number of sessions that have begun.
    sessions: u64,
}

/// A session's place in the engine, until the session leaves it or the ticket is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    session: u64,
    process: u32,
    left: bool,
}

/// Makes this process the one whose threads are interrupted.
fn own() -> Result<(), String> {
    // A forked child has a copy of this state, but not its threads.
    let this = std::process::id();
    // Relaxed: the id refers to no other memory.
    let owner = OWNER.compare_exchange(0, this, Ordering::Relaxed, Ordering::Relaxed);
    match owner.is_err_and(|owner| owner != this) {
        true => Err("this process was forked from one that has sampled itself".to_owned()),
        false => Ok(()),
    }
}

/// Begins to summon threads. `Err` says why they cannot be.
pub(super) fn summoner() -> Result<Summoner, String> {
    own()?;
    let _state = lock();
    Summoner::new()
}

/// Calls `f` while no session begins or ends. `None` if one just does: that may take a while.
pub(super) fn undisturbed<T>(f: impl FnOnce() -> T) -> Option<T> {
    let _state = match STATE.try_lock() {
        Ok(state) => state,
        Err(TryLockError::Poisoned(state)) => state.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    Some(f())
}

/// Ends summoning threads, of which these may not have answered yet.
pub(super) fn dismiss(summoner: Summoner, threads: impl Iterator<Item = u32>) {
    let mut state = lock();
    let engine = state.engine.as_mut();
    let is_needed = engine.is_some_and(|engine| {
        engine.lift_shield();
        engine.arms.handles(summons::SIGNAL)
    });
    summoner.leave(is_needed, threads);
    if let Some(engine) = state.engine.as_mut() {
        engine.cover();
    }
}

/// Begins a session.
pub(super) fn join(options: SamplerOptions) -> Result<Ticket, Error> {
    own().map_err(|why| Error::CannotSample { refused: vec![why] })?;
    workers::watch();
    let changes = Changes::now();
    let mut state = lock();
    let State { engine, roster, sessions } = &mut *state;
    let engine = match engine {
        Some(engine) => engine,
        None => {
            engine.insert(Engine::start(&options, roster, changes, |trial| begin(&options, trial))?)
        }
    };
    if let Some(why) = engine.halted {
        let why = format!("{}: {why}; stop the earlier sessions first", engine.arms.way.mechanism);
        return Err(Error::CannotSample { refused: vec![why] });
    }
    *sessions += 1;
    engine.admit(*sessions, &options, roster);
    Ok(Ticket { session: *sessions, process: std::process::id(), left: false })
}

impl Ticket {
    /// Whether this is a forked child, which has neither the collector thread nor the events.
    pub(super) fn is_anothers(&self) -> bool {
        self.process != std::process::id()
    }

    /// The session's profile so far, or `None` in a forked child.
    pub(super) fn snapshot(&self) -> Option<RawProfile> {
        if self.left || self.is_anothers() {
            return None;
        }
        let changes = Changes::now();
        let mut state = lock();
        let State { engine, roster, .. } = &mut *state;
        engine.as_mut()?.snapshot(self.session, roster, changes)
    }

    /// Ends the session, and returns its profile, or `None` in a forked child and at a second call.
    pub(super) fn leave(&mut self) -> Option<RawProfile> {
        // In a forked child, a thread that the child does not have may hold the lock.
        if std::mem::replace(&mut self.left, true) || self.is_anothers() {
            return None;
        }
        let changes = Changes::now();
        let mut state = lock();
        let State { engine, roster, .. } = &mut *state;
        let current = engine.as_mut()?;
        let profile = current.dismiss(self.session, roster, changes);
        let collector = if current.sessions.is_empty() {
            // Whoever began first may end first: then the other's masks go, and come back.
            summons::lift_shield();
            let collector = engine.take().and_then(|engine| engine.stop(roster));
            summons::cover();
            collector
        } else {
            None
        };
        drop(state);
        if let Some(collector) = collector {
            collector.thread().unpark();
            // The collector has nothing left to do, and holds no lock.
            let _ = collector.join();
        }
        profile
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.leave();
    }
}

fn lock() -> MutexGuard<'static, State> {
    // Labels and waits are looked up under the lock, in maps that have a thread-local value with a destructor. The first use on a thread
    // takes the loader's lock, and who loads or unloads a library may wait for ours with it.
    let _ = accounts::can_look_up();
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the collector thread, and waits until it has found a way to interrupt threads.
fn begin(options: &SamplerOptions, trial: &'static Record) -> Result<(Way, JoinHandle<()>), Error> {
    let (tell, told) = mpsc::channel();
    let asked = options.clone();
    let collector = std::thread::Builder::new()
        .name("pertask-sampler".to_owned())
        .spawn(move || collect(&tell, &asked, trial))
        .map_err(|why| cannot_sample(&why))?;
    match told.recv().map_err(|why| cannot_sample(&why)).and_then(|way| way) {
        Ok(way) => Ok((way, collector)),
        Err(refused) => {
            // The collector ends without the state's lock, which this thread holds.
            let _ = collector.join();
            Err(refused)
        }
    }
}

/// The collector thread: it first tries to interrupt itself, and then turns the engine until the last session stops.
fn collect(
    told: &mpsc::Sender<Result<Way, Error>>,
    options: &SamplerOptions,
    trial: &'static Record,
) {
    signals::block_all_but_faults();
    let way = Way::find(options, trial);
    let works = way.is_ok();
    if told.send(way).is_err() || !works {
        return;
    }
    let mut turn = TURN;
    loop {
        std::thread::park_timeout(turn);
        let changes = Changes::now();
        let mut state = lock();
        let State { engine, roster, .. } = &mut *state;
        let this = std::thread::current().id();
        let own = |engine: &&mut Engine| {
            engine.collector.as_ref().is_some_and(|collector| collector.thread().id() == this)
        };
        let Some(engine) = engine.as_mut().filter(own) else { return };
        engine.turn(roster, changes);
        turn = engine.turn_time();
    }
}
