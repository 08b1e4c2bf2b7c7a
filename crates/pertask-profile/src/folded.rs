//! Folded stacks, which `flamegraph.pl`, inferno and speedscope read.
//!
//! Each stack is a line: its frames, root first and separated by `;`, then a space, then its weight.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{Profile, RootBy, Sample};

/// What the width of a frame stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Weight {
    /// CPU time in nanoseconds.
    #[default]
    CpuNs,
    /// Numbers of samples.
    Samples,
}

impl Profile {
    /// Writes the profile as folded stacks, in alphabetical order.
    ///
    /// The format has no escapes, so some names change: `;` becomes `:`, a line break becomes a space, and a name that reads
    /// like a weight or a comment gets a `_`. An empty name becomes `-`.
    ///
    /// # Errors
    ///
    /// Returns the errors of `writer`.
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

    /// Returns the stacks that have a weight, each with its weight.
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

/// Returns a name for the frame that no reader takes for anything else.
fn harmless(name: &str) -> String {
    let frame: String = name.chars().map(harmless_char).collect();
    let mut frame = frame.trim().to_owned();
    if frame.is_empty() {
        return "-".to_owned();
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
    frame
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
