//! A flamegraph with its root at the top (an icicle graph): one SVG that needs nothing else, to be opened in a browser.
//!
//! The frames of all stacks are merged into a tree of what is wide enough to be seen ([`tree`]), and the tree is written as it
//! is ([`svg`]). The picture can be read without its script, which adds zooming and searching.
//!
//! Names come from a file that nobody has to trust. They are written by [`text::Escaped`] and by nothing else, as text and never
//! as a part of the script or the style; the script in turn reads and writes them only as text.

mod color;
mod frame;
mod svg;
mod text;
mod tree;

use std::io::{self, Write};

use super::{Profile, RootBy, Weight};
use frame::Frames;
use tree::Tree;

/// How a flamegraph looks, and how much of a profile it draws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlamegraphOptions {
    /// What its stacks grow from.
    pub root: RootBy,
    /// What the width of a frame means.
    pub weight: Weight,
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
    /// CPU time by task, 1,200 pixels wide, in which a frame has at least a tenth of a pixel.
    fn default() -> Self {
        Self {
            root: RootBy::default(),
            weight: Weight::default(),
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
    /// The width that is drawn: one in which there is room for a name, and no number overflows.
    fn width(&self) -> u32 {
        self.width_px.clamp(300, 100_000)
    }
}

impl Profile {
    /// Writes the profile as an SVG, with how it was taken and what was lost below the title.
    ///
    /// Memory and the picture's size are bounded by what is drawn, whatever the stacks are.
    ///
    /// # Errors
    ///
    /// Those of `writer`.
    pub fn write_flamegraph(
        &self,
        options: &FlamegraphOptions,
        writer: impl Write,
    ) -> io::Result<()> {
        let frames = Frames::of(self, options.root);
        let tree = Tree::grow(&frames, options);
        svg::write(&frames, &tree, options, writer)
    }
}
