//! A flamegraph with its root at the top (an icicle graph): one SVG that needs nothing else, to be opened in a browser.
//!
//! The frames of all stacks are merged into a tree of what is wide enough to be seen ([`tree`]), and the tree is written as it
//! is ([`svg`]). The picture can be read without its script, which adds zooming and searching.
//!
//! Names come from a file that nobody has to trust. They are written by [`text::Escaped`] and by nothing else, as text and never
//! as a part of the script or the style; the script in turn reads and writes them only as text.

mod color;
mod frame;
mod options;
mod svg;
mod text;
mod tree;

use std::io::{self, Write};

use super::Profile;
use frame::Frames;
pub use options::FlamegraphOptions;
use tree::Tree;

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
        let frames = Frames::of(self, options);
        let tree = Tree::grow(&frames, options);
        svg::write(&frames, &tree, options, writer)
    }
}
