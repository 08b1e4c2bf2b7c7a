//! A flamegraph with its root at the top (an icicle graph): an SVG that stands alone, drawn by inferno.

use std::io::{self, Write};

use inferno::flamegraph::color::MultiPalette;
use inferno::flamegraph::{self, Direction, Options, Palette};

use super::{Profile, RootBy, Weight};

/// How a flamegraph looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlamegraphOptions {
    /// What its stacks grow from.
    pub root: RootBy,
    /// What the width of a frame means.
    pub weight: Weight,
    /// Its title, or `None` for one that says what is shown.
    pub title: Option<String>,
}

impl Profile {
    /// Writes the profile as an SVG, with how it was taken and what was lost below the title.
    ///
    /// # Errors
    ///
    /// Those of `writer`.
    pub fn write_flamegraph(
        &self,
        options: &FlamegraphOptions,
        writer: impl Write,
    ) -> io::Result<()> {
        let stacks = self.folded(options.root, options.weight);
        // inferno takes an empty input for an error, and a sum beyond its integer for a bug.
        let mut room = u64::MAX / 2;
        let mut lines: Vec<String> = Vec::with_capacity(stacks.len());
        for (stack, weight) in stacks {
            let weight = weight.min(room);
            room -= weight;
            lines.push(format!("{stack} {weight}"));
        }
        if lines.is_empty() {
            lines.push("(no samples) 1".to_owned());
        }
        let lines = lines.iter().map(String::as_str);
        flamegraph::from_lines(&mut self.drawing(options), lines, writer)
    }

    fn drawing(&self, options: &FlamegraphOptions) -> Options<'static> {
        let mut drawing = Options::default();
        let title = options.title.as_deref().unwrap_or(match options.root {
            RootBy::TaskName => "CPU time by task",
            RootBy::Site => "CPU time by spawn site",
            RootBy::Thread => "CPU time by thread",
        });
        drawing.title = printable(title);
        drawing.subtitle = Some(printable(&self.subtitle()));
        (drawing.count_name, drawing.factor) = match options.weight {
            Weight::CpuNs => ("ms".to_owned(), 1e-6),
            Weight::Samples => ("samples".to_owned(), 1.0),
        };
        // Tasks are what one looks for first, and async stacks are deep: from the top, no scrolling comes before them.
        drawing.direction = Direction::Inverted;
        // The program's own functions stand out from std's and from libraries'.
        drawing.colors = Palette::Multi(MultiPalette::Rust);
        // The same function has the same colour in the next picture.
        drawing.deterministic = true;
        drawing
    }

    fn subtitle(&self) -> String {
        let count = self.samples.iter().fold(0_u64, |sum, sample| sum.saturating_add(sample.count));
        let mechanism = if self.mechanism.is_empty() { "sampled" } else { &self.mechanism };
        let seconds = self.duration_ns as f64 / 1e9;
        format!("{count} samples in {seconds:.2} s, {mechanism}; {}", self.lost)
    }
}

/// What XML has a place for.
fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'), " ")
}
