//! How a profile is made: names and places are kept once each, equal samples become one, and none of it grows without end.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{
    Function, FunctionId, Line, Location, LocationId, Lost, Mapping, MappingId, Profile, Sample,
    TaskRef,
};

/// Remarks of a profile.
pub(super) const MOST_REMARKS: usize = 100;

/// What stands for a name or a function that found no place.
const OTHER: &str = "(other)";

/// How large a profile may become. What finds no place is counted in [`Lost`], and its CPU time is in the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Samples that differ. Beyond, a sample keeps its stack, its task's name and site, and loses which task and thread it
    /// was, its scopes and its labels.
    pub samples: usize,
    /// Samples that differ in what such a one keeps. Beyond, all are one sample of which nothing is known.
    pub folded_samples: usize,
    /// Locations, and functions, and mappings. Beyond, a location is the one called `(other)`.
    pub locations: usize,
    /// Names. Beyond, each is `(other)`.
    pub texts: usize,
    /// Bytes of a name. What is longer is cut, and ends in `…`.
    pub text_bytes: usize,
    /// Frames of a stack. Beyond, the outermost are left out, and the stack is incomplete.
    pub depth: usize,
    /// Scopes of a sample, and labels: the outermost and the first are kept.
    pub labels: usize,
}

impl Default for Bounds {
    /// Some tens of megabytes at most in an ordinary profile.
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
    locations: Table<Location>,
    functions: Table<Function>,
    mappings: Table<Mapping>,
    texts: HashSet<Arc<str>>,
    other: Arc<str>,
    lost: Lost,
    remarks: Vec<String>,
}

impl ProfileBuilder {
    /// Begins a profile, now, of samples that were taken by `mechanism` and stand for `period_ns` of CPU time each.
    #[must_use]
    pub fn new(mechanism: impl Into<String>, period_ns: u64) -> Self {
        Self::with_bounds(mechanism, period_ns, Bounds::default())
    }

    /// The same, within other bounds.
    #[must_use]
    pub fn with_bounds(mechanism: impl Into<String>, period_ns: u64, bounds: Bounds) -> Self {
        Self {
            start: SystemTime::now(),
            mechanism: mechanism.into(),
            period_ns,
            bounds,
            samples: Samples::default(),
            locations: Table::default(),
            functions: Table::default(),
            mappings: Table::default(),
            texts: HashSet::new(),
            other: OTHER.into(),
            lost: Lost::default(),
            remarks: Vec::new(),
        }
    }

    /// Says that it began at another time.
    pub fn start(&mut self, start: SystemTime) -> &mut Self {
        self.start = start;
        self
    }

    /// The one copy of a name.
    pub fn text(&mut self, text: &str) -> Arc<str> {
        let cut = cut(text, self.bounds.text_bytes);
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
        text
    }

    /// The id of a mapping, or `None` where there is no room for it.
    pub fn mapping(&mut self, mapping: Mapping) -> Option<MappingId> {
        self.mappings.id(mapping, self.bounds.locations).map(MappingId)
    }

    /// The id of a function. Where there is no room for it, it is the one called `(other)`.
    pub fn function(&mut self, function: Function) -> FunctionId {
        if let Some(known) = self.functions.id(function, self.bounds.locations) {
            return FunctionId(known);
        }
        self.lost.locations_folded += 1;
        self.other_function()
    }

    /// The id of a location. Where there is no room for it, it is one of a function called `(other)`.
    pub fn location(&mut self, location: Location) -> LocationId {
        if let Some(known) = self.locations.id(location, self.bounds.locations) {
            return LocationId(known);
        }
        self.lost.locations_folded += 1;
        let lines = vec![Line { function: self.other_function(), line: 0 }];
        LocationId(self.locations.other(Location { lines, ..Location::default() }))
    }

    /// Adds samples.
    pub fn add(&mut self, mut sample: Sample) {
        let trimmed = self.trim(&mut sample);
        let amount =
            Amount { count: mem::take(&mut sample.count), cpu_ns: mem::take(&mut sample.cpu_ns) };
        if !sample.complete {
            self.lost.stacks_incomplete = self.lost.stacks_incomplete.saturating_add(amount.count);
        }
        let left = self.samples.add(sample, amount, self.bounds.samples);
        if trimmed || left.is_some() {
            self.lost.samples_folded = self.lost.samples_folded.saturating_add(amount.count);
        }
        if let Some(sample) = left {
            self.add_folded(sample, amount);
        }
    }

    /// Counts samples that were due and could not be taken.
    pub fn dropped(&mut self, samples: u64) {
        self.lost.samples_dropped = self.lost.samples_dropped.saturating_add(samples);
    }

    /// Counts threads that could not be sampled, and CPU time that is not in the profile.
    pub fn not_sampled(&mut self, threads: u64, cpu_ns: u64) {
        let Lost { threads_not_sampled, unsampled_cpu_ns, .. } = &mut self.lost;
        *threads_not_sampled = threads_not_sampled.saturating_add(threads);
        *unsampled_cpu_ns = unsampled_cpu_ns.saturating_add(cpu_ns);
    }

    /// Says something of it to people. Beyond a hundred remarks, none is kept.
    pub fn remark(&mut self, remark: impl Into<String>) {
        if self.remarks.len() < MOST_REMARKS {
            let remark = remark.into();
            self.remarks.push(cut(&remark, self.bounds.text_bytes).unwrap_or(remark));
        }
    }

    /// The profile, of so long a time. The samples are in the order in which they were first seen.
    #[must_use]
    pub fn finish(self, duration: Duration) -> Profile {
        Profile {
            start: self.start,
            duration_ns: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
            mechanism: self.mechanism,
            period_ns: self.period_ns,
            samples: self.samples.into_vec(),
            locations: self.locations.into_vec(),
            functions: self.functions.into_vec(),
            mappings: self.mappings.into_vec(),
            lost: self.lost,
            remarks: self.remarks,
        }
    }

    fn other_function(&mut self) -> FunctionId {
        let name = self.other.clone();
        FunctionId(self.functions.other(Function { name, ..Function::default() }))
    }

    /// Adds a sample for which there was no room as it is.
    fn add_folded(&mut self, sample: Sample, amount: Amount) {
        let room = self.bounds.samples.saturating_add(self.bounds.folded_samples);
        if self.samples.add(folded(sample), amount, room).is_some() {
            let unknown = Sample { complete: false, ..Sample::default() };
            self.samples.add(unknown, amount, usize::MAX);
        }
    }

    /// Cuts a sample to its bounds. Whether scopes or labels went.
    fn trim(&self, sample: &mut Sample) -> bool {
        let Bounds { depth, labels, .. } = self.bounds;
        if sample.stack.len() > depth {
            sample.stack.truncate(depth);
            sample.complete = false;
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
    cpu_ns: u64,
}

impl Samples {
    /// Adds to a sample that is there, or adds it if there are fewer than `room`; else gives it back.
    fn add(&mut self, sample: Sample, amount: Amount, room: usize) -> Option<Sample> {
        let order = self.0.len();
        if let Some((_, sum)) = self.0.get_mut(&sample) {
            sum.count = sum.count.saturating_add(amount.count);
            sum.cpu_ns = sum.cpu_ns.saturating_add(amount.cpu_ns);
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
        let whole = |(sample, (_, Amount { count, cpu_ns }))| Sample { count, cpu_ns, ..sample };
        samples.into_iter().map(whole).collect()
    }
}

/// Things that are kept once, numbered in the order in which they came.
#[derive(Debug)]
struct Table<T> {
    ids: HashMap<T, u32>,
    /// The one that stands for those which found no place: the last place is kept for it.
    other: Option<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { ids: HashMap::new(), other: None }
    }
}

impl<T: Eq + Hash> Table<T> {
    /// The number of a thing, or `None` if it is new and there is no room.
    fn id(&mut self, thing: T, bound: usize) -> Option<u32> {
        if let Some(id) = self.ids.get(&thing) {
            return Some(*id);
        }
        let kept = usize::from(self.other.is_none());
        (self.ids.len().saturating_add(kept) < bound).then(|| self.insert(thing))
    }

    /// The number of the one that stands for others.
    fn other(&mut self, other: T) -> u32 {
        let id = self.insert(other);
        *self.other.get_or_insert(id)
    }

    fn insert(&mut self, thing: T) -> u32 {
        // Bounds beyond this are none: memory ends long before.
        let next = self.ids.len() as u32;
        *self.ids.entry(thing).or_insert(next)
    }

    fn into_vec(self) -> Vec<T> {
        let mut things: Vec<_> = self.ids.into_iter().collect();
        things.sort_unstable_by_key(|(_, id)| *id);
        things.into_iter().map(|(thing, _)| thing).collect()
    }
}

/// What a sample keeps that found no place as it is.
fn folded(sample: Sample) -> Sample {
    let task = sample.task.map(|task| TaskRef { id: None, parent: None, ..task });
    Sample { stack: sample.stack, task, complete: sample.complete, ..Sample::default() }
}

/// The beginning of a text that is too long.
fn cut(text: &str, most: usize) -> Option<String> {
    if text.len() <= most {
        return None;
    }
    let most = most.saturating_sub('…'.len_utf8());
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    Some(format!("{}…", &text[..end]))
}
