//! Writes tracks: their tables of stacks and of samples.
//!
//! The table of stacks is a tree. A track's samples are put in the order of their stacks, so that each stack follows those that it
//! shares most with, and the tree is walked without being in memory: once for its leaves, and once for each of its columns.

use std::io::{self, Write};

use serde_json::value::RawValue;

use super::super::stacks::Stacks;
use super::super::{Profile, Sample, State};
use super::Track;
use super::outline::{self, Parts, parts};

/// No node, and no frame.
const NONE: u32 = u32::MAX;

/// Writes the tracks of a file one after another.
pub(super) struct Writer<'a, I> {
    profile: &'a Profile,
    stacks: &'a Stacks<'a>,
    tracks: I,
    /// For each sample, the node of the tree at which its stack ends.
    leaf_of: Vec<u32>,
    /// For each frame, its place in the track's table.
    place_of: Vec<u32>,
}

impl<'a, I: Iterator<Item = Track>> Writer<'a, I> {
    pub(super) fn new(profile: &'a Profile, stacks: &'a Stacks<'a>, tracks: I) -> Self {
        let (leaf_of, place_of) =
            (vec![NONE; stacks.samples() as usize], vec![NONE; stacks.names()]);
        Self { profile, stacks, tracks, leaf_of, place_of }
    }

    /// Writes all tracks, of which `outlines` has everything else.
    pub(super) fn all(&mut self, to: &mut impl Write, outlines: &RawValue) -> io::Result<()> {
        let outlines: Vec<Parts<'_>> = serde_json::from_str(outlines.get())?;
        to.write_all(b"[")?;
        for (at, outline) in outlines.iter().enumerate() {
            if at > 0 {
                to.write_all(b",")?;
            }
            let Some(track) = self.tracks.next() else { break };
            self.track(to, outline, &track)?;
        }
        to.write_all(b"]")
    }

    fn track(&mut self, to: &mut impl Write, outline: &Parts<'_>, track: &Track) -> io::Result<()> {
        let mut in_order = track.samples.clone();
        in_order.sort_unstable_by(|a, b| self.stacks.order(*a, *b));
        let tree = Tree { stacks: self.stacks, samples: &in_order };
        let frames = self.frames(&tree)?;
        let tables =
            serde_json::to_vec(&outline::of_frames(self.profile, track.state, frames.len()))?;
        let tables: Parts<'_> = serde_json::from_slice(&tables)?;
        let tables: Vec<Parts<'_>> = match tables.get("threads") {
            Some(threads) => serde_json::from_str(threads.get())?,
            None => Vec::new(),
        };
        let table = |key: &str| tables.first().and_then(|it| it.get(key).copied());
        parts(to, outline, |to, key, part| match (key, table(key)) {
            ("stackTable", _) => tree.write(to, &self.place_of),
            ("samples", _) => self.samples(to, track),
            ("stringArray", Some(numbers)) => self.strings(to, numbers, &frames),
            ("frameTable" | "funcTable", Some(table)) => to.write_all(table.get().as_bytes()),
            _ => to.write_all(part.get().as_bytes()),
        })?;
        frames.iter().for_each(|frame| self.place_of[*frame as usize] = NONE);
        Ok(())
    }

    /// Returns the frames of the track, and notes the place of each, and each sample's leaf.
    fn frames(&mut self, tree: &Tree<'_>) -> io::Result<Vec<u32>> {
        let mut frames = Vec::new();
        tree.walk(|step| {
            match step {
                Step::Node { frame, .. } => {
                    let place = &mut self.place_of[frame as usize];
                    if *place == NONE {
                        *place = frames.len() as u32;
                        frames.push(frame);
                    }
                }
                Step::Leaf { sample, node } => self.leaf_of[sample as usize] = node,
            }
            Ok(())
        })?;
        Ok(frames)
    }

    /// Writes the strings of a track, with the names of frames in place of their numbers.
    fn strings(&self, to: &mut impl Write, numbers: &RawValue, frames: &[u32]) -> io::Result<()> {
        let strings: Vec<String> = serde_json::from_str(numbers.get())?;
        to.write_all(b"[")?;
        column(to, strings.iter(), |to, string| {
            let frame = string.parse().ok().and_then(|number: usize| frames.get(number));
            Ok(serde_json::to_writer(
                to,
                frame.map_or(&**string, |frame| self.stacks.name(*frame)),
            )?)
        })?;
        to.write_all(b"]")
    }

    fn samples(&self, to: &mut impl Write, Track { state, samples, .. }: &Track) -> io::Result<()> {
        let sample = |at: &u32| self.stacks.sample(*at);
        write!(to, r#"{{"length":{},"weightType":"tracing-ms","stack":["#, samples.len())?;
        let leaves = samples.iter().map(|at| self.leaf_of[*at as usize]);
        column(to, leaves, |to, node| index(to, node))?;
        to.write_all(br#"],"timeDeltas":["#)?;
        let times = || Times { now_ns: 0, samples: samples.iter().map(sample) };
        column(to, times(), |to, (before_ns, now_ns)| {
            Ok(serde_json::to_writer(to, &((now_ns - before_ns) as f64 / 1_000_000.0))?)
        })?;
        to.write_all(br#"],"weight":["#)?;
        column(to, times(), |to, (before_ns, now_ns)| {
            write!(to, "{}", milliseconds(now_ns) - milliseconds(before_ns))
        })?;
        // The Profiler takes a track without the last column for one that is always busy, and draws it at its full height.
        if *state != State::OnCpu {
            return to.write_all(b"]}");
        }
        to.write_all(br#"],"threadCPUDelta":["#)?;
        let micros = samples.iter().map(|at| sample(at).time_ns / 1_000);
        column(to, micros, |to, micros| write!(to, "{micros}"))?;
        to.write_all(b"]}")
    }
}

/// The tree of the stacks of samples, which are in the order of their stacks.
struct Tree<'a> {
    stacks: &'a Stacks<'a>,
    samples: &'a [u32],
}

enum Step {
    /// A node, whose number is that of the nodes before it.
    Node { prefix: u32, frame: u32 },
    /// The node at which a sample's stack ends, or `NONE`.
    Leaf { sample: u32, node: u32 },
}

impl Tree<'_> {
    /// Visits the nodes in the order of their numbers, each before the leaves at it.
    fn walk(&self, mut visit: impl FnMut(Step) -> io::Result<()>) -> io::Result<()> {
        // The frames and the nodes of the last stack.
        let mut path: Vec<(u32, u32)> = Vec::new();
        let mut nodes = 0;
        for sample in self.samples {
            let mut depth = 0;
            for frame in self.stacks.frames(*sample) {
                if path.get(depth).is_none_or(|(of, _)| *of != frame) {
                    path.truncate(depth);
                    let prefix = path.last().map_or(NONE, |(_, node)| *node);
                    visit(Step::Node { prefix, frame })?;
                    path.push((frame, nodes));
                    nodes += 1;
                }
                depth += 1;
            }
            path.truncate(depth);
            let node = path.last().map_or(NONE, |(_, node)| *node);
            visit(Step::Leaf { sample: *sample, node })?;
        }
        Ok(())
    }

    fn write(&self, to: &mut impl Write, place_of: &[u32]) -> io::Result<()> {
        let mut length = 0_u64;
        to.write_all(br#"{"prefix":["#)?;
        self.nodes(|prefix, _| {
            separate(to, length)?;
            length += 1;
            index(to, prefix)
        })?;
        to.write_all(br#"],"frame":["#)?;
        let mut at = 0;
        self.nodes(|_, frame| {
            separate(to, at)?;
            at += 1;
            index(to, place_of[frame as usize])
        })?;
        write!(to, r#"],"length":{length}}}"#)
    }

    fn nodes(&self, mut visit: impl FnMut(u32, u32) -> io::Result<()>) -> io::Result<()> {
        self.walk(|step| match step {
            Step::Node { prefix, frame } => visit(prefix, frame),
            Step::Leaf { .. } => Ok(()),
        })
    }
}

/// The track's time before and after each sample, in nanoseconds.
struct Times<I> {
    now_ns: u64,
    samples: I,
}

impl<'a, I: Iterator<Item = &'a Sample>> Iterator for Times<I> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let before_ns = self.now_ns;
        self.now_ns = before_ns.saturating_add(self.samples.next()?.time_ns);
        Some((before_ns, self.now_ns))
    }
}

/// Rounded to the nearest.
fn milliseconds(ns: u64) -> u64 {
    ns.saturating_add(500_000) / 1_000_000
}

fn column<W: Write, T>(
    to: &mut W,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut W, T) -> io::Result<()>,
) -> io::Result<()> {
    for (at, item) in (0..).zip(items) {
        separate(to, at)?;
        write(to, item)?;
    }
    Ok(())
}

fn separate(to: &mut impl Write, at: u64) -> io::Result<()> {
    if at > 0 { to.write_all(b",") } else { Ok(()) }
}

fn index(to: &mut impl Write, index: u32) -> io::Result<()> {
    if index == NONE { to.write_all(b"null") } else { write!(to, "{index}") }
}
