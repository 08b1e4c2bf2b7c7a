//! Folded stacks, which `flamegraph.pl`, inferno and speedscope read.
//!
//! Each stack is a line: its frames, root first and separated by `;`, then a space, then its weight.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use super::stacks::Stacks;
use super::{Profile, RootBy, Sample};

/// What the width of a frame stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Weight {
    /// The time in nanoseconds: CPU time, or that of the profile's state.
    #[default]
    Time,
    /// Numbers of samples, or of waits.
    Samples,
}

impl Profile {
    /// Writes the profile as folded stacks, in the alphabetical order of their frames.
    ///
    /// The format has no escapes, so some names change: `;` becomes `:`, a line break becomes a space, and a name that reads
    /// like a weight or a comment gets a `_`. An empty name becomes `-`.
    ///
    /// Lines are written one by one, so memory is for the profile's tables and not for its stacks.
    ///
    /// # Errors
    ///
    /// Returns the errors of `writer`.
    pub fn write_folded(&self, root: RootBy, weight: Weight, writer: impl Write) -> io::Result<()> {
        let stacks = Stacks::of(self, |sample| Some(root.of(sample)), harmless);
        lines(&stacks, |sample| weight.of(sample), writer)
    }

    /// Writes the time in all states, in nanoseconds, as [`write_folded`](Self::write_folded) does. Above each root stands the state, as
    /// in `GET /;waiting;app::handle 1000`.
    ///
    /// # Errors
    ///
    /// Returns the errors of `writer`.
    pub fn write_folded_lives(&self, root: RootBy, writer: impl Write) -> io::Result<()> {
        let state = |sample: &Sample| Some(sample.state.name().into());
        let stacks = Stacks::of_lives(self, |sample| Some(root.of(sample)), state, harmless);
        lines(&stacks, |sample| sample.time_ns, writer)
    }
}

/// Writes a line for each stack, with the sum of its weights.
fn lines(
    stacks: &Stacks<'_>,
    weight: impl Fn(&Sample) -> u64,
    writer: impl Write,
) -> io::Result<()> {
    let weight = |at: u32| weight(stacks.sample(at));
    let mut samples: Vec<u32> = (0..stacks.samples()).filter(|at| weight(*at) > 0).collect();
    samples.sort_unstable_by(|a, b| stacks.order(*a, *b));
    let mut writer = BufWriter::new(writer);
    for equal in samples.chunk_by(|a, b| stacks.order(*a, *b).is_eq()) {
        let weights = equal.iter().map(|at| weight(*at));
        line(&mut writer, stacks, equal[0], weights.fold(0, u64::saturating_add))?;
    }
    writer.flush()
}

fn line(to: &mut impl Write, stacks: &Stacks<'_>, sample: u32, weight: u64) -> io::Result<()> {
    for (at, frame) in stacks.frames(sample).enumerate() {
        if at > 0 {
            to.write_all(b";")?;
        }
        to.write_all(stacks.name(frame).as_bytes())?;
    }
    writeln!(to, " {weight}")
}

impl Weight {
    pub(super) fn of(self, sample: &Sample) -> u64 {
        match self {
            Self::Time => sample.time_ns,
            Self::Samples => sample.count,
        }
    }
}

/// Returns a name for the frame that no reader takes for anything else.
fn harmless(name: Cow<'_, str>) -> Cow<'_, str> {
    let frame: String = name.chars().map(harmless_char).collect();
    let mut frame = frame.trim().to_owned();
    if frame.is_empty() {
        return "-".into();
    }
    // Readers take `a 12` before a weight for two weights, the difference of two profiles.
    if let Some(at) = frame.rfind(' ')
        && frame[at + 1..].chars().all(|c| c.is_ascii_digit() || c == '.')
    {
        frame.replace_range(at..=at, "_");
    }
    // A line that begins like this is a comment.
    if frame.starts_with("# ") {
        frame.replace_range(1..2, "_");
    }
    if frame == name { name } else { frame.into() }
}

fn harmless_char(c: char) -> char {
    match c {
        ';' => ':',
        // Some readers take the first two for the end of a line. XML has no place for the last two.
        '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}' => ' ',
        c if c.is_control() => ' ',
        c => c,
    }
}
