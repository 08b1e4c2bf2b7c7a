//! Stacks as numbers, for what writes every stack in full: they compare and merge without text, and are never in memory as text.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;

use super::frames::INCOMPLETE;
use super::{LocationId, Profile, Sample};

/// The names of a profile's frames, and the stacks that are made of them.
///
/// A frame is the place of its name among all names in alphabetical order, so frames of one name are one.
pub(super) struct Stacks<'a> {
    /// The samples: those of the profile, and behind them, if they are wanted, those off the CPU.
    parts: [&'a [Sample]; 2],
    names: Vec<Cow<'a, str>>,
    /// The frames of all locations, the outermost first, and where those of each location are.
    frames: Vec<u32>,
    at: Vec<Range<usize>>,
    /// The frame from which each sample's stack grows.
    roots: Vec<Option<u32>>,
    /// The frame of each sample's state, which stands above the root, if states are wanted.
    states: Vec<Option<u32>>,
    incomplete: u32,
    /// The frame of a location that the profile does not have.
    unknown: u32,
}

impl<'a> Stacks<'a> {
    /// Collects the stacks of a profile. `root` says what each grows from, and `shown` how a name is written.
    pub(super) fn of(
        profile: &'a Profile,
        root: impl Fn(&'a Sample) -> Option<Cow<'a, str>>,
        shown: impl Fn(Cow<'a, str>) -> Cow<'a, str>,
    ) -> Self {
        Self::of_parts(profile, [&profile.samples, &[]], root, |_| None, shown)
    }

    /// Collects the stacks of all states of a profile. `state` says which frame stands between a root and its stack.
    pub(super) fn of_lives(
        profile: &'a Profile,
        root: impl Fn(&'a Sample) -> Option<Cow<'a, str>>,
        state: impl Fn(&'a Sample) -> Option<Cow<'a, str>>,
        shown: impl Fn(Cow<'a, str>) -> Cow<'a, str>,
    ) -> Self {
        Self::of_parts(profile, [&profile.samples, &profile.off_cpu], root, state, shown)
    }

    fn of_parts(
        profile: &'a Profile,
        parts: [&'a [Sample]; 2],
        root: impl Fn(&'a Sample) -> Option<Cow<'a, str>>,
        state: impl Fn(&'a Sample) -> Option<Cow<'a, str>>,
        shown: impl Fn(Cow<'a, str>) -> Cow<'a, str>,
    ) -> Self {
        let mut names = Names::default();
        let mut frame = |name: Cow<'a, str>| names.id(name, &shown);
        let (mut frames, mut at) = (Vec::new(), Vec::new());
        for location in &profile.locations {
            let from = frames.len();
            frames.extend(profile.names_at(location).into_iter().rev().map(&mut frame));
            at.push(from..frames.len());
        }
        let samples = || parts.into_iter().flatten();
        let roots: Vec<_> = samples().map(|it| root(it).map(&mut frame)).collect();
        let states: Vec<_> = samples().map(|it| state(it).map(&mut frame)).collect();
        let (incomplete, unknown) =
            (frame(INCOMPLETE.into()), frame(super::frames::UNKNOWN.into()));
        let (names, place_of) = names.in_order();
        let place = |id: u32| place_of[id as usize];
        frames.iter_mut().for_each(|frame| *frame = place(*frame));
        let [roots, states] =
            [roots, states].map(|all| all.into_iter().map(|id| id.map(place)).collect());
        let (incomplete, unknown) = (place(incomplete), place(unknown));
        Self { parts, names, frames, at, roots, states, incomplete, unknown }
    }

    /// Returns a frame's name.
    pub(super) fn name(&self, frame: u32) -> &str {
        &self.names[frame as usize]
    }

    /// Returns how many names there are. Every frame is below.
    #[cfg(feature = "firefox")]
    pub(super) fn names(&self) -> usize {
        self.names.len()
    }

    /// Returns the number of samples.
    pub(super) fn samples(&self) -> u32 {
        self.parts.iter().map(|part| part.len() as u32).sum()
    }

    /// Returns the sample at this place: those off the CPU come behind the others.
    pub(super) fn sample(&self, at: u32) -> &'a Sample {
        let [first, second] = self.parts;
        let at = at as usize;
        first.get(at).unwrap_or_else(|| &second[at - first.len()])
    }

    /// Returns the frames of a sample, root first.
    pub(super) fn frames(&self, sample: u32) -> impl Iterator<Item = u32> {
        self.above(sample).chain(self.rest(&self.sample(sample).stack))
    }

    /// Compares two samples by their frames, root first.
    pub(super) fn order(&self, a: u32, b: u32) -> Ordering {
        let (stack_a, stack_b) = (&*self.sample(a).stack, &*self.sample(b).stack);
        if !self.above(a).eq(self.above(b)) {
            return self.frames(a).cmp(self.frames(b));
        }
        // What is one location in both stacks is not unfolded.
        let same = stack_a.iter().rev().zip(stack_b.iter().rev()).take_while(|(a, b)| a == b);
        let same = same.count();
        let rest = |stack: &'a [LocationId]| self.rest(&stack[..stack.len() - same]);
        rest(stack_a).cmp(rest(stack_b))
    }

    /// Returns the frames that stand before a sample's stack: its root, its state, and the one for callers that were not reached.
    fn above(&self, sample: u32) -> impl Iterator<Item = u32> {
        let start = (!self.sample(sample).complete).then_some(self.incomplete);
        let at = sample as usize;
        self.roots[at].into_iter().chain(self.states[at]).chain(start)
    }

    fn rest(&self, stack: &'a [LocationId]) -> impl Iterator<Item = u32> {
        stack.iter().rev().flat_map(|id| self.at_location(*id)).copied()
    }

    fn at_location(&self, id: LocationId) -> &[u32] {
        let at = self.at.get(id.0 as usize);
        at.map_or(std::slice::from_ref(&self.unknown), |at| &self.frames[at.clone()])
    }
}

/// Names as they come, each once.
#[derive(Default)]
struct Names<'a> {
    ids: HashMap<Cow<'a, str>, u32>,
    /// The number of a name by its address, because a file can give one long name to many functions.
    by_address: HashMap<(*const u8, usize), u32>,
}

impl<'a> Names<'a> {
    fn id(&mut self, name: Cow<'a, str>, shown: impl Fn(Cow<'a, str>) -> Cow<'a, str>) -> u32 {
        let Cow::Borrowed(text) = name else { return self.add(shown(name)) };
        let address = (text.as_ptr(), text.len());
        if let Some(id) = self.by_address.get(&address) {
            return *id;
        }
        let id = self.add(shown(name));
        self.by_address.insert(address, id);
        id
    }

    fn add(&mut self, name: Cow<'a, str>) -> u32 {
        let next = self.ids.len() as u32;
        *self.ids.entry(name).or_insert(next)
    }

    /// Returns the names in alphabetical order, and the place of each.
    fn in_order(self) -> (Vec<Cow<'a, str>>, Vec<u32>) {
        let mut names: Vec<_> = self.ids.into_iter().collect();
        names.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut place_of = vec![0; names.len()];
        for (place, (_, id)) in (0..).zip(&names) {
            place_of[*id as usize] = place;
        }
        (names.into_iter().map(|(name, _)| name).collect(), place_of)
    }
}
