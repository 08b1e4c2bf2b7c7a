//! Makes a profile within bounds: names and locations are stored once, and equal samples become one.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pertask_text::human;

use super::{
    Allocation, Function, FunctionId, Line, Location, LocationId, Lost, Mapping, MappingId,
    Profile, Sample, State, TaskRef,
};

/// The most remarks of a profile.
pub(super) const MOST_REMARKS: usize = 100;

/// The name that replaces names and functions for which there is no room.
const OTHER: &str = "(other)";

/// How large a profile may become.
///
/// [`Lost`] counts what a full profile leaves out of CPU time, and remarks say how many waits and allocations lack something. The time of
/// every sample stays in the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most samples that differ. A further sample keeps its stack, its task's name and site, and those of the tasks that ended a
    /// wait, or held a lock. It loses the numbers of its task and that task's parent, its thread, its scopes and its labels.
    pub samples: usize,
    /// The most samples of that reduced kind that differ. All further samples become one, of which nothing is known.
    pub folded_samples: usize,
    /// The most locations, and the most functions, and the most mappings. A further location or function is called `(other)`.
    pub locations: usize,
    /// The most names. A further name becomes `(other)`.
    pub texts: usize,
    /// The most bytes of a name. A longer name is cut, counted, and ends in `…`.
    pub text_bytes: usize,
    /// The most locations of a stack. A deeper stack loses its outermost callers, and counts as cut and as incomplete.
    pub depth: usize,
    /// The most scopes of a sample, and the most labels. The outermost scopes and the first labels are kept.
    pub labels: usize,
}

impl Default for Bounds {
    /// Returns bounds within which an ordinary profile takes some tens of megabytes at most.
    fn default() -> Self {
        Self {
            samples: 65_536,
            folded_samples: 16_384,
            locations: 131_072,
            texts: 131_072,
            text_bytes: 4_096,
            depth: 512,
            labels: 32,
        }
    }
}

/// Makes a [`Profile`].
#[derive(Debug)]
pub struct ProfileBuilder {
    start: SystemTime,
    mechanism: String,
    period_ns: u64,
    bounds: Bounds,
    samples: Samples,
    /// Their bytes are in place of a time.
    allocations: Samples,
    locations: Table<Location>,
    functions: Table<Function>,
    mappings: Table<Mapping>,
    texts: HashSet<Arc<str>>,
    other: Arc<str>,
    lost: Lost,
    remarks: Vec<String>,
    /// How many waits and allocations have been folded, or have lost labels.
    waits_folded: u64,
    allocations_folded: u64,
}

impl ProfileBuilder {
    /// Begins a profile at the current time.
    ///
    /// `mechanism` says how the samples are taken, and `period_ns` is the CPU time between two samples.
    #[must_use]
    pub fn new(mechanism: impl Into<String>, period_ns: u64) -> Self {
        Self::with_bounds(mechanism, period_ns, Bounds::default())
    }

    /// Begins a profile at the current time, within the given bounds.
    #[must_use]
    pub fn with_bounds(mechanism: impl Into<String>, period_ns: u64, bounds: Bounds) -> Self {
        Self {
            start: SystemTime::now(),
            mechanism: mechanism.into(),
            period_ns,
            bounds,
            samples: Samples::default(),
            allocations: Samples::default(),
            locations: Table::default(),
            functions: Table::default(),
            mappings: Table::default(),
            texts: HashSet::new(),
            other: OTHER.into(),
            lost: Lost::default(),
            remarks: Vec::new(),
            waits_folded: 0,
            allocations_folded: 0,
        }
    }

    /// Sets the time at which the profile began.
    pub fn start(&mut self, start: SystemTime) -> &mut Self {
        self.start = start;
        self
    }

    /// Returns the profile's copy of a name, which is `(other)` if there is no room for another name.
    pub fn text(&mut self, text: &str) -> Arc<str> {
        let cut = cut(text, self.bounds.text_bytes);
        let is_cut = cut.is_some();
        let text = cut.as_deref().unwrap_or(text);
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        if self.texts.len() >= self.bounds.texts {
            self.lost.texts_folded += 1;
            return self.other.clone();
        }
        let text = Arc::from(text);
        self.texts.insert(Arc::clone(&text));
        self.lost.texts_cut += u64::from(is_cut);
        text
    }

    /// Returns the id of a mapping, or `None` if there is no room for it.
    pub fn mapping(&mut self, mapping: Mapping) -> Option<MappingId> {
        self.mappings.id(mapping, self.bounds.locations).map(MappingId)
    }

    /// Returns the id of a function, which is the one called `(other)` if there is no room for another function.
    pub fn function(&mut self, function: Function) -> FunctionId {
        if let Some(known) = self.functions.id(function, self.bounds.locations) {
            return FunctionId(known);
        }
        self.lost.locations_folded += 1;
        self.other_function()
    }

    /// Returns the id of a location, which is one in the function `(other)` if there is no room for another location.
    pub fn location(&mut self, location: Location) -> LocationId {
        if let Some(known) = self.locations.id(location, self.bounds.locations) {
            return LocationId(known);
        }
        self.lost.locations_folded += 1;
        let lines = vec![Line { function: self.other_function(), line: 0 }];
        LocationId(self.locations.other(Location { lines, ..Location::default() }))
    }

    /// Adds samples to the profile.
    pub fn add(&mut self, mut sample: Sample) {
        let trimmed = self.trim(&mut sample);
        let amount =
            Amount { count: mem::take(&mut sample.count), time_ns: mem::take(&mut sample.time_ns) };
        let (complete, state) = (sample.complete, sample.state);
        let left = self.samples.add(sample, amount, self.bounds.samples);
        // What is lost is counted in samples. Waits are none, and a remark tells of them.
        let samples = |lost: bool| if lost && state == State::OnCpu { amount.count } else { 0 };
        if state != State::OnCpu && (trimmed || left.is_some()) {
            self.waits_folded = self.waits_folded.saturating_add(amount.count);
        }
        let Lost { stacks_incomplete, samples_folded, .. } = &mut self.lost;
        *stacks_incomplete = stacks_incomplete.saturating_add(samples(!complete));
        *samples_folded = samples_folded.saturating_add(samples(trimmed || left.is_some()));
        if let Some(sample) = left {
            self.add_folded(sample, amount);
        }
    }

    /// Adds allocations to the profile.
    pub fn add_allocation(&mut self, allocation: Allocation) {
        let Allocation { bytes, mut sample } = allocation;
        let amount = Amount { count: mem::take(&mut sample.count), time_ns: bytes };
        let Bounds { depth, labels, samples: room, .. } = self.bounds;
        sample.complete &= sample.stack.len() <= depth;
        sample.stack.truncate(depth);
        let trimmed = sample.labels.len() > labels;
        sample.labels.truncate(labels);
        let left = self.allocations.add(sample, amount, room);
        if trimmed || left.is_some() {
            self.allocations_folded = self.allocations_folded.saturating_add(amount.count);
        }
        let room = room.saturating_add(self.bounds.folded_samples);
        if let Some(sample) = left
            && self.allocations.add(folded(sample), amount, room).is_some()
        {
            let unknown = Sample { complete: false, ..Sample::default() };
            self.allocations.add(unknown, amount, usize::MAX);
        }
    }

    /// Counts samples of CPU time that were due and are not in the profile.
    pub fn dropped(&mut self, samples: u64) {
        self.lost.samples_dropped = self.lost.samples_dropped.saturating_add(samples);
    }

    /// Counts threads that could not be sampled, and CPU time that is not in the profile.
    pub fn not_sampled(&mut self, threads: u64, time_ns: u64) {
        let Lost { threads_not_sampled, unsampled_cpu_ns, .. } = &mut self.lost;
        *threads_not_sampled = threads_not_sampled.saturating_add(threads);
        *unsampled_cpu_ns = unsampled_cpu_ns.saturating_add(time_ns);
    }

    /// Adds a remark for people. The profile keeps a hundred: its own, and then the first of these.
    pub fn remark(&mut self, remark: impl Into<String>) {
        if self.remarks.len() < MOST_REMARKS {
            let remark = remark.into();
            self.remarks.push(cut(&remark, self.bounds.text_bytes).unwrap_or(remark));
        }
    }

    /// Returns the profile, of which sampling lasted `duration`.
    ///
    /// Its samples are in the order in which they were first added.
    #[must_use]
    pub fn finish(mut self, duration: Duration) -> Profile {
        self.tell_of_folded();
        let (samples, off_cpu) = Profile::by_cpu(self.samples.into_vec());
        let has_allocations = !self.allocations.0.is_empty();
        let allocations = self.allocations.into_vec().into_iter().map(|sample| Allocation {
            bytes: sample.time_ns,
            sample: Sample { time_ns: 0, ..sample },
        });
        Profile {
            start: self.start,
            duration_ns: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
            mechanism: self.mechanism,
            period_ns: self.period_ns,
            samples,
            state: State::OnCpu,
            off_cpu,
            has_allocations,
            allocations: allocations.collect(),
            has_counts: true,
            locations: self.locations.into_vec(),
            functions: self.functions.into_vec(),
            mappings: self.mappings.into_vec(),
            lost: self.lost,
            remarks: self.remarks,
            task_root: None,
        }
    }

    /// Puts remarks in front that say how many waits and allocations lack a part of what was known of them. Of CPU time, `lost` has that.
    fn tell_of_folded(&mut self) {
        let of = [(self.waits_folded, "wait"), (self.allocations_folded, "allocation")];
        for (count, what) in of.into_iter().filter(|(count, _)| *count > 0) {
            let verb = if count == 1 { "lacks" } else { "lack" };
            let counted = human::counted(count, what);
            self.remarks.insert(
                0,
                format!(
                    "about {counted} {verb} labels, scopes or stacks, for which there was no room"
                ),
            );
        }
        self.remarks.truncate(MOST_REMARKS);
    }

    fn other_function(&mut self) -> FunctionId {
        let name = self.other.clone();
        FunctionId(self.functions.other(Function { name, ..Function::default() }))
    }

    /// Adds a sample in its reduced form, because there is no room for the whole.
    fn add_folded(&mut self, sample: Sample, amount: Amount) {
        let state = sample.state;
        let room = self.bounds.samples.saturating_add(self.bounds.folded_samples);
        if self.samples.add(folded(sample), amount, room).is_some() {
            let unknown = Sample { complete: false, state, ..Sample::default() };
            self.samples.add(unknown, amount, usize::MAX);
        }
    }

    /// Cuts a sample to its bounds, and returns whether it lost scopes or labels.
    fn trim(&mut self, sample: &mut Sample) -> bool {
        let Bounds { depth, labels, .. } = self.bounds;
        if sample.stack.len() > depth {
            sample.stack.truncate(depth);
            sample.complete = false;
            let cut = if sample.state == State::OnCpu { sample.count.max(1) } else { 0 };
            self.lost.stacks_cut = self.lost.stacks_cut.saturating_add(cut);
        }
        let trimmed = sample.scopes.len() > labels || sample.labels.len() > labels;
        sample.scopes.truncate(labels);
        sample.labels.truncate(labels);
        trimmed
    }
}

/// The samples so far, each with its amount and the order in which it came.
#[derive(Debug, Default)]
struct Samples(HashMap<Sample, (usize, Amount)>);

#[derive(Clone, Copy, Debug)]
struct Amount {
    count: u64,
    time_ns: u64,
}

impl Samples {
    /// Adds to an equal sample, or adds a new one if there are fewer than `room`. Returns the sample if neither can be.
    fn add(&mut self, sample: Sample, amount: Amount, room: usize) -> Option<Sample> {
        let order = self.0.len();
        if let Some((_, sum)) = self.0.get_mut(&sample) {
            sum.count = sum.count.saturating_add(amount.count);
            sum.time_ns = sum.time_ns.saturating_add(amount.time_ns);
        } else if order < room {
            self.0.insert(sample, (order, amount));
        } else {
            return Some(sample);
        }
        None
    }

    fn into_vec(self) -> Vec<Sample> {
        let mut samples: Vec<_> = self.0.into_iter().collect();
        samples.sort_unstable_by_key(|(_, (order, _))| *order);
        let whole = |(sample, (_, Amount { count, time_ns }))| Sample { count, time_ns, ..sample };
        samples.into_iter().map(whole).collect()
    }
}

/// Things that are stored once, numbered in the order in which they came.
#[derive(Debug)]
struct Table<T> {
    ids: HashMap<T, u32>,
    /// The number of the thing that replaces those for which there is no room. The last place is reserved for it.
    other: Option<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { ids: HashMap::new(), other: None }
    }
}

impl<T: Eq + Hash> Table<T> {
    /// Returns the number of a thing, or `None` if it is new and there is no room.
    fn id(&mut self, thing: T, bound: usize) -> Option<u32> {
        if let Some(id) = self.ids.get(&thing) {
            return Some(*id);
        }
        let kept = usize::from(self.other.is_none());
        (self.ids.len().saturating_add(kept) < bound).then(|| self.insert(thing))
    }

    /// Returns the number of the thing that replaces others.
    fn other(&mut self, other: T) -> u32 {
        let id = self.insert(other);
        *self.other.get_or_insert(id)
    }

    fn insert(&mut self, thing: T) -> u32 {
        // The number fits: memory ends long before.
        let next = self.ids.len() as u32;
        *self.ids.entry(thing).or_insert(next)
    }

    fn into_vec(self) -> Vec<T> {
        let mut things: Vec<_> = self.ids.into_iter().collect();
        things.sort_unstable_by_key(|(_, id)| *id);
        things.into_iter().map(|(thing, _)| thing).collect()
    }
}

/// Returns the reduced form of a sample: what it keeps if there is no room for the whole.
fn folded(sample: Sample) -> Sample {
    let Sample { state, stack, task, woken_by, held_by, runtime, complete, .. } = sample;
    let [task, woken_by, held_by] = [task, woken_by, held_by]
        .map(|of| of.map(|task| TaskRef { id: None, parent: None, ..task }));
    Sample { state, stack, task, woken_by, held_by, runtime, complete, ..Sample::default() }
}

/// Returns the beginning of a text that is longer than `most` bytes.
fn cut(text: &str, most: usize) -> Option<String> {
    if text.len() <= most {
        return None;
    }
    let most = most.saturating_sub('…'.len_utf8());
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    Some(format!("{}…", &text[..end]))
}
