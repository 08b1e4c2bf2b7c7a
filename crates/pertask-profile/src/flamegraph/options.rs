//! How a flamegraph looks: plain data.

use super::super::{RootBy, Weight};

/// How a flamegraph looks, and how much of a profile it draws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlamegraphOptions {
    /// What its stacks grow from.
    pub root: RootBy,
    /// What the width of a frame means.
    pub weight: Weight,
    /// Whether it shows whole lives: the samples off the CPU as well, below each root a box for each state. Colours are those of the
    /// states, and widths are time, whatever the weight.
    pub whole_life: bool,
    /// Its title, or `None` for one that says what is shown.
    pub title: Option<String>,
    /// What stands below the title, or `None` for how the profile was taken and what was lost.
    pub subtitle: Option<String>,
    /// The picture's width in pixels, until a script fits it to a window.
    pub width_px: u32,
    /// Frames narrower than this many thousandths of a pixel are not drawn. The picture says how much time they had.
    pub min_width_millipx: u32,
    /// Frames that are drawn at most, the widest.
    pub max_frames: usize,
    /// Rows of frames at most. The picture says how much time was spent deeper.
    pub max_depth: usize,
}

impl Default for FlamegraphOptions {
    /// The profile's time by task, 1,200 pixels wide, in which a frame has at least a tenth of a pixel.
    fn default() -> Self {
        Self {
            root: RootBy::default(),
            weight: Weight::default(),
            whole_life: false,
            title: None,
            subtitle: None,
            width_px: 1_200,
            min_width_millipx: 100,
            max_frames: 50_000,
            max_depth: 1_024,
        }
    }
}

impl FlamegraphOptions {
    /// What the width of a frame means: time if several states are drawn, because numbers of samples and of waits are no sum.
    pub(super) fn weight(&self) -> Weight {
        if self.whole_life { Weight::Time } else { self.weight }
    }

    /// The width that is drawn: one in which there is room for a name, and no number overflows.
    pub(super) fn width(&self) -> u32 {
        self.width_px.clamp(300, 100_000)
    }
}
