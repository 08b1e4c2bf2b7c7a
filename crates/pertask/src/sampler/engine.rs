//! The one sampler of the process, for all sessions: which threads are interrupted, where their rings are emptied to. It is
//! the collector's to turn.

use super::bell;
use super::cannot_sample;
use super::handler::{HEAD, MOST_WORDS};
use super::mechanism::Source;
use super::modules::{Changes, Modules};
use super::next_search::NextSearch;
use super::options::SamplerOptions;
use super::profile::RawProfile;
use super::record::{Record, Replaced};
use super::ring::Ring;
use super::roster::{Birth, Roster};
use super::session::{Drained, Session};
use super::signals;
use super::stacks::Stacks;
use super::way::{Way, withdraw};
use crate::error::Error;
use crate::os::clock;
use pertask_core::System;
use pertask_symbols::Module;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often rings are emptied and new threads sought, at most: each turn wakes a thread and looks into `/proc`.
pub(super) const TURN: Duration = Duration::from_millis(10);

/// And at least.
const LONGEST_TURN: Duration = Duration::from_millis(100);

/// So many samples of a busy thread are left to collect at once. Rings of the usual size have room for four times as many.
const SAMPLES_A_TURN: u32 = 25;

/// Interrupts the process's threads, and hands what they tell to the sessions.
pub(super) struct Engine {
    pub(super) way: Way,
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
    pub(super) sessions: Vec<Session>,
    /// Why no thread is interrupted any more.
    pub(super) halted: Option<&'static str>,
    turns: u64,
    /// When threads are sought again.
    next_search: NextSearch,
    words: Vec<u64>,
    pub(super) collector: Option<JoinHandle<()>>,
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

impl Told {
    fn of(record: &Record) -> Self {
        Self { dropped: record.ring.dropped(), nested: record.nested(), no_room: record.no_room() }
    }
}

impl Engine {
    /// `collector` begins the collector thread, which finds the way by interrupting itself.
    pub(super) fn start(
        options: &SamplerOptions,
        roster: &mut Roster,
        changes: Changes,
        collector: impl FnOnce(&'static Record) -> Result<(Way, JoinHandle<()>), Error>,
    ) -> Result<Self, Error> {
        let modules = Modules::read(changes).map_err(|why| cannot_sample(&why))?;
        let mut replaced = Replaced::default();
        replaced.publish(modules.unwinder());
        let ring_bytes = options.ring_bytes.max(Ring::bytes_for(MOST_WORDS));
        roster.sweep();
        let trial = roster.trial().ok_or_else(|| cannot_sample(&"too many threads are sampled"))?;
        let (way, collector) = collector(trial)?;
        bell::hang_at(Some(collector.thread().clone()));
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

    pub(super) fn admit(&mut self, number: u64, options: &SamplerOptions, roster: &mut Roster) {
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

    pub(super) fn dismiss(
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

    pub(super) fn stop(mut self, roster: &mut Roster) -> Option<JoinHandle<()>> {
        let collector = self.collector.take();
        bell::hang_at(None);
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
    pub(super) fn turn_time(&self) -> Duration {
        (Duration::from_nanos(self.period_ns) * SAMPLES_A_TURN).clamp(TURN, LONGEST_TURN)
    }

    /// What the collector does each time.
    pub(super) fn turn(&mut self, roster: &mut Roster, changes: Changes) {
        self.look_for_trouble(roster);
        if self.modules.refresh(changes) {
            self.replaced.publish(self.modules.unwinder());
            let new: Vec<_> =
                self.modules.list().filter(|module| !self.seen.contains(module)).cloned().collect();
            self.seen.extend(new);
        }
        self.replaced.free_unused();
        let (start, threads) = (Instant::now(), crate::os::threads::count());
        if bell::was_rung() || self.next_search.is_due(start, threads) {
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
        let numbers: BTreeSet<u32> = crate::os::threads::numbers().into_iter().collect();
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
