//! The samples so far, added up, and the profile that is made of them.

use crate::space::End;
use pertask_profile::{
    Function, Line, Location, LocationId, Mapping, MappingId, Profile, ProfileBuilder, Sample,
    TaskRef, ThreadRef,
};
use pertask_symbols::Module;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The stack of time in the kernel where only user mode is sampled.
const IN_KERNEL: &str = "(kernel, not sampled)";
/// The stack of CPU time that no sample has met.
const NO_SAMPLE: &str = "(no sample)";
/// In place of a part of a runtime, for time that no sample has met.
const TASK_NOT_KNOWN: &str = "not sampled, task not known";
/// The name of code that no file holds.
const ANONYMOUS: &str = "[anonymous code]";

/// In place of an address: somewhere in the kernel.
pub(crate) const KERNEL: u64 = u64::MAX;

/// The most stacks that differ, and the most words that all of them have.
const MOST_STACKS: usize = 1 << 18;
const MOST_WORDS: usize = 1 << 24;

/// The most samples that differ, of which some differ in their tasks' numbers alone.
const MOST_MET: usize = 1 << 20;

/// The samples so far.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    stacks: HashMap<Arc<[u64]>, u32>,
    words: usize,
    met: BTreeMap<Met, u64>,
    pub(crate) threads: BTreeMap<u32, Thread>,
    /// Samples whose stacks are longer than what they have of it.
    pub(crate) cut: u64,
    /// Samples for whose stacks there was no room, or that could not be read.
    pub(crate) dropped: u64,
}

/// What samples have in common that are stored once. How often it was met is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Met {
    thread: u32,
    stack: u32,
    /// Whether the stack reached its root.
    is_complete: bool,
    /// The task's number, where it is sure.
    task: Option<u64>,
}

/// What is known of a thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Thread {
    pub(crate) name: String,
    /// What it had used when the recording began, and what it had used last, as the kernel accounts for it.
    pub(crate) used_ns: Option<(u64, u64)>,
    /// The thread whose events found its samples first: itself, or the one that has made it. Those of others are the same time again.
    pub(crate) owner: Option<u32>,
    /// Whether the thread has ended, so that it may have used more than that.
    pub(crate) has_ended: bool,
    pub(crate) samples: u64,
}

impl Tables {
    pub(crate) fn add(&mut self, thread: u32, stack: &[u64], end: End, task: Option<u64>) {
        self.threads.entry(thread).or_default().samples += 1;
        self.cut += u64::from(end == End::Cut);
        let known = self.stacks.get(stack).copied();
        let number = match known {
            Some(number) => number,
            None if self.stacks.len() >= MOST_STACKS || self.words + stack.len() > MOST_WORDS => {
                // It was taken, and so its time is the thread's.
                self.dropped += 1;
                return;
            }
            None => {
                let number = self.stacks.len() as u32;
                self.stacks.insert(stack.into(), number);
                self.words += stack.len();
                number
            }
        };
        let met = Met { thread, stack: number, is_complete: end == End::Root, task };
        // Without their tasks, samples differ in threads and stacks alone.
        let is_full = self.met.len() >= MOST_MET && !self.met.contains_key(&met);
        let met = if is_full { Met { task: None, ..met } } else { met };
        *self.met.entry(met).or_default() += 1;
    }

    /// Adds the samples to a profile. Each stands for a period of CPU time, unless the kernel says what the thread has used: then its
    /// samples share that, or, where time in the kernel is not sampled, the rest is such time. `shift` is added to all addresses, so that
    /// those of several processes can be in one profile.
    pub(crate) fn profile(
        &self,
        modules: &[Module],
        period_ns: u64,
        kernel: bool,
        shift: u64,
        builder: &mut ProfileBuilder,
    ) {
        let mut places = Places::new(modules, shift, builder);
        let mut stacks: Vec<&Arc<[u64]>> = self.stacks.keys().collect();
        stacks.sort_unstable_by_key(|stack| self.stacks[*stack]);
        let mut shares: BTreeMap<u32, Share> = BTreeMap::new();
        for (thread, known) in &self.threads {
            shares.insert(*thread, Share::of(known, period_ns, kernel));
        }
        for (met, count) in &self.met {
            let Some(share) = shares.get_mut(&met.thread) else { continue };
            let stack = places.stack(stacks[met.stack as usize], builder);
            let thread = Some(self.thread(met.thread, builder));
            let (count, time_ns) = (*count, share.take(*count));
            // Its type is in the stack, for whoever has the names.
            let task = met.task.map(|id| TaskRef { id: Some(id), ..TaskRef::default() });
            let complete = met.is_complete;
            builder.add(Sample {
                count,
                time_ns,
                stack,
                task,
                thread,
                complete,
                ..Sample::default()
            });
        }
        for share in shares.values_mut() {
            // What samples stood for that were dropped.
            share.rest_ns += std::mem::take(&mut share.sampled_ns);
        }
        for (thread, share) in shares.iter().filter(|(_, share)| share.rest_ns > 0) {
            let words = if kernel { NO_SAMPLE } else { IN_KERNEL };
            let stack = vec![places.word(words, builder)];
            let thread = Some(self.thread(*thread, builder));
            // Nobody knows in which task it was.
            let runtime = Some(builder.text(TASK_NOT_KNOWN));
            builder.add(Sample {
                time_ns: share.rest_ns,
                stack,
                runtime,
                thread,
                ..Sample::default()
            });
        }
    }

    fn thread(&self, tid: u32, builder: &mut ProfileBuilder) -> ThreadRef {
        let name = self.threads.get(&tid).map_or("", |thread| &thread.name);
        ThreadRef { tid, name: builder.text(name) }
    }
}

/// What of a thread's CPU time its samples stand for.
struct Share {
    /// The time of the samples that have not been given out yet, and how many there are.
    sampled_ns: u64,
    samples: u64,
    /// The time that none stands for.
    rest_ns: u64,
}

impl Share {
    fn of(thread: &Thread, period_ns: u64, kernel: bool) -> Self {
        let by_period = thread.samples.saturating_mul(period_ns);
        // A kernel without schedstats says 0.
        let used = thread.used_ns.filter(|(_, after)| *after > 0);
        let used = used.map(|(before, after)| after.saturating_sub(before));
        let used = used.map(|used| if thread.has_ended { used.max(by_period) } else { used });
        let (sampled_ns, rest_ns) = match (used, thread.samples) {
            (None, _) => (by_period, 0),
            (Some(used), 0) => (0, used),
            (Some(used), _) if kernel => (used, 0),
            (Some(used), _) => (by_period.min(used), used.saturating_sub(by_period)),
        };
        Self { sampled_ns, samples: thread.samples, rest_ns }
    }

    /// Takes the share of some of the samples. All of them together get all of the time.
    fn take(&mut self, samples: u64) -> u64 {
        let part =
            u128::from(self.sampled_ns) * u128::from(samples) / u128::from(self.samples.max(1));
        let part = part as u64;
        self.sampled_ns -= part;
        self.samples -= samples;
        part
    }
}

/// The places in the code that a profile has.
struct Places<'a> {
    shift: u64,
    /// The ranges of all modules, as they came, with their mappings.
    ranges: Vec<(u64, u64, MappingId)>,
    known: HashMap<u64, LocationId>,
    words: HashMap<&'a str, LocationId>,
}

impl<'a> Places<'a> {
    fn new(modules: &[Module], shift: u64, builder: &mut ProfileBuilder) -> Self {
        let mut ranges = Vec::new();
        for module in modules {
            let digits: String = module.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
            let (file, build_id) = (builder.text(&module.path), builder.text(&digits));
            for range in &module.ranges {
                let [start, end] =
                    [range.addresses.start, range.addresses.end].map(|it| it.wrapping_add(shift));
                let (file, build_id) = (Arc::clone(&file), Arc::clone(&build_id));
                let mapping = Mapping { start, end, offset: range.file_offset, file, build_id };
                ranges.extend(builder.mapping(mapping).map(|id| (start, end, id)));
            }
        }
        Self { shift, ranges, known: HashMap::new(), words: HashMap::new() }
    }

    /// A caller continues after its call, and the call's own address is wanted.
    fn stack(&mut self, addresses: &[u64], builder: &mut ProfileBuilder) -> Vec<LocationId> {
        let first = addresses.first().copied();
        let callers = addresses.iter().skip(1).map(|address| address.saturating_sub(1));
        first.into_iter().chain(callers).map(|address| self.place(address, builder)).collect()
    }

    fn place(&mut self, address: u64, builder: &mut ProfileBuilder) -> LocationId {
        if address == KERNEL {
            return self.word("[kernel]", builder);
        }
        let address = address.wrapping_add(self.shift);
        if let Some(known) = self.known.get(&address) {
            return *known;
        }
        let holds = |(start, end, _): &&(u64, u64, MappingId)| (*start..*end).contains(&address);
        // Where one module was unmapped and another one was mapped in its place, the later one counts.
        let mapping = self.ranges.iter().rev().find(holds).map(|(.., id)| *id);
        let lines = match mapping {
            Some(_) => Vec::new(),
            None => vec![line(ANONYMOUS, builder)],
        };
        let place = builder.location(Location { address, mapping, lines });
        self.known.insert(address, place);
        place
    }

    fn word(&mut self, word: &'a str, builder: &mut ProfileBuilder) -> LocationId {
        *self.words.entry(word).or_insert_with(|| {
            let lines = vec![line(word, builder)];
            builder.location(Location { lines, ..Location::default() })
        })
    }
}

fn line(name: &str, builder: &mut ProfileBuilder) -> Line {
    let name = builder.text(name);
    Line { function: builder.function(Function { name, ..Function::default() }), line: 0 }
}

/// Returns the remarks of a profile that lacks files with code.
pub(crate) fn unread(paths: &[String]) -> Vec<String> {
    let remark = |path: &String| {
        format!(
            "stacks end in {path}: the file that is mapped cannot be read; it was deleted or replaced, or this process may not read it"
        )
    };
    paths.iter().map(remark).collect()
}

/// Returns a profile without samples, if nothing was recorded.
pub(crate) fn builder(mechanism: String, period_ns: u64) -> ProfileBuilder {
    let bounds = pertask_profile::Bounds {
        samples: usize::MAX,
        locations: usize::MAX,
        ..pertask_profile::Bounds::default()
    };
    ProfileBuilder::with_bounds(mechanism, period_ns, bounds)
}

/// Ends a profile.
pub(crate) fn finish(builder: ProfileBuilder, lasted: std::time::Duration) -> Profile {
    builder.finish(lasted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(samples: u64, used_ns: Option<(u64, u64)>) -> Thread {
        Thread { samples, used_ns, ..Thread::default() }
    }

    #[test]
    fn samples_share_what_the_thread_has_used() {
        let mut share = Share::of(&thread(3, Some((100, 1_100))), 10, true);
        assert_eq!((share.take(1), share.take(2), share.rest_ns), (333, 667, 0));
        let mut share = Share::of(&thread(3, None), 10, true);
        assert_eq!((share.take(3), share.rest_ns), (30, 0));
    }

    #[test]
    fn what_user_mode_does_not_explain_was_in_the_kernel() {
        let mut share = Share::of(&thread(3, Some((0, 100))), 10, false);
        assert_eq!((share.take(3), share.rest_ns), (30, 70));
        let mut share = Share::of(&thread(3, Some((0, 20))), 10, false);
        assert_eq!((share.take(3), share.rest_ns), (20, 0));
        assert_eq!(Share::of(&thread(0, Some((0, 20))), 10, true).rest_ns, 20);
    }

    #[test]
    fn a_thread_that_has_ended_may_have_used_more_than_was_seen() {
        let ended = Thread { has_ended: true, ..thread(3, Some((0, 20))) };
        let mut share = Share::of(&ended, 10, true);
        assert_eq!((share.take(3), share.rest_ns), (30, 0));
    }
}
