//! The engine: the one sampler of the process, for all sessions. It arms threads, empties their rings, and hands the samples to
//! the sessions. The collector thread turns it.

use super::arms::{Armed, Arms};
use super::bell;
use super::cannot_sample;
use super::census::Census;
use super::handler::{ALLOCATION, HEAD, LATE, MOST_WORDS, WAIT};
use super::modules::{Changes, Modules};
use super::next_search::NextSearch;
use super::options::SamplerOptions;
use super::profile::RawProfile;
use super::record::{MOST, Record};
use super::ring::Ring;
use super::roster::Roster;
use super::sampled::{Sampled, Told};
use super::session::{Drained, Session};
use super::shield::Shield;
use super::stat::{Birth, Stat};
use super::walker::Walkers;
use super::way::Way;
use crate::error::Error;
use crate::os::clock;
use pertask_core::System;
use pertask_symbols::Module;
use std::collections::{BTreeMap, BTreeSet};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The shortest turn. Each turn wakes the collector, empties rings, and looks into `/proc` for new threads.
pub(super) const TURN: Duration = Duration::from_millis(10);

/// The longest turn.
const LONGEST_TURN: Duration = Duration::from_millis(100);

/// The longest turn while waits or allocations are sampled. Half of a ring of the default size then has room for the waits of a thread, and
/// for some gigabyte a second of small allocations.
const LONGEST_TURN_WITH_MORE: Duration = Duration::from_millis(25);

/// The number of samples that a busy thread takes in a turn. A ring of the default size has room for four times as many.
const SAMPLES_A_TURN: u32 = 25;

/// What people should know where `/proc` was missing.
const UNLISTED: &str = "/proc is not mounted, so threads cannot be listed: of those that began since, only threads that run tasks are sampled";

/// Interrupts the process's threads, and hands their samples to the sessions.
pub(super) struct Engine {
    pub(super) arms: Arms,
    shield: Shield,
    ring_bytes: usize,
    /// When the engine began.
    since: Birth,
    threads: BTreeMap<u32, Sampled>,
    /// Threads that could not be armed. The engine does not try them again.
    refused: BTreeSet<u32>,
    /// How many threads there was no record for.
    crowded: u64,
    modules: Modules,
    walkers: Walkers,
    /// All modules that have been mapped since the engine began.
    seen: Vec<Module>,
    pub(super) sessions: Vec<Session>,
    /// Why threads are no longer interrupted, if so.
    pub(super) halted: Option<&'static str>,
    /// Whether `/proc` was missing at a look for threads, so that not all of them are known.
    unlisted: bool,
    turns: u64,
    /// When the engine looks for threads again.
    next_search: NextSearch,
    words: Vec<u64>,
    pub(super) collector: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the engine. `collector` starts the collector thread, which finds the way by interrupting itself.
    pub(super) fn start(
        options: &SamplerOptions,
        roster: &mut Roster,
        changes: Changes,
        collector: impl FnOnce(&'static Record) -> Result<(Way, JoinHandle<()>), Error>,
    ) -> Result<Self, Error> {
        let modules = Modules::read(changes).map_err(|why| cannot_sample(&why))?;
        let walkers = Walkers::new(modules.unwinder());
        let ring_bytes = options.ring_bytes.max(Ring::bytes_for(MOST_WORDS));
        roster.sweep();
        let trial =
            roster.trial().ok_or_else(|| cannot_sample(&"too many threads are sampled already"))?;
        let (way, collector) = collector(trial)?;
        bell::hang_at(Some(collector.thread().clone()));
        Ok(Self {
            arms: Arms::new(way, options),
            shield: Shield::default(),
            ring_bytes,
            since: Birth::now(),
            threads: BTreeMap::new(),
            refused: BTreeSet::new(),
            crowded: 0,
            seen: modules.list().cloned().collect(),
            modules,
            walkers,
            sessions: Vec::new(),
            halted: None,
            unlisted: false,
            turns: 0,
            next_search: NextSearch::after(Instant::now(), Duration::ZERO, 0),
            words: Vec::new(),
            collector: Some(collector),
        })
    }

    /// Begins a session.
    pub(super) fn admit(&mut self, number: u64, options: &SamplerOptions, roster: &mut Roster) {
        // Samples that were taken before do not belong to the new session.
        self.drain();
        let first = self.sessions.is_empty();
        if !first {
            // The time that newly found threads have used so far belongs to the earlier sessions.
            self.search(roster, false);
        }
        self.sessions.push(Session::new(number, options));
        self.set_rate();
        if first {
            self.shield.cover(self.arms.signals());
            self.search(roster, true);
        }
        let threads: Vec<_> = self.threads.keys().copied().collect();
        if let Some(session) = self.sessions.last_mut() {
            session.note_starts(&threads);
        }
    }

    /// Ends a session, and returns its profile.
    pub(super) fn dismiss(
        &mut self,
        number: u64,
        roster: &mut Roster,
        changes: Changes,
    ) -> Option<RawProfile> {
        self.turn(roster, changes);
        let at = self.sessions.iter().position(|session| session.number == number)?;
        let session = self.sessions.swap_remove(at);
        let profile = self.profile_of(session);
        if !self.sessions.is_empty() {
            self.set_rate();
        }
        Some(profile)
    }

    /// The profile of a session so far.
    pub(super) fn snapshot(
        &mut self,
        number: u64,
        roster: &mut Roster,
        changes: Changes,
    ) -> Option<RawProfile> {
        self.turn(roster, changes);
        let session = self.sessions.iter().find(|session| session.number == number)?.clone();
        Some(self.profile_of(session))
    }

    fn profile_of(&self, mut session: Session) -> RawProfile {
        let deaf = self.deaf();
        deaf.iter().for_each(|(thread, last_cpu_ns)| session.note_deaf(*thread, *last_cpu_ns));
        session.lost.threads_not_sampled += (deaf.len() + self.refused.len()) as u64;
        let period_ns = self.arms.period_ns();
        let mut mechanism = self.arms.way.describe(period_ns);
        if let Some(why) = self.halted {
            mechanism = format!("{mechanism}; {why}");
        }
        let mut profile =
            session.finish(mechanism, self.halted.is_some(), period_ns, self.seen.clone());
        profile.remarks = self.remarks(deaf.len(), profile.lost.unknown_stacks);
        profile
    }

    /// Gives the program's handlers their masks back until `cover`, so that others can, who had changed them before.
    pub(super) fn lift_shield(&mut self) {
        self.shield.lift();
    }

    /// Keeps our signals away from the program's handlers on alternate stacks.
    pub(super) fn cover(&mut self) {
        if self.halted.is_none() {
            self.shield.cover(self.arms.signals());
        }
    }

    /// Stops the engine. Returns the collector thread, which the caller joins.
    pub(super) fn stop(mut self, roster: &mut Roster) -> Option<JoinHandle<()>> {
        let collector = self.collector.take();
        bell::hang_at(None);
        self.disarm(roster);
        self.shield.lift();
        self.arms.withdraw(roster.threads());
        self.walkers.free_unused();
        collector
    }

    /// Disarms all threads, and keeps their records.
    fn disarm(&mut self, roster: &mut Roster) {
        self.drain();
        for (thread, sampled) in std::mem::take(&mut self.threads) {
            drop(sampled.armed);
            roster.keep(thread, sampled.birth, sampled.record);
        }
    }

    /// Disarms all threads if to interrupt them would harm the program.
    fn look_for_trouble(&mut self, roster: &mut Roster) {
        const SELDOM: u64 = 8;
        self.turns += 1;
        let seldom = self.turns.is_multiple_of(SELDOM);
        if self.halted.is_none() {
            self.halted = self.arms.disturbed(seldom);
            self.cover();
            if self.halted.is_some() {
                self.disarm(roster);
                self.shield.lift();
            }
        }
    }

    /// The time until the collector's next turn. A change of the rate wakes the collector.
    pub(super) fn turn_time(&self) -> Duration {
        let has_more = |session: &Session| session.has_waits || session.has_allocations;
        let longest =
            if self.sessions.iter().any(has_more) { LONGEST_TURN_WITH_MORE } else { LONGEST_TURN };
        (Duration::from_nanos(self.arms.period_ns()) * SAMPLES_A_TURN).clamp(TURN, longest)
    }

    /// One turn of the collector.
    pub(super) fn turn(&mut self, roster: &mut Roster, changes: Changes) {
        self.look_for_trouble(roster);
        if self.modules.refresh(changes) {
            self.walkers.set_unwinder(self.modules.unwinder());
            let new: Vec<_> =
                self.modules.list().filter(|module| !self.seen.contains(module)).cloned().collect();
            self.seen.extend(new);
        }
        self.walkers.look_if_asked();
        self.walkers.free_unused();
        let (start, threads) = (Instant::now(), crate::os::threads::count());
        let searches = bell::was_rung() || self.next_search.is_due(start, threads);
        let found = if searches { self.search(roster, false) } else { Duration::ZERO };
        self.drain();
        if searches {
            let took = found + self.look_for_deaf();
            self.next_search = NextSearch::after(start, took, threads);
        }
    }

    /// Sets the highest rate that a session asks for.
    fn set_rate(&mut self) {
        let highest = self.sessions.iter().map(|session| session.frequency_hz).max().unwrap_or(1);
        if !self.arms.set_rate(highest.min(SamplerOptions::HIGHEST_HZ)) {
            return;
        }
        if let Some(collector) = &self.collector {
            collector.thread().unpark();
        }
        for (thread, Sampled { record, armed, gap, .. }) in &mut self.threads {
            *gap |= self.arms.arm_again(record, *thread, armed);
        }
    }

    /// Finds threads that have begun, have ended, or have begun to run tasks. Returns how long the look at the list took,
    /// without the time for new threads.
    fn search(&mut self, roster: &mut Roster, first: bool) -> Duration {
        if self.halted.is_some() {
            return Duration::ZERO;
        }
        let start = Instant::now();
        let census = Census::take();
        let took = start.elapsed();
        let (Census::All(numbers) | Census::Workers(numbers)) = &census else { return took };
        self.unlisted |= matches!(census, Census::Workers(_));
        self.bury(numbers, roster);
        let known =
            |thread: &u32| self.threads.contains_key(thread) || self.refused.contains(thread);
        let new: Vec<u32> = numbers.iter().copied().filter(|thread| !known(thread)).collect();
        if !new.is_empty() {
            // The engine has looked at the mappings when it began.
            if !first {
                self.walkers.look();
            }
            new.into_iter().for_each(|thread| self.arm(thread, roster, first));
        }
        System::global().for_each_cpu(|cpu| {
            if let Some(sampled) = cpu.thread().and_then(|thread| self.threads.get(&thread)) {
                sampled.record.set_cpu(cpu);
            }
        });
        took
    }

    /// Looks for threads that use the CPU and get no signal because they block it, and has a timer reach them where one can.
    /// Returns how long that took.
    fn look_for_deaf(&mut self) -> Duration {
        let start = Instant::now();
        for (thread, sampled) in &mut self.threads {
            let Some(stat) = sampled.seems_deaf(*thread).then(|| Stat::of(*thread)).flatten()
            else {
                continue;
            };
            if !stat.blocks(sampled.armed.mechanism.signal()) {
                continue;
            }
            (sampled.deaf, sampled.gap) = (true, true);
            let reachable = self.arms.could_reach(&sampled.armed, &stat);
            let again = reachable.then(|| self.arms.arm(sampled.record, *thread, Some(&stat)));
            if let Some(armed) = again.flatten() {
                (sampled.armed, sampled.deaf) = (armed, false);
            }
        }
        start.elapsed()
    }

    /// The threads that block their signals now, or did so when they last used the CPU, and their CPU time at the last sample.
    fn deaf(&self) -> Vec<(u32, u64)> {
        let blocks = |thread: u32, sampled: &Sampled| {
            let signal = sampled.armed.mechanism.signal();
            Stat::of(thread).is_some_and(|stat| stat.blocks(signal))
        };
        let deaf = |(thread, sampled): &(&u32, &Sampled)| sampled.deaf || blocks(**thread, sampled);
        let deaf = self.threads.iter().filter(deaf);
        deaf.map(|(thread, sampled)| (*thread, sampled.cpu_ns)).collect()
    }

    /// What people should know of threads and stacks that were not sampled like the others.
    fn remarks(&self, deaf: usize, unknown_stacks: u64) -> Vec<String> {
        let mut remarks = self.arms.remarks();
        if deaf > 0 {
            let (noun, verb) = if deaf == 1 { ("thread", "blocks") } else { ("threads", "block") };
            remarks.push(format!(
                "{deaf} {noun} {verb} the sampler's signals: CPU time from then on has no samples"
            ));
        }
        if unknown_stacks > 0 {
            let noun = if unknown_stacks == 1 { "sample" } else { "samples" };
            remarks.push(format!(
                "{unknown_stacks} {noun} on stacks that the sampler did not know yet, such as new fibers' stacks: they have one frame"
            ));
        }
        if self.crowded > 0 {
            let (noun, verb) =
                if self.crowded == 1 { ("thread", "is") } else { ("threads", "are") };
            let crowded = self.crowded;
            remarks
                .push(format!("{crowded} {noun} {verb} not sampled: {MOST} are at the same time"));
        }
        if self.unlisted {
            remarks.push(UNLISTED.to_owned());
        }
        remarks
    }

    /// Removes threads that have ended.
    fn bury(&mut self, alive: &BTreeSet<u32>, roster: &mut Roster) {
        // The list may have skipped the thread. Only the thread's own file says that it has ended.
        let gone = |(thread, sampled): &(&u32, &Sampled)| {
            !alive.contains(thread) && sampled.birth.has_ended(**thread)
        };
        let ended: Vec<u32> = self.threads.iter().filter(gone).map(|(thread, _)| *thread).collect();
        for thread in ended {
            self.drain_thread(thread);
            if let Some(Sampled { record, armed, deaf, .. }) = self.threads.remove(&thread) {
                drop(armed);
                roster.free(record);
                let sessions = self.sessions.iter_mut();
                sessions.for_each(|session| session.lost.threads_not_sampled += u64::from(deaf));
            }
        }
        let refused = self.refused.len();
        self.refused.retain(|thread| alive.contains(thread));
        let ended = (refused - self.refused.len()) as u64;
        self.sessions.iter_mut().for_each(|session| session.lost.threads_not_sampled += ended);
    }

    /// Arms a new thread.
    fn arm(&mut self, thread: u32, roster: &mut Roster, first: bool) {
        let stat = Stat::of(thread);
        let birth = match stat {
            Some(stat) => stat.birth,
            None if self.unlisted => Birth::UNKNOWN,
            None => return,
        };
        let stack = self.walkers.stacks.of(thread);
        let Some(record) = roster.record(thread, birth, self.ring_bytes, stack) else {
            self.refused.insert(thread);
            self.crowded += 1;
            return;
        };
        // Samples that are still in the ring are from an earlier time.
        while record.ring.read(&mut self.words) {}
        let told = Told::of(record);
        // A thread that began after the engine starts at zero, because all its time belongs to this engine's sessions. An older
        // thread was missing from the first list, and nobody knows what it has used since.
        let has_come = !first && birth >= self.since;
        let cpu_ns = if has_come { Some(0) } else { clock::cpu_ns_of_thread(thread) };
        match self.arms.arm(record, thread, stat.as_ref()) {
            Some(armed) => {
                let (cpu_ns, gap, deaf) = (cpu_ns.unwrap_or(0), false, false);
                self.threads
                    .insert(thread, Sampled { record, birth, armed, cpu_ns, told, gap, deaf });
                if has_come {
                    self.note_unseen(thread);
                }
            }
            None => {
                roster.keep(thread, birth, record);
                // The thread may have ended in the meantime.
                if !birth.has_ended(thread) {
                    self.refused.insert(thread);
                }
            }
        }
    }

    /// Adds a sample without a stack, for the time that a thread has used before the engine found it. Nobody knows where it
    /// used that time.
    fn note_unseen(&mut self, thread: u32) {
        let Some(sampled) = self.threads.get_mut(&thread) else { return };
        let Some(cpu_ns) = clock::cpu_ns_of_thread(thread) else { return };
        let mut words = [0; HEAD];
        (words[1], words[2]) = (clock::monotonic_ns(), cpu_ns);
        let last_cpu_ns = sampled.cpu_ns;
        let drained = Drained { thread, last_cpu_ns, period_ns: None, words: &words };
        // Sessions that began after the thread's birth do not know how much of that time belongs to them.
        let since_then = self.sessions.iter_mut().filter(|session| session.since <= sampled.birth);
        since_then.for_each(|session| session.add(&drained));
        sampled.cpu_ns = cpu_ns;
    }

    /// Empties the rings of all threads.
    fn drain(&mut self) {
        let threads: Vec<u32> = self.threads.keys().copied().collect();
        threads.into_iter().for_each(|thread| self.drain_thread(thread));
    }

    /// Empties the ring of a thread, and tells the sessions.
    fn drain_thread(&mut self, thread: u32) {
        let Some(sampled) = self.threads.get_mut(&thread) else { return };
        // Up to this end only. Otherwise a thread that empties its own ring might never finish, if to take in a sample takes
        // longer than the time to the next one.
        let end = sampled.record.ring.end();
        let now = Told::of(sampled.record);
        // Where signals were dropped, nobody knows how many interruptions fell into the kernel.
        let dropped = now != sampled.told;
        let Armed { mechanism, period_ns, .. } = sampled.armed;
        let period_ns = (!mechanism.sees_kernel()).then_some(period_ns);
        while sampled.record.ring.read_before(end, &mut self.words) {
            if self.words.first().is_some_and(|flags| flags & WAIT != 0) {
                let with_waits = self.sessions.iter_mut().filter(|session| session.has_waits);
                with_waits.for_each(|session| session.add_wait(&self.words));
                continue;
            }
            if self.words.first().is_some_and(|flags| flags & ALLOCATION != 0) {
                let with = self.sessions.iter_mut().filter(|session| session.has_allocations);
                with.for_each(|session| session.add_allocation(&self.words));
                continue;
            }
            let last_cpu_ns = sampled.cpu_ns;
            let late = self.words.first().is_some_and(|flags| flags & LATE != 0);
            let period_ns = period_ns.filter(|_| !dropped && !sampled.gap && !late);
            let drained = Drained { thread, last_cpu_ns, period_ns, words: &self.words };
            // A sample from before the engine found the thread came late.
            if drained.words.len() < HEAD || drained.thread_cpu_ns() < sampled.cpu_ns {
                continue;
            }
            self.sessions.iter_mut().for_each(|session| session.add(&drained));
            sampled.cpu_ns = drained.thread_cpu_ns();
            (sampled.gap, sampled.deaf) = (false, false);
        }
        sampled.gap |= dropped;
        let told = std::mem::replace(&mut sampled.told, now);
        for session in &mut self.sessions {
            session.lost.dropped_ring_full += now.dropped - told.dropped;
            session.lost.dropped_nested += now.nested - told.nested;
            session.lost.dropped_stack_full += now.no_room - told.no_room;
        }
    }
}
