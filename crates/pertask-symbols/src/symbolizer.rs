//! Finds the functions, files and lines of addresses.
//!
//! They come from DWARF if the file has it, inlined functions included, and otherwise from the symbol table. The symbolizer
//! compares build ids, so it never takes a name from a file that replaced the mapped one, as an update does.
//!
//! The symbolizer reads a module's file when somebody first asks for one of its addresses, within a limit of memory. It does not
//! map the file: if somebody truncates a mapped file, its reader is killed.

use crate::frame::{Frame, Names};
use crate::image::Image;
use crate::module::Module;
use crate::problem::Problem;
use std::collections::HashMap;
use std::sync::Arc;

/// The most addresses that are remembered.
const MOST_REMEMBERED: usize = 1 << 17;

/// Options of a [`Symbolizer`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SymbolizerOptions {
    /// The most memory for the contents of the modules' files. If a module needs more than is left, its names come from its
    /// symbol table or it has none, and [`Symbolizer::problems`] says so.
    pub memory_bytes: usize,
}

impl Default for SymbolizerOptions {
    /// Returns a limit of 1 GiB, which suffices for the debug build of a large program.
    fn default() -> Self {
        Self { memory_bytes: 1 << 30 }
    }
}

/// Finds the functions of addresses.
pub struct Symbolizer {
    modules: Vec<(Module, State)>,
    /// Each range of code, sorted by address: its end, its start, and the index of its module.
    ranges: Vec<(u64, u64, usize)>,
    known: HashMap<u64, Arc<[Frame]>>,
    names: Names,
    problems: Vec<Problem>,
    room_bytes: usize,
}

/// How much of a module has been read.
enum State {
    NotYet,
    Read(Box<Image>),
    Nothing,
}

impl Symbolizer {
    /// Returns a symbolizer for the addresses in these modules.
    #[must_use]
    pub fn new(modules: &[Module]) -> Self {
        Self::with_options(modules, &SymbolizerOptions::default())
    }

    /// Returns a symbolizer for the addresses in these modules, with the given options.
    #[must_use]
    pub fn with_options(modules: &[Module], options: &SymbolizerOptions) -> Self {
        let of_module = |(at, module): (usize, &Module)| {
            let ranges = module.ranges.iter().map(|range| &range.addresses);
            ranges.map(|range| (range.end, range.start, at)).collect::<Vec<_>>()
        };
        let mut ranges: Vec<_> = modules.iter().enumerate().flat_map(of_module).collect();
        ranges.sort_unstable();
        Self {
            modules: modules.iter().map(|module| (module.clone(), State::NotYet)).collect(),
            ranges,
            known: HashMap::new(),
            names: Names::default(),
            problems: Vec::new(),
            room_bytes: options.memory_bytes,
        }
    }

    /// Returns the functions at an address, the innermost first.
    ///
    /// There are several where calls are inlined, and none where no symbol is known. For a caller, pass an address within its
    /// call instruction: at the return address, another function may begin.
    pub fn frames(&mut self, address: u64) -> Arc<[Frame]> {
        if let Some(known) = self.known.get(&address) {
            return Arc::clone(known);
        }
        let frames: Arc<[Frame]> = self.find(address).into();
        if self.known.len() < MOST_REMEMBERED {
            self.known.insert(address, Arc::clone(&frames));
        }
        frames
    }

    /// Returns the index of the module that has code at an address.
    ///
    /// If one module was unloaded and another was loaded in its place, this is the later one.
    #[must_use]
    pub fn module(&self, address: u64) -> Option<usize> {
        let behind = self.ranges.partition_point(|(end, ..)| *end <= address);
        let candidates = self.ranges[behind..].iter().take_while(|(_, start, _)| *start <= address);
        candidates.map(|(.., at)| *at).max()
    }

    /// Returns why some functions have no names or no lines, for the modules that were asked for so far.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    fn find(&mut self, address: u64) -> Vec<Frame> {
        let Some(at) = self.module(address) else { return Vec::new() };
        let (module, state) = &mut self.modules[at];
        if matches!(state, State::NotYet) {
            *state = match Image::of(module, &mut self.room_bytes) {
                Ok((image, reason)) => {
                    let problem = reason.map(|reason| Problem::of(module, reason));
                    self.problems.extend(problem);
                    State::Read(Box::new(image))
                }
                Err(reason) => {
                    self.problems.push(Problem::of(module, reason));
                    State::Nothing
                }
            };
        }
        let State::Read(image) = state else { return Vec::new() };
        image.frames(address.wrapping_sub(module.bias), &mut self.names)
    }
}

impl std::fmt::Debug for Symbolizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Symbolizer")
            .field("modules", &self.modules.len())
            .field("known", &self.known.len())
            .field("problems", &self.problems)
            .field("room_bytes", &self.room_bytes)
            .finish_non_exhaustive()
    }
}
