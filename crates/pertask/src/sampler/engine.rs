//! The one sampler of the process, for all sessions: which threads are interrupted, and the collector thread that finds them,
//! and empties their rings.

use super::SamplerOptions;
use super::disposition;
use super::handler::{self, HEAD, MOST_WORDS};
use super::mechanism::{Mechanism, Source};
use super::modules::{Changes, Module, Modules};
use super::profile::RawProfile;
use super::record::{Record, Replaced};
use super::ring::Ring;
use super::roster::{Birth, Roster};
use super::session::{Drained, Session};
use super::signals;
use super::stacks::Stacks;
use super::workers;
use crate::clock;
use crate::error::Error;
use pertask_core::System;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How often rings are emptied and new threads sought, at most: each turn wakes a thread and looks into `/proc`.
const TURN: Duration = Duration::from_millis(10);

/// And at least.
const LONGEST_TURN: Duration = Duration::from_millis(100);

/// So many samples of a busy thread are left to collect at once. Rings of the usual size have room for four times as many.
const SAMPLES_A_TURN: u32 = 25;

/// How much longer than a search for threads the wait for the next is, at least.
const REST: u32 = 50;

/// And at most, if there are as many threads as there were: one may have ended and another begun.
const LONGEST_REST: u32 = 100;

/// How long a stop waits for signals that are under way.
const PATIENCE: Duration = Duration::from_millis(250);

/// Why a way gives no stacks.
const ALTERNATE: &str = "the program's own handler of its signal wants an alternate stack, from which no other is walked";

static STATE: Mutex<State> = Mutex::new(State { engine: None, roster: Roster::new(), sessions: 0 });

/// The process that has been sampled, or 0.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Whether a thread has begun that runs tasks.
static SEARCH_NOW: AtomicBool = AtomicBool::new(false);

/// Whom to wake then. Held for a moment, and with no other lock inside.
static COLLECTOR: Mutex<Option<Thread>> = Mutex::new(None);

struct State {
    /// `Some` while anybody samples.
    engine: Option<Engine>,
    roster: Roster,
    /// How many sessions there have been.
    sessions: u64,
}

/// A session's place in the engine, until it is left or dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    session: u64,
    process: u32,
    left: bool,
}

struct Engine {
    way: Way,
    period_ns: u64,
    ring_bytes: usize,
    /// When it began.
    since: Birth,
    threads: BTreeMap<u32, Sampled>,
    /// Threads that could not be armed, so as not to try again each time.
    refused: BTreeSet<u32>,
    modules: Modules,
    replaced: Replaced,
    /// All modules there have been, while it samples.
    seen: Vec<Module>,
    sessions: Vec<Session>,
    /// Why no thread is interrupted any more.
    halted: Option<&'static str>,
    turns: u64,
    /// When threads are sought again.
    next_search: NextSearch,
    words: Vec<u64>,
    collector: Option<JoinHandle<()>>,
}

/// When threads are sought again.
#[derive(Clone, Copy)]
struct NextSearch {
    earliest: Instant,
    latest: Instant,
    /// How many threads there were at the last.
    threads: u64,
}

/// What interrupts the threads.
struct Way {
    mechanism: Mechanism,
    signal: i32,
    /// Whether it does so on an alternate stack.
    stackless: bool,
    /// Why nothing better does.
    refused: Vec<String>,
}

struct Sampled {
    record: &'static Record,
    birth: Birth,
    source: Source,
    /// The thread's CPU time at its last sample, or when it was found.
    cpu_ns: u64,
    /// What of the record's counts has been told to the sessions.
    told: Told,
}

#[derive(Clone, Copy, Default)]
struct Told {
    dropped: u64,
    nested: u64,
    no_room: u64,
}

impl NextSearch {
    fn after(start: Instant, took: Duration, threads: u64) -> Self {
        let rest = took.max(TURN / REST);
        Self { earliest: start + rest * REST, latest: start + rest * LONGEST_REST, threads }
    }

    fn is_due(&self, now: Instant, threads: u64) -> bool {
        now >= self.latest || now >= self.earliest && threads != self.threads
    }
}

impl Told {
    fn of(record: &Record) -> Self {
        Self { dropped: record.ring.dropped(), nested: record.nested(), no_room: record.no_room() }
    }
}

/// Wakes the collector, if there is one, to look for threads now.
pub(super) fn search_soon() {
    // Relaxed: at worst the next search is as soon as it would have been.
    SEARCH_NOW.store(true, Ordering::Relaxed);
    // Not waited for: in a forked child it may be locked for ever. Who else holds it wakes the collector, or begins or ends it.
    if let Ok(Some(collector)) = COLLECTOR.try_lock().as_deref() {
        collector.unpark();
    }
}

/// Begins a session.
pub(super) fn join(options: SamplerOptions) -> Result<Ticket, Error> {
    // A forked child has all of this but the threads.
    let this = std::process::id();
    // Relaxed: a process writes its own number, and only to look at it itself.
    let owner = OWNER.compare_exchange(0, this, Ordering::Relaxed, Ordering::Relaxed);
    if owner.is_err_and(|owner| owner != this) {
        let why = "the process was forked from one that has been sampled".to_owned();
        return Err(Error::CannotSample { refused: vec![why] });
    }
    workers::watch();
    let changes = Changes::now();
    let mut state = lock();
    let State { engine, roster, sessions } = &mut *state;
    let engine = match engine {
        Some(engine) => engine,
        None => engine.insert(Engine::start(&options, roster, changes)?),
    };
    if let Some(why) = engine.halted {
        let why =
            format!("{}: {why}; until the sessions of then are stopped", engine.way.mechanism);
        return Err(Error::CannotSample { refused: vec![why] });
    }
    *sessions += 1;
    engine.admit(*sessions, &options, roster);
    Ok(Ticket { session: *sessions, process: std::process::id(), left: false })
}

impl Ticket {
    /// Whether this is a forked child, which has neither the collector nor the events.
    pub(super) fn is_anothers(&self) -> bool {
        self.process != std::process::id()
    }

    /// What was seen. `None` in a forked child, and the second time.
    pub(super) fn leave(&mut self) -> Option<RawProfile> {
        // In a forked child the lock may be held by a thread that is not there.
        if std::mem::replace(&mut self.left, true) || self.is_anothers() {
            return None;
        }
        let changes = Changes::now();
        let mut state = lock();
        let State { engine, roster, .. } = &mut *state;
        let current = engine.as_mut()?;
        let profile = current.dismiss(self.session, roster, changes);
        let collector = if current.sessions.is_empty() {
            engine.take().and_then(|engine| engine.stop(roster))
        } else {
            None
        };
        drop(state);
        if let Some(collector) = collector {
            collector.thread().unpark();
            // It has nothing left to do, and holds nothing.
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

fn set_collector(collector: Option<Thread>) {
    *COLLECTOR.lock().unwrap_or_else(PoisonError::into_inner) = collector;
}

fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The collector thread, from its first attempt to interrupt itself until nobody samples any more.
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

impl Way {
    /// The best that is seen to interrupt the calling thread.
    fn find(options: &SamplerOptions, trial: &'static Record) -> Result<Self, Error> {
        let mut refused = Vec::new();
        let wanted = |way: &Mechanism| options.mechanism.is_none_or(|only| only == *way);
        // A handler on an alternate stack sees where its thread is, and not how it came there.
        let (stackless, others): (Vec<_>, Vec<_>) = Mechanism::ALL
            .into_iter()
            .filter(wanted)
            .partition(|way| disposition::wants_alternate_stack(way.signal()));
        for mechanism in others.into_iter().chain(stackless.iter().copied()) {
            match Self::try_out(mechanism, trial) {
                Ok(signal) => {
                    let better = Mechanism::ALL.into_iter().take_while(|it| *it != mechanism);
                    let better = better.filter(|it| stackless.contains(it));
                    refused.extend(better.map(|it| format!("{it}: {ALTERNATE}")));
                    let stackless = stackless.contains(&mechanism);
                    return Ok(Self { mechanism, signal, refused, stackless });
                }
                Err(why) => refused.push(format!("{mechanism}: {why}")),
            }
        }
        Err(Error::CannotSample { refused })
    }

    /// Lets it interrupt the calling thread. Returns its signal, whose handler stays.
    fn try_out(mechanism: Mechanism, trial: &'static Record) -> Result<i32, String> {
        const PERIOD_NS: u64 = 100_000;
        if let Some(why) = mechanism.forbidden() {
            return Err(why);
        }
        let signal = mechanism.signal();
        // It stays from a session before if a signal of that one may come yet.
        let stays = disposition::is_ours(signal, handler::on_signal);
        disposition::install(signal, handler::on_signal).map_err(|why| why.to_string())?;
        signals::unblock(signal);
        let came = mechanism.try_on_this_thread(trial, PERIOD_NS, signal);
        if came.is_err() && !stays {
            // Nothing was asked for but for this thread.
            withdraw(signal, std::iter::empty());
        }
        came.map(|()| signal)
    }

    fn describe(&self, period_ns: u64) -> String {
        let hertz = 1_000_000_000 / period_ns.max(1);
        let mut text = format!("{}, {hertz} Hz ({})", self.mechanism, self.mechanism.blindness());
        if self.stackless {
            text += "; no stacks, as ";
            text += ALTERNATE;
        }
        for why in &self.refused {
            text += "; not ";
            text += why;
        }
        text
    }
}

/// Takes our handler away, when nothing of ours is under way any more. If something stays under way, on a thread that
/// blocks the signal, the handler stays: to it, that signal is harmless.
fn withdraw(signal: i32, threads: impl Iterator<Item = u32>) {
    if signals::settle(signal, threads, PATIENCE) {
        handler::forget_closed(signal);
        disposition::restore(signal, handler::on_signal);
    }
}

impl Engine {
    fn start(
        options: &SamplerOptions,
        roster: &mut Roster,
        changes: Changes,
    ) -> Result<Self, Error> {
        let cannot =
            |why: &dyn std::fmt::Display| Error::CannotSample { refused: vec![why.to_string()] };
        let modules = Modules::read(changes).map_err(|why| cannot(&why))?;
        let mut replaced = Replaced::default();
        replaced.publish(modules.unwinder());
        let ring_bytes = options.ring_bytes.max(Ring::bytes_for(MOST_WORDS));
        roster.sweep();
        let trial = roster.trial().ok_or_else(|| cannot(&"too many threads are sampled"))?;
        let (tell, told) = mpsc::channel();
        let asked = options.clone();
        let collector = std::thread::Builder::new()
            .name("pertask-sampler".to_owned())
            .spawn(move || collect(&tell, &asked, trial))
            .map_err(|why| cannot(&why))?;
        let way = match told.recv().map_err(|why| cannot(&why)).and_then(|way| way) {
            Ok(way) => way,
            Err(refused) => {
                // It ends without a look at the state, which is locked now.
                let _ = collector.join();
                return Err(refused);
            }
        };
        set_collector(Some(collector.thread().clone()));
        Ok(Self {
            period_ns: way.mechanism.period_ns(options.frequency_hz),
            way,
            ring_bytes,
            since: Birth::now(),
            threads: BTreeMap::new(),
            refused: BTreeSet::new(),
            seen: modules.list().cloned().collect(),
            modules,
            replaced,
            sessions: Vec::new(),
            halted: None,
            turns: 0,
            next_search: NextSearch::after(Instant::now(), Duration::ZERO, 0),
            words: Vec::new(),
            collector: Some(collector),
        })
    }

    fn admit(&mut self, number: u64, options: &SamplerOptions, roster: &mut Roster) {
        // What came before is not the new session's.
        self.drain();
        let first = self.sessions.is_empty();
        if !first {
            // What threads have used that are found now is the sessions' that were here before.
            self.search(roster, false);
        }
        self.sessions.push(Session::new(number, options));
        self.set_rate();
        if first {
            self.search(roster, true);
        }
        let threads: Vec<_> = self.threads.keys().copied().collect();
        if let Some(session) = self.sessions.last_mut() {
            session.note_starts(&threads);
        }
    }

    fn dismiss(
        &mut self,
        number: u64,
        roster: &mut Roster,
        changes: Changes,
    ) -> Option<RawProfile> {
        self.turn(roster, changes);
        let at = self.sessions.iter().position(|session| session.number == number)?;
        let mut session = self.sessions.swap_remove(at);
        let deaf = signals::that_block(self.way.signal, self.threads.keys().copied());
        session.lost.threads_not_sampled += deaf + self.refused.len() as u64;
        let mut mechanism = self.way.describe(self.period_ns);
        if let Some(why) = self.halted {
            mechanism = format!("{mechanism}; {why}");
        }
        let profile =
            session.finish(mechanism, self.halted.is_some(), self.period_ns, self.seen.clone());
        if !self.sessions.is_empty() {
            self.set_rate();
        }
        Some(profile)
    }

    fn stop(mut self, roster: &mut Roster) -> Option<JoinHandle<()>> {
        let collector = self.collector.take();
        set_collector(None);
        self.disarm(roster);
        withdraw(self.way.signal, roster.threads());
        self.replaced.free_unused();
        collector
    }

    fn disarm(&mut self, roster: &mut Roster) {
        self.drain();
        for (thread, sampled) in std::mem::take(&mut self.threads) {
            drop(sampled.source);
            roster.keep(thread, sampled.birth, sampled.record);
        }
    }

    /// Interrupts nobody any more if that would harm the program.
    fn look_for_trouble(&mut self, roster: &mut Roster) {
        const SELDOM: u64 = 8;
        self.turns += 1;
        let seldom = self.turns.is_multiple_of(SELDOM);
        let Way { mechanism, signal, .. } = self.way;
        if self.halted.is_none() {
            self.halted = mechanism.disturbed(signal, seldom);
            if self.halted.is_some() {
                self.disarm(roster);
            }
        }
    }

    /// How long the collector waits for its next turn. It is woken when the rate changes.
    fn turn_time(&self) -> Duration {
        (Duration::from_nanos(self.period_ns) * SAMPLES_A_TURN).clamp(TURN, LONGEST_TURN)
    }

    /// What the collector does each time.
    fn turn(&mut self, roster: &mut Roster, changes: Changes) {
        self.look_for_trouble(roster);
        if self.modules.refresh(changes) {
            self.replaced.publish(self.modules.unwinder());
            let new: Vec<_> =
                self.modules.list().filter(|module| !self.seen.contains(module)).cloned().collect();
            self.seen.extend(new);
        }
        self.replaced.free_unused();
        let (start, threads) = (Instant::now(), crate::threads::count());
        // Relaxed: see `search_soon`.
        if SEARCH_NOW.swap(false, Ordering::Relaxed) || self.next_search.is_due(start, threads) {
            let took = self.search(roster, false);
            self.next_search = NextSearch::after(start, took, threads);
        }
        self.drain();
    }

    /// The rate that the most demanding session wants.
    fn set_rate(&mut self) {
        let highest = self.sessions.iter().map(|session| session.frequency_hz).max().unwrap_or(1);
        let highest = highest.min(SamplerOptions::HIGHEST_HZ);
        let period_ns = self.way.mechanism.period_ns(highest);
        if period_ns == self.period_ns {
            return;
        }
        self.period_ns = period_ns;
        if let Some(collector) = &self.collector {
            collector.thread().unpark();
        }
        let Way { mechanism, signal, .. } = self.way;
        for (thread, sampled) in &mut self.threads {
            // What ends before the new one begins keeps its place, and its thread's time goes on.
            if let Ok(source) = mechanism.arm(sampled.record, *thread, period_ns, signal) {
                sampled.source = source;
            }
        }
    }

    /// Finds threads that have come, have gone, or have begun to run tasks.
    /// Returns how long it took to look, without what new threads took.
    fn search(&mut self, roster: &mut Roster, first: bool) -> Duration {
        if self.halted.is_some() {
            return Duration::ZERO;
        }
        let start = Instant::now();
        let numbers: BTreeSet<u32> = crate::threads::numbers().into_iter().collect();
        let took = start.elapsed();
        // The process is short of descriptors, and knows nothing.
        if numbers.is_empty() {
            return took;
        }
        self.bury(&numbers, roster);
        let known =
            |thread: &u32| self.threads.contains_key(thread) || self.refused.contains(thread);
        let new: Vec<u32> = numbers.iter().copied().filter(|thread| !known(thread)).collect();
        if !new.is_empty() {
            let stacks = Stacks::read();
            new.into_iter().for_each(|thread| self.arm(thread, &stacks, roster, first));
        }
        System::global().for_each_cpu(|cpu| {
            if let Some(sampled) = cpu.thread().and_then(|thread| self.threads.get(&thread)) {
                sampled.record.set_cpu(cpu);
            }
        });
        took
    }

    fn bury(&mut self, alive: &BTreeSet<u32>, roster: &mut Roster) {
        // The list may have skipped it: only its own file says that it has ended.
        let gone = |(thread, sampled): &(&u32, &Sampled)| {
            !alive.contains(thread) && sampled.birth.has_ended(**thread)
        };
        let ended: Vec<u32> = self.threads.iter().filter(gone).map(|(thread, _)| *thread).collect();
        for thread in ended {
            self.drain_thread(thread);
            if let Some(Sampled { record, source, .. }) = self.threads.remove(&thread) {
                drop(source);
                roster.free(record);
            }
        }
        self.refused.retain(|thread| alive.contains(thread));
    }

    fn arm(&mut self, thread: u32, stacks: &Stacks, roster: &mut Roster, first: bool) {
        let Some(birth) = Birth::of(thread) else { return };
        let stack = stacks.of(thread);
        let mappings = Arc::clone(&stacks.mappings);
        let Some(record) = roster.record(thread, birth, self.ring_bytes, stack, mappings) else {
            self.refused.insert(thread);
            return;
        };
        // What is left there is from before.
        while record.ring.read(&mut self.words) {}
        let told = Told::of(record);
        // A thread that has come since begins at zero: nothing of its time is anybody else's. One that is older was passed over
        // by the first list: nobody knows what it has used since.
        let has_come = !first && birth >= self.since;
        let cpu_ns = if has_come { Some(0) } else { clock::cpu_ns_of_thread(thread) };
        let Way { mechanism, signal, .. } = self.way;
        match mechanism.arm(record, thread, self.period_ns, signal) {
            Ok(source) => {
                let cpu_ns = cpu_ns.unwrap_or(0);
                self.threads.insert(thread, Sampled { record, birth, source, cpu_ns, told });
                if has_come {
                    self.note_unseen(thread);
                }
            }
            Err(_) => {
                roster.keep(thread, birth, record);
                // It may have ended meanwhile.
                if !birth.has_ended(thread) {
                    self.refused.insert(thread);
                }
            }
        }
    }

    /// What a thread has used before it was found is its own, but nobody knows where: a sample without a stack.
    fn note_unseen(&mut self, thread: u32) {
        let Some(sampled) = self.threads.get_mut(&thread) else { return };
        let Some(cpu_ns) = clock::cpu_ns_of_thread(thread) else { return };
        let mut words = [0; HEAD];
        (words[1], words[2]) = (clock::monotonic_ns(), cpu_ns);
        let drained = Drained { thread, last_cpu_ns: sampled.cpu_ns, words: &words };
        // What began later has nothing of it that came before.
        let since_then = self.sessions.iter_mut().filter(|session| session.since <= sampled.birth);
        since_then.for_each(|session| session.add(&drained));
        sampled.cpu_ns = cpu_ns;
    }

    fn drain(&mut self) {
        let threads: Vec<u32> = self.threads.keys().copied().collect();
        threads.into_iter().for_each(|thread| self.drain_thread(thread));
    }

    fn drain_thread(&mut self, thread: u32) {
        let Some(sampled) = self.threads.get_mut(&thread) else { return };
        // No further: who empties his own ring, and takes longer for a sample than till the next, would never end.
        let end = sampled.record.ring.end();
        while sampled.record.ring.read_before(end, &mut self.words) {
            let drained = Drained { thread, last_cpu_ns: sampled.cpu_ns, words: &self.words };
            // One from before the thread was found came late.
            if drained.words.len() < HEAD || drained.thread_cpu_ns() < sampled.cpu_ns {
                continue;
            }
            self.sessions.iter_mut().for_each(|session| session.add(&drained));
            sampled.cpu_ns = drained.thread_cpu_ns();
        }
        let now = Told::of(sampled.record);
        let told = std::mem::replace(&mut sampled.told, now);
        for session in &mut self.sessions {
            session.lost.dropped_ring_full += now.dropped - told.dropped;
            session.lost.dropped_nested += now.nested - told.nested;
            session.lost.dropped_stack_full += now.no_room - told.no_room;
        }
    }
}
