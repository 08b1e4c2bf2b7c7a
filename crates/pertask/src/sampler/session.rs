//! A sampling session as the engine has it: the samples so far.

use super::allocation_table::{self, Allocations};
use super::handler::{
    COMPLETE, DEEPER_SHIFT, FIBER, HEAD, MOST_TOOK_NS, NO_GROUND, OVERRUN_SHIFT, TAG_SHIFT,
    TOOK_SHIFT, TRUNCATED,
};
use super::options::SamplerOptions;
use super::profile::{RawProfile, RawSample, SampleLosses, Unmet};
use super::stat::Birth;
use super::wait_table::Waits;
use super::waits;
use crate::os::clock::{self, Choice};
use crate::pmus::call_stack;
use crate::tasks::accounts;
use pertask_symbols::Module;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// A sample as the handler wrote it, with what the engine knows about it.
pub(super) struct Drained<'a> {
    pub(super) thread: u32,
    /// The thread's CPU time at its last sample.
    pub(super) last_cpu_ns: u64,
    /// The CPU time after which the thread was to be interrupted, if no interruption is missing since its last sample but those in
    /// the kernel.
    pub(super) period_ns: Option<u64>,
    /// The sample's words, in the handler's order.
    pub(super) words: &'a [u64],
}

/// The bytes that a sample takes. Tables grow by doubling.
const SAMPLE: usize = 2 * size_of::<RawSample>();

impl Drained<'_> {
    /// The thread's CPU time at this sample.
    pub(super) fn thread_cpu_ns(&self) -> u64 {
        self.words[2]
    }
}

/// A sampling session that is under way.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) frequency_hz: u32,
    pub(super) has_waits: bool,
    pub(super) has_allocations: bool,
    room_bytes: usize,
    start: (SystemTime, Instant),
    /// When the session began. All the time of threads that were born since belongs to it.
    pub(super) since: Birth,
    process_cpu_ns: u64,
    carried_cpu_ns: u64,
    /// The CPU time at the session's start, of each thread that has had no sample since.
    starts: HashMap<u32, u64>,
    stacks: HashSet<Arc<[u64]>>,
    /// The scopes by their words. The names' memory belongs to the interner, which has a bound of its own.
    scopes: HashMap<Box<[u64]>, Arc<[Arc<str>]>>,
    samples: Vec<RawSample>,
    /// The waits that have ended, and when the session began by their clock.
    waits: Waits,
    allocations: Allocations,
    /// The CPU time of each thread for which an interruption is missing, because it fell into the kernel.
    kernel_ns: BTreeMap<u32, u64>,
    /// The CPU time that threads have used without samples, because they blocked the signal to the end.
    deaf_ns: BTreeMap<u32, u64>,
    threads: BTreeMap<u32, String>,
    pub(super) lost: SampleLosses,
}

impl Session {
    pub(super) fn new(number: u64, options: &SamplerOptions) -> Self {
        Self {
            number,
            frequency_hz: options.frequency_hz,
            has_waits: options.waits,
            has_allocations: options.allocations,
            room_bytes: options.memory_bytes,
            start: (SystemTime::now(), Instant::now()),
            since: Birth::now(),
            process_cpu_ns: clock::process_cpu_ns(),
            carried_cpu_ns: 0,
            starts: HashMap::new(),
            stacks: HashSet::new(),
            scopes: HashMap::new(),
            samples: Vec::new(),
            waits: Waits::since(Choice::of_process().wall_ns()),
            allocations: Allocations::default(),
            kernel_ns: BTreeMap::new(),
            deaf_ns: BTreeMap::new(),
            threads: BTreeMap::new(),
            lost: SampleLosses::default(),
        }
    }

    /// Notes the CPU time that these threads used before the session.
    pub(super) fn note_starts(&mut self, threads: &[u32]) {
        let start = |thread: &u32| Some((*thread, clock::cpu_ns_of_thread(*thread)?));
        self.starts = threads.iter().filter_map(start).collect();
        self.process_cpu_ns = clock::process_cpu_ns();
    }

    /// Notes that a thread has blocked its signal since its last sample.
    pub(super) fn note_deaf(&mut self, thread: u32, last_cpu_ns: u64) {
        let start_ns = self.starts.get(&thread).copied().unwrap_or(0).max(last_cpu_ns);
        let Some(now_ns) = clock::cpu_ns_of_thread(thread) else { return };
        let used_ns = now_ns.saturating_sub(start_ns);
        self.carried_cpu_ns += used_ns;
        self.deaf_ns.insert(thread, used_ns);
        self.threads.entry(thread).or_insert_with(|| crate::os::threads::name(thread));
    }

    /// Adds a sample.
    pub(super) fn add(&mut self, drained: &Drained<'_>) {
        let Drained { thread, last_cpu_ns, period_ns, words } = *drained;
        let [flags, time_ns, cpu_ns, task, parent, path, scopes] =
            *words.first_chunk::<HEAD>().unwrap_or(&[0; HEAD]);
        let scope_words = (scopes as u32 as usize).div_ceil(2);
        let rest = words.get(HEAD..).unwrap_or_default();
        let Some((scope_words, addresses)) = rest.split_at_checked(scope_words) else { return };
        let start_ns = match self.starts.get(&thread) {
            // The sample was taken before the session, or while it began.
            Some(start_ns) if cpu_ns <= *start_ns => return,
            Some(_) => self.starts.remove(&thread).unwrap_or(0),
            None => 0,
        };
        let Some((stack, scopes_open)) =
            self.stack(addresses, SAMPLE).zip(self.scopes(scope_words))
        else {
            self.lost.dropped_memory_full += 1;
            return;
        };
        let used_ns = cpu_ns.saturating_sub(last_cpu_ns.max(start_ns));
        let kernel_ns = period_ns.map_or(0, |period_ns| missed_ns(used_ns, period_ns));
        let sample = RawSample {
            time_ns,
            cpu_ns: used_ns - kernel_ns,
            thread,
            task: Some(task).filter(|task| *task != 0),
            parent: Some(parent).filter(|parent| *parent != 0),
            path: (path as u32).checked_sub(1),
            labels: accounts::labels_of((path >> TAG_SHIFT) as u32),
            scopes: scopes_open,
            deeper_scopes: (scopes >> DEEPER_SHIFT) as u32,
            overrun: (flags >> OVERRUN_SHIFT) as u32,
            handler_ns: (flags >> TOOK_SHIFT & MOST_TOOK_NS) as u32,
            stack,
            complete: flags & COMPLETE != 0,
            truncated: flags & TRUNCATED != 0,
            fiber: flags & FIBER != 0,
        };
        self.lost.unknown_stacks += u64::from(flags & NO_GROUND != 0);
        self.carried_cpu_ns += used_ns;
        if kernel_ns > 0 {
            *self.kernel_ns.entry(thread).or_default() += kernel_ns;
        }
        self.lost.incomplete_stacks += u64::from(!sample.complete);
        self.lost.truncated_stacks += u64::from(sample.truncated);
        self.samples.push(sample);
        self.threads.entry(thread).or_insert_with(|| crate::os::threads::name(thread));
    }

    /// Adds a wait that has ended, or its part so far.
    pub(super) fn add_wait(&mut self, words: &[u64]) {
        let Some(seen) = self.waits.see(words) else { return };
        // Waits are added up, so only a new place takes room.
        let known = self.stacks.get(seen.addresses);
        let is_known = known.is_some_and(|stack| self.waits.knows(&seen, stack));
        let place_bytes = if is_known { 0 } else { Waits::PLACE_BYTES };
        match self.stack(seen.addresses, place_bytes) {
            Some(stack) => self.waits.add(&seen, stack),
            None => self.lost.dropped_waits += 1,
        }
    }

    /// Adds an allocation that was sampled.
    pub(super) fn add_allocation(&mut self, words: &[u64]) {
        let Some(seen) = allocation_table::seen(words) else { return };
        // They are added up, so only a new place takes room.
        let known = self.stacks.get(seen.addresses);
        let is_known = known.is_some_and(|stack| self.allocations.knows(&seen, stack));
        let place_bytes = if is_known { 0 } else { Allocations::PLACE_BYTES };
        match self.stack(seen.addresses, place_bytes) {
            Some(stack) => self.allocations.add(&seen, stack),
            None => self.lost.dropped_allocations += 1,
        }
    }

    /// The stack with these addresses, which is kept now if it is new. Takes room for the stack and for so many bytes of what has it, or
    /// returns `None` if there is not enough.
    fn stack(&mut self, addresses: &[u64], bytes: usize) -> Option<Arc<[u64]>> {
        // An `Arc` has counts.
        const STACK: usize = 64;
        let known = self.stacks.get(addresses).cloned();
        let new_bytes = if known.is_some() { 0 } else { STACK + size_of_val(addresses) };
        self.room_bytes = self.room_bytes.checked_sub(bytes + new_bytes)?;
        let stack = known.unwrap_or_else(|| {
            let new: Arc<[u64]> = addresses.into();
            self.stacks.insert(Arc::clone(&new));
            new
        });
        Some(stack)
    }

    /// The scopes of these words, which are kept now if they are new. Returns `None` if there is no room left.
    fn scopes(&mut self, words: &[u64]) -> Option<Arc<[Arc<str>]>> {
        const ENTRY: usize = 128;
        if let Some(known) = self.scopes.get(words) {
            return Some(Arc::clone(known));
        }
        let numbers = words.iter().flat_map(|pair| [*pair as u32, (pair >> 32) as u32]);
        // An odd number of scopes is followed by a 0, which is no scope's number.
        let names: Arc<[_]> =
            numbers.filter(|number| *number != 0).map(call_stack::name_of).collect();
        self.room_bytes = self.room_bytes.checked_sub(ENTRY + 3 * size_of_val(words))?;
        self.scopes.insert(words.into(), Arc::clone(&names));
        Some(names)
    }

    /// Ends the session, and makes its profile.
    pub(super) fn finish(
        mut self,
        mechanism: String,
        halted: bool,
        period_ns: u64,
        modules: Vec<Module>,
    ) -> RawProfile {
        let process_cpu_ns = clock::process_cpu_ns().saturating_sub(self.process_cpu_ns);
        if self.has_waits {
            waits::for_each_open(|words| self.add_wait(words));
        }
        self.lost.unsampled_cpu_ns = process_cpu_ns.saturating_sub(self.carried_cpu_ns);
        for (thread, name) in &mut self.threads {
            // A thread may have named itself after its first sample.
            let now = crate::os::threads::name(*thread);
            if !now.is_empty() {
                *name = now;
            }
        }
        let kernel = self.kernel_ns.iter().map(|(thread, ns)| Unmet::kernel_of(*thread, *ns));
        let deaf = self.deaf_ns.iter().map(|(thread, ns)| Unmet::deaf(*thread, *ns));
        RawProfile {
            start: self.start.0,
            duration: self.start.1.elapsed(),
            samples: self.samples,
            waits: self.waits.finish(),
            allocations: self.allocations.finish(),
            has_allocations: self.has_allocations,
            blocked_ns: BTreeMap::new(),
            unmet: kernel.chain(deaf).filter(|unmet| unmet.cpu_ns > 0).collect(),
            cut_short: halted || self.lost.dropped_memory_full > 0,
            lost: self.lost,
            mechanism,
            period_ns,
            process_cpu_ns,
            threads: self.threads,
            modules,
            remarks: Vec::new(),
        }
    }
}

/// The CPU time of the interruptions that are missing before a sample. An interruption that falls into the kernel is lost, where
/// only user mode may be sampled; the next one comes a whole period later.
fn missed_ns(used_ns: u64, period_ns: u64) -> u64 {
    let periods = (used_ns + period_ns / 2) / period_ns.max(1);
    (periods.saturating_sub(1) * period_ns).min(used_ns)
}

#[cfg(test)]
mod tests {
    use super::super::handler::WAIT;
    use super::*;

    /// The words of a wait of a nanosecond at one of the places.
    fn wait(place: u64) -> Vec<u64> {
        let end_ns = u64::MAX / 2 + 1;
        let head = [WAIT | COMPLETE | 1 << 32, 0, end_ns, 7, 0, 1, 0];
        head.into_iter().chain([end_ns - 1, end_ns, 0x1000 + place, 0x2000]).collect()
    }

    #[test]
    fn waits_take_room_by_place_and_what_finds_none_is_counted() {
        let options = SamplerOptions { memory_bytes: 10_000, ..SamplerOptions::default() };
        let mut session = Session::new(1, &options);
        (0..100_000).for_each(|_| session.add_wait(&wait(1)));
        assert_eq!(session.lost.dropped_waits, 0);
        (0..1_000).for_each(|place| session.add_wait(&wait(place)));
        let kept = session.waits.finish();
        assert!(kept.len() > 5 && kept.len() < 50, "{}", kept.len());
        let counts: Vec<_> = kept.iter().map(|wait| (wait.count, wait.waiting_ns)).collect();
        assert_eq!(counts[0], (100_001, 100_001));
        assert_eq!(session.lost.dropped_waits, 1_000 - kept.len() as u64);
    }
}
