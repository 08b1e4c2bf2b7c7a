//! The stacks of a profile, merged into a tree of what is wide enough to be seen.
//!
//! Samples are parted by their frames, a level at a time: the samples of a box are a slice of one list of all samples, and their
//! children's are parts of that slice. So the memory is for the samples and for the boxes that are drawn, however deep stacks are
//! and however much of them is inlined. Samples at one place go through what is inlined there as one, so that the time is for the
//! stacks as the profile has them, and not for what they unfold to. The widest box is parted first, so that a bound on boxes leaves out the narrowest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::Sum;
use std::ops::{Add, Range};

use super::super::{LocationId, Sample, State, Weight};
use super::frame::{Frame, Frames};
use super::options::FlamegraphOptions;

/// Samples: how many, and the time that they stand for. No sum of a profile's overflows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) time_ns: u128,
    pub(super) samples: u128,
}

/// A box of the picture.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) frame: Frame,
    /// The state of its samples, or `None` if they are of several.
    pub(super) state: Option<State>,
    /// Rows above it.
    pub(super) depth: usize,
    /// Where it begins, in units of the weight.
    pub(super) start: u128,
    pub(super) total: Amount,
    /// What its callees that are not drawn had.
    pub(super) hidden: Amount,
    /// Its drawn callees' places in [`Tree::nodes`].
    pub(super) children: Range<usize>,
}

/// What is not drawn: how many boxes' callees, and what those callees had together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hidden {
    pub(super) frames: usize,
    pub(super) amount: Amount,
}

/// The boxes of the picture.
#[derive(Debug)]
pub(super) struct Tree {
    /// The boxes: the root first, and the children of each in order.
    pub(super) nodes: Vec<Node>,
    /// Boxes that are too narrow, without those below them.
    pub(super) narrow: Hidden,
    /// Boxes at the lowest row that called something, and what that had.
    pub(super) deep: Hidden,
}

impl Tree {
    pub(super) fn grow(frames: &Frames<'_>, options: &FlamegraphOptions) -> Self {
        let mut grower = Grower::new(frames, options);
        while let Some(branch) = grower.branches.pop() {
            let Reverse(node) = branch.node;
            let groups = grower.groups(&branch);
            if grower.tree.nodes[node].depth < grower.most_depth {
                grower.part(node, groups);
            } else {
                grower.stop(node, &groups);
            }
        }
        grower.tree
    }

    pub(super) fn root(&self) -> &Node {
        &self.nodes[0]
    }

    /// What a box had itself, and no callee of it.
    pub(super) fn own(&self, node: &Node) -> Amount {
        let callees = self.nodes[node.children.clone()].iter().map(|child| child.total);
        node.total.without(callees.sum::<Amount>() + node.hidden)
    }

    /// The boxes in the order in which one reads them: each before its callees, and those before its neighbour.
    pub(super) fn in_reading_order(&self) -> impl Iterator<Item = &Node> {
        let mut waiting = vec![0];
        std::iter::from_fn(move || {
            let node = &self.nodes[waiting.pop()?];
            waiting.extend(node.children.clone().rev());
            Some(node)
        })
    }
}

/// Samples that are yet to be parted. The widest comes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Branch {
    weight: u128,
    node: Reverse<usize>,
    range: Entries,
    inlined: Option<Inlined>,
}

/// What is still to be followed of a place at which all samples of a box are. They themselves are behind it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Inlined {
    at: LocationId,
    lines: u32,
}

/// A part of the list of samples. Its end is exclusive.
type Entries = (usize, usize);

/// Where a sample's stack has been followed to.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The frame that it was last parted by, or `None` where its stack has ended.
    frame: Option<Frame>,
    sample: u32,
    /// What is still to be followed: locations, and functions of the location that was begun.
    locations: u32,
    lines: u32,
    /// Which of the rows before those of its stack are done.
    begun: Begun,
}

#[derive(Clone, Copy, Debug)]
enum Begun {
    No,
    AtRoot,
    AtState,
    InStack,
}

/// Boxes that the samples of one box were parted into.
struct Group {
    frame: Frame,
    entries: Entries,
    total: Amount,
    inlined: Option<Inlined>,
}

struct Grower<'a> {
    frames: &'a Frames<'a>,
    weight: Weight,
    /// A box of less is too narrow, as a fraction of the whole.
    narrow: (u128, u128),
    most_frames: usize,
    most_depth: usize,
    entries: Vec<Entry>,
    branches: BinaryHeap<Branch>,
    tree: Tree,
}

impl<'a> Grower<'a> {
    fn new(frames: &'a Frames<'a>, options: &FlamegraphOptions) -> Self {
        let weight = options.weight();
        let samples = (0..).zip(frames.samples.iter().copied());
        let weighty = samples.filter(|(_, sample)| Amount::of(sample).by(weight) > 0);
        let entries: Vec<_> = weighty.map(|(index, sample)| Entry::new(index, sample)).collect();
        let whole = total(frames, &entries);
        let root = Node {
            frame: Frame::All,
            state: (!frames.is_of_life).then_some(frames.profile.state),
            depth: 0,
            start: 0,
            total: whole,
            hidden: Amount::default(),
            children: 0..0,
        };
        let all = Branch {
            weight: whole.by(weight),
            node: Reverse(0),
            range: (0, entries.len()),
            inlined: None,
        };
        Self {
            frames,
            weight,
            narrow: (options.min_width_millipx.into(), u128::from(options.width()) * 1_000),
            most_frames: options.max_frames,
            most_depth: options.max_depth.saturating_sub(1),
            entries,
            branches: BinaryHeap::from([all]),
            tree: Tree { nodes: vec![root], narrow: Hidden::default(), deep: Hidden::default() },
        }
    }

    /// Makes boxes of those groups that are wide enough.
    fn part(&mut self, node: usize, groups: Vec<Group>) {
        let (mut drawn, narrow) = self.sift(groups);
        let hidden = narrow.iter().map(|group| group.total).sum();
        self.tree.narrow.frames += narrow.len();
        self.tree.narrow.amount = self.tree.narrow.amount + hidden;
        drawn.sort_unstable_by(|a, b| self.frames.order(a.frame, b.frame));
        let first = self.tree.nodes.len();
        self.tree.nodes[node].hidden = hidden;
        self.tree.nodes[node].children = first..first + drawn.len();
        let mut start = self.tree.nodes[node].start;
        for group in drawn {
            self.add(&group, node, start);
            start += group.total.by(self.weight);
        }
    }

    fn add(&mut self, group: &Group, parent: usize, start: u128) {
        let Node { depth, state, .. } = self.tree.nodes[parent];
        self.branches.push(Branch {
            weight: group.total.by(self.weight),
            node: Reverse(self.tree.nodes.len()),
            range: group.entries,
            inlined: group.inlined,
        });
        self.tree.nodes.push(Node {
            frame: group.frame,
            state: group.frame.state().or(state),
            depth: depth + 1,
            start,
            total: group.total,
            hidden: Amount::default(),
            children: 0..0,
        });
    }

    /// Leaves out what a box in the lowest row called.
    fn stop(&mut self, node: usize, groups: &[Group]) {
        if groups.is_empty() {
            return;
        }
        let hidden = groups.iter().map(|group| group.total).sum();
        self.tree.nodes[node].hidden = hidden;
        self.tree.deep.frames += 1;
        self.tree.deep.amount = self.tree.deep.amount + hidden;
    }

    /// Follows the samples of a box by one frame, and parts them by it. Those whose stacks end are in no group.
    fn groups(&mut self, branch: &Branch) -> Vec<Group> {
        match branch.inlined {
            Some(inlined) => vec![self.follow_as_one(branch, inlined)],
            None => self.follow_each(branch.range),
        }
    }

    fn follow_as_one(&self, branch: &Branch, Inlined { at, lines }: Inlined) -> Group {
        let rest = lines - 1;
        let line = self.frames.profile.locations[at.0 as usize].lines[rest as usize];
        let Reverse(node) = branch.node;
        Group {
            frame: self.frames.function(line.function),
            entries: branch.range,
            total: self.tree.nodes[node].total,
            inlined: (rest > 0).then_some(Inlined { at, lines: rest }),
        }
    }

    fn follow_each(&mut self, (from, to): Entries) -> Vec<Group> {
        let slice = &mut self.entries[from..to];
        for entry in slice.iter_mut() {
            entry.frame = entry.next(self.frames);
        }
        slice.sort_unstable_by_key(|entry| entry.frame);
        let mut groups = Vec::new();
        let mut at = from;
        for equal in slice.chunk_by_mut(|a, b| a.frame == b.frame) {
            let entries = (at, at + equal.len());
            at = entries.1;
            if let Some(frame) = equal[0].frame {
                let total = total(self.frames, equal);
                let inlined = take_inlined(self.frames, equal);
                groups.push(Group { frame, entries, total, inlined });
            }
        }
        groups
    }

    /// Those groups that are drawn, and those that are not.
    fn sift(&self, groups: Vec<Group>) -> (Vec<Group>, Vec<Group>) {
        let whole = self.tree.root().total.by(self.weight);
        let (least, width) = self.narrow;
        let is_wide = |group: &Group| group.total.by(self.weight) * width >= least * whole;
        let (mut drawn, mut narrow): (Vec<_>, Vec<_>) = groups.into_iter().partition(is_wide);
        let room = self.most_frames.saturating_sub(self.tree.nodes.len());
        if drawn.len() > room {
            drawn.sort_by_key(|group| Reverse(group.total.by(self.weight)));
            narrow.extend(drawn.drain(room..));
        }
        (drawn, narrow)
    }
}

impl Entry {
    fn new(sample: u32, of: &Sample) -> Self {
        let locations = of.stack.len() as u32;
        Self { frame: None, sample, locations, lines: 0, begun: Begun::No }
    }

    /// The next frame, from the root on.
    fn next(&mut self, frames: &Frames<'_>) -> Option<Frame> {
        let sample = frames.samples[self.sample as usize];
        match self.begun {
            Begun::No => {
                self.begun = Begun::AtRoot;
                Some(frames.root(self.sample as usize))
            }
            Begun::AtRoot if frames.is_of_life => {
                self.begun = Begun::AtState;
                Some(Frame::State(sample.state))
            }
            Begun::AtRoot | Begun::AtState if !sample.complete => {
                self.begun = Begun::InStack;
                Some(Frame::Incomplete)
            }
            Begun::AtRoot | Begun::AtState | Begun::InStack => {
                self.begun = Begun::InStack;
                self.next_in_stack(sample, frames)
            }
        }
    }

    fn next_in_stack(&mut self, sample: &Sample, frames: &Frames<'_>) -> Option<Frame> {
        let begins = self.lines == 0;
        if begins {
            self.locations = self.locations.checked_sub(1)?;
        }
        let id = sample.stack[self.locations as usize];
        let lines = frames.profile.location(id).map_or(&[][..], |location| &location.lines);
        if begins {
            self.lines = lines.len() as u32;
        }
        if self.lines == 0 {
            return Some(frames.code(id));
        }
        self.lines -= 1;
        Some(frames.function(lines[self.lines as usize].function))
    }
}

impl Amount {
    fn of(sample: &Sample) -> Self {
        Self { time_ns: sample.time_ns.into(), samples: sample.count.into() }
    }

    /// How much it is in units of the weight.
    pub(super) fn by(self, weight: Weight) -> u128 {
        match weight {
            Weight::Time => self.time_ns,
            Weight::Samples => self.samples,
        }
    }

    fn without(self, part: Self) -> Self {
        Self { time_ns: self.time_ns - part.time_ns, samples: self.samples - part.samples }
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { time_ns: self.time_ns + other.time_ns, samples: self.samples + other.samples }
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Add::add)
    }
}

/// Puts samples behind the place that they are in, if it is one place. What is inlined there is still to be followed.
fn take_inlined(frames: &Frames<'_>, entries: &mut [Entry]) -> Option<Inlined> {
    let place = |entry: &Entry| {
        let sample = frames.samples[entry.sample as usize];
        (entry.lines > 0)
            .then(|| Inlined { at: sample.stack[entry.locations as usize], lines: entry.lines })
    };
    let inlined = place(&entries[0])?;
    if entries.iter().any(|entry| place(entry) != Some(inlined)) {
        return None;
    }
    entries.iter_mut().for_each(|entry| entry.lines = 0);
    Some(inlined)
}

fn total(frames: &Frames<'_>, entries: &[Entry]) -> Amount {
    entries.iter().map(|entry| Amount::of(frames.samples[entry.sample as usize])).sum()
}
