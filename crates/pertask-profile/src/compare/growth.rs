//! What has become more, as a profile: for pictures, in which nothing can be less than nothing.

use std::ops::Range;

use super::super::stacks::Stacks;
use super::super::{
    FunctionId, Line, Location, LocationId, Lost, MappingId, Profile, RootBy, Sample, TaskRef,
};
use super::{Comparison, Measure, Side};

/// The stacks that have become more, made by [`Comparison::growth`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// These stacks, by how much they have grown. Numbers of samples are not known.
    pub profile: Profile,
    /// What the stacks that are left out have become less, together.
    pub shrunk: u64,
}

impl Comparison<'_> {
    /// Returns the stacks that are more after than before, and by how much. Stacks are alike if all their names are.
    ///
    /// If both profiles say how long they were, what was before is stretched to the length after.
    #[must_use]
    pub fn growth(&self, root: RootBy) -> Growth {
        let (mut both, after) = together(self.after.compared(), self.before.compared());
        let stacks = Stacks::of(&both, |sample| Some(root.of(sample)), |name| name);
        let mut order: Vec<u32> = (0..both.samples.len() as u32).collect();
        order.sort_unstable_by(|a, b| stacks.order(*a, *b));
        let (mut grown, mut shrunk) = (Vec::new(), 0u64);
        for equal in order.chunk_by(|a, b| stacks.order(*a, *b).is_eq()) {
            let (more, less) = self.sums(equal, &both.samples, &after);
            shrunk = shrunk.saturating_add(less.saturating_sub(more));
            let sample = equal.iter().find(|at| after.contains(&(**at as usize)));
            if let Some(at) = sample
                && more > less
            {
                let sample = &both.samples[*at as usize];
                grown.push(shown(sample, root, self.measure, more - less));
            }
        }
        drop(stacks);
        both.mechanism = self.told(shrunk);
        both.samples = grown;
        Growth { profile: both, shrunk }
    }

    /// Returns what these samples are after and before.
    fn sums(&self, of: &[u32], samples: &[Sample], after: &Range<usize>) -> (u64, u64) {
        let (mut more, mut less) = (0u64, 0u64);
        for at in of {
            let at = *at as usize;
            let sum = if after.contains(&at) { &mut more } else { &mut less };
            *sum = sum.saturating_add(self.measure.of(super::Amount::of(&samples[at])));
        }
        (more, self.stretched(less))
    }

    /// Returns what there would have been before in the time after.
    fn stretched(&self, before: u64) -> u64 {
        let length = |side: Side<'_>| u128::from(side.whole.duration_ns);
        let (from, to) = (length(self.before), length(self.after));
        if self.is_net || from == 0 || to == 0 {
            return before;
        }
        u64::try_from(u128::from(before) * to / from).unwrap_or(u64::MAX)
    }

    fn told(&self, shrunk: u64) -> String {
        format!(
            "growth alone: what stacks have more {} than before; {} that other stacks have less is left out",
            self.measure.name(),
            self.measure.shown(shrunk)
        )
    }
}

/// Returns both profiles as one that says nothing of numbers of samples, and which of its samples are of the first.
fn together(first: &Profile, second: &Profile) -> (Profile, Range<usize>) {
    let from = [first.locations.len(), first.functions.len(), first.mappings.len()];
    let [locations, functions, mappings] = from.map(|from| from as u32);
    let mut both = first.clone();
    both.has_counts = false;
    both.lost = Lost::default();
    both.remarks.clear();
    both.off_cpu.clear();
    both.locations.extend(second.locations.iter().map(|location| Location {
        address: location.address,
        mapping: location.mapping.map(|id| MappingId(id.0.saturating_add(mappings))),
        lines: location.lines.iter().map(|line| moved(*line, functions)).collect(),
    }));
    both.functions.extend_from_slice(&second.functions);
    both.mappings.extend_from_slice(&second.mappings);
    both.samples.extend(second.samples.iter().map(|sample| {
        let stack = sample.stack.iter().map(|id| LocationId(id.0.saturating_add(locations)));
        Sample { stack: stack.collect(), ..sample.clone() }
    }));
    (both, 0..first.samples.len())
}

fn moved(line: Line, by: u32) -> Line {
    Line { function: FunctionId(line.function.0.saturating_add(by)), ..line }
}

/// Returns the sample with only what all samples of its stack have in common, and that much of the measure.
fn shown(sample: &Sample, root: RootBy, measure: Measure, value: u64) -> Sample {
    let task = sample.task.clone().map(|task| TaskRef { id: None, parent: None, ..task });
    let thread = sample.thread.clone().filter(|_| root == RootBy::Thread);
    let Sample { state, stack, runtime, complete, .. } = sample.clone();
    let mut shown = Sample { state, stack, task, runtime, thread, complete, ..Sample::default() };
    measure.set(&mut shown, value);
    shown
}
