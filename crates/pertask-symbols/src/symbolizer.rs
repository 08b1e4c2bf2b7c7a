//! Functions, files and lines of addresses.
//!
//! From DWARF where a file has it, inlined functions included; from symbol tables otherwise. A file that is not the one which is
//! mapped (it was replaced when a new version was installed) is never believed: its build identity is compared.
//!
//! A module's file is read when the first of its addresses is asked for, into memory, of which there is a bound. It is read
//! and not mapped: a mapped file that somebody cuts off kills its reader.

use crate::frame::{Frame, Names};
use crate::image::Image;
use crate::module::Module;
use crate::problem::Problem;
use std::collections::HashMap;
use std::sync::Arc;

/// Addresses that are remembered at most.
const MOST_REMEMBERED: usize = 1 << 17;

/// How to look for symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SymbolizerOptions {
    /// Memory for what is kept of the modules' files. A module that needs more than is left is known by its symbol table, or
    /// not at all; [`Symbolizer::problems`] tells.
    pub memory_bytes: usize,
}

impl Default for SymbolizerOptions {
    /// 1 GiB: enough for the debug build of a large program.
    fn default() -> Self {
        Self { memory_bytes: 1 << 30 }
    }
}

/// Finds the functions of addresses.
pub struct Symbolizer {
    modules: Vec<(Module, State)>,
    /// Each module's ranges, by address: its end, its start, the module's place.
    ranges: Vec<(u64, u64, usize)>,
    known: HashMap<u64, Arc<[Frame]>>,
    names: Names,
    problems: Vec<Problem>,
    room_bytes: usize,
}

/// What has been read of a module.
enum State {
    NotYet,
    Read(Box<Image>),
    Nothing,
}

impl Symbolizer {
    /// For the addresses in these modules.
    #[must_use]
    pub fn new(modules: &[Module]) -> Self {
        Self::with_options(modules, &SymbolizerOptions::default())
    }

    /// For the addresses in these modules, within the bounds of `options`.
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

    /// The functions at an address, the innermost first: more than one where calls were inlined. Empty where no symbol was
    /// found.
    ///
    /// Of a caller the address must be within its call instruction, and not behind it, where another function may begin.
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

    /// Which of the modules has code at an address. Where one was unloaded and another came in its place, the later one.
    #[must_use]
    pub fn module(&self, address: u64) -> Option<usize> {
        let behind = self.ranges.partition_point(|(end, ..)| *end <= address);
        let candidates = self.ranges[behind..].iter().take_while(|(_, start, _)| *start <= address);
        candidates.map(|(.., at)| *at).max()
    }

    /// Why some functions have no names, or no lines: of the modules that were asked for.
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
