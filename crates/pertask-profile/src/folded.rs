//! Folded stacks: a line for each stack, its frames root first and parted by `;`, a blank, and its weight. What
//! `flamegraph.pl`, inferno and speedscope read.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{Profile, RootBy, Sample};

/// What the width of a frame means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Weight {
    /// Nanoseconds of CPU time.
    #[default]
    CpuNs,
    /// Samples.
    Samples,
}

impl Profile {
    /// Writes the profile as folded stacks, in the order of their text.
    ///
    /// The format has no escapes: in names, `;` becomes `:`, and what would end a line or be taken for a weight or for a
    /// comment becomes something that does not.
    ///
    /// # Errors
    ///
    /// Those of `writer`.
    pub fn write_folded(
        &self,
        root: RootBy,
        weight: Weight,
        mut writer: impl Write,
    ) -> io::Result<()> {
        for (stack, weight) in self.folded(root, weight) {
            writeln!(writer, "{stack} {weight}")?;
        }
        writer.flush()
    }

    /// The stacks, and the weight of each. None has no weight.
    pub(super) fn folded(&self, root: RootBy, weight: Weight) -> BTreeMap<String, u64> {
        let mut stacks = BTreeMap::new();
        for sample in &self.samples {
            let sum: &mut u64 = stacks.entry(self.fold(root, sample)).or_default();
            *sum = sum.saturating_add(weight.of(sample));
        }
        stacks.retain(|_, weight| *weight != 0);
        stacks
    }

    fn fold(&self, root: RootBy, sample: &Sample) -> String {
        let mut stack = harmless(&root.of(sample));
        for frame in self.frames(sample) {
            stack.push(';');
            stack.push_str(&harmless(&frame));
        }
        stack
    }
}

impl Weight {
    pub(super) fn of(self, sample: &Sample) -> u64 {
        match self {
            Self::CpuNs => sample.cpu_ns,
            Self::Samples => sample.count,
        }
    }
}

/// A frame's name that no reader takes for anything else.
fn harmless(name: &str) -> String {
    let frame: String = name.chars().map(harmless_char).collect();
    let mut frame = frame.trim().to_owned();
    if frame.is_empty() {
        return "-".to_owned();
    }
    // `a 12` before a weight reads as two weights, the difference of two profiles.
    if let Some(at) = frame.rfind(' ')
        && frame[at + 1..].chars().all(|c| c.is_ascii_digit() || c == '.')
    {
        frame.replace_range(at..=at, "_");
    }
    // And a line that begins like this is a comment.
    if frame.starts_with("# ") {
        frame.replace_range(1..2, "_");
    }
    frame
}

fn harmless_char(c: char) -> char {
    match c {
        ';' => ':',
        // Some take these for the end of a line, and XML has no place for the last two.
        '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}' => ' ',
        c if c.is_control() => ' ',
        c => c,
    }
}
