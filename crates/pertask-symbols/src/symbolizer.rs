//! Finds the functions, files and lines of addresses.
//!
//! They come from DWARF if the file has it, inlined functions included, and otherwise from the symbol table. The symbolizer
//! compares build ids, so it never takes a name from a file that replaced the mapped one, as an update does.
//!
//! The symbolizer reads a module's file when somebody first asks for one of its addresses, within a limit of memory. It maps the
//! running program's own file and no other: if somebody truncates a mapped file, its reader is killed. Both what is mapped and
//! what is read go back to the system when the symbolizer is dropped.

use crate::declaration::Declaration;
use crate::frame::{Frame, Names};
use crate::image::{Image, Search};
use crate::module::{Module, ModuleRange};
use crate::problem::{Problem, Reason};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
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
    /// Folders to look for files in, before the modules' own paths: by the whole path below the folder, by the name alone, and
    /// by build id (`.build-id/xx/yyy.debug`).
    pub folders: Vec<PathBuf>,
}

/// Where modules are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    ThisProcess,
    /// In a process whose addresses were recorded, here or on another machine.
    Recorded,
}

impl Default for SymbolizerOptions {
    /// Returns a limit of 1 GiB, which suffices for the debug build of a large program.
    fn default() -> Self {
        Self { memory_bytes: 1 << 30, folders: Vec::new() }
    }
}

/// Finds the functions of addresses.
pub struct Symbolizer {
    modules: Vec<(Module, State)>,
    search: Search,
    /// Where code is, sorted by address: each part's end and start, and the index of its module. They do not overlap.
    parts: Vec<(u64, u64, usize)>,
    /// The modules of which something has been read.
    read: Vec<usize>,
    known: HashMap<u64, Arc<[Frame]>>,
    names: Names,
    problems: Vec<Problem>,
    /// The problems as text, each with its module's path.
    said: HashSet<(String, String)>,
    memory_bytes: usize,
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
        Self::of(modules, options, Origin::ThisProcess)
    }

    /// Returns a symbolizer for addresses that were recorded, in another process or on another machine.
    ///
    /// The ranges of the modules say where the code was mapped. Their [`bias`](Module::bias) need not be known. If a module has no
    /// build id, a file at its path is taken for the right one, and [`problems`](Self::problems) says so.
    #[must_use]
    pub fn of_recorded(modules: &[Module], options: &SymbolizerOptions) -> Self {
        Self::of(modules, options, Origin::Recorded)
    }

    fn of(modules: &[Module], options: &SymbolizerOptions, origin: Origin) -> Self {
        let of_module = |(at, module): (usize, &Module)| {
            let ranges = module.ranges.iter().map(|range| &range.addresses);
            ranges.map(|range| (range.start, range.end, at)).collect::<Vec<_>>()
        };
        let ranges = modules.iter().enumerate().flat_map(of_module);
        Self {
            modules: modules.iter().map(|module| (module.clone(), State::NotYet)).collect(),
            search: Search { origin, folders: options.folders.clone() },
            parts: parts(ranges),
            read: Vec::new(),
            known: HashMap::new(),
            names: Names::default(),
            problems: Vec::new(),
            said: HashSet::new(),
            memory_bytes: options.memory_bytes,
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

    /// Returns how debug information declares each of the [`frames`](Self::frames) at an address, or `None` where it does not say.
    ///
    /// There are none where names come from a symbol table alone.
    pub fn declarations(&mut self, address: u64) -> Vec<Option<Declaration>> {
        self.ask(address, Image::declarations).unwrap_or_default()
    }

    /// Returns how many functions the symbol table has where the code of this address is.
    ///
    /// If there are several, the compiler or the linker has kept one copy of their code, and which of them ran is not known.
    pub fn functions_at(&mut self, address: u64) -> usize {
        self.ask(address, |image, address, range, _, _| image.functions_at(address, range))
            .unwrap_or(0)
    }

    /// Returns the index of the module that has code at an address.
    ///
    /// If one module was unloaded and another was loaded in its place, this is the later one.
    #[must_use]
    pub fn module(&self, address: u64) -> Option<usize> {
        let behind = self.parts.partition_point(|(end, ..)| *end <= address);
        let part = self.parts.get(behind).filter(|(_, start, _)| *start <= address);
        part.map(|(.., at)| *at)
    }

    /// Drops what was read of files, so that other modules have all the memory of the limit. Functions that were found stay known.
    ///
    /// A file is read again if somebody asks for another of its addresses. So a caller with many addresses should ask for them in
    /// their order, and call this where [`module`](Self::module) changes.
    pub fn release(&mut self) {
        for at in self.read.drain(..) {
            self.modules[at].1 = State::NotYet;
        }
        self.room_bytes = self.memory_bytes;
    }

    /// Returns why some functions have no names or no lines, for the modules that were asked for so far.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    fn find(&mut self, address: u64) -> Vec<Frame> {
        self.ask(address, Image::frames).unwrap_or_default()
    }

    /// Asks the image of the module that has code at an address, which is read now if it was not.
    fn ask<T>(
        &mut self,
        address: u64,
        question: impl FnOnce(&mut Image, u64, &ModuleRange, &mut usize, &mut Names) -> T,
    ) -> Option<T> {
        let at = self.module(address)?;
        self.read_image(at);
        let Self { modules, room_bytes, names, .. } = self;
        let (module, State::Read(image)) = &mut modules[at] else { return None };
        let range = module.ranges.iter().find(|range| range.addresses.contains(&address))?;
        let was_whole = image.missing().is_none();
        let answer = question(image, address, range, room_bytes, names);
        if let Some(file) = image.missing().filter(|_| was_whole) {
            let reason = Reason::SplitMissing { file: file.to_owned() };
            add_new(&mut self.problems, &mut self.said, Problem::of(module, reason));
        }
        Some(answer)
    }

    /// Reads the image of a module, if nobody has tried yet.
    fn read_image(&mut self, at: usize) {
        let (module, state) = &mut self.modules[at];
        if !matches!(state, State::NotYet) {
            return;
        }
        *state = match self.search.image(module, &mut self.room_bytes) {
            Ok((image, reasons)) => {
                for reason in reasons {
                    add_new(&mut self.problems, &mut self.said, Problem::of(module, reason));
                }
                self.read.push(at);
                State::Read(Box::new(image))
            }
            Err(reason) => {
                self.problems.push(Problem::of(module, reason));
                State::Nothing
            }
        };
    }
}

/// Adds a problem that is not known yet. A file that is read again has the same ones.
fn add_new(problems: &mut Vec<Problem>, said: &mut HashSet<(String, String)>, problem: Problem) {
    if said.insert((problem.path.clone(), problem.to_string())) {
        problems.push(problem);
    }
}

/// Cuts ranges into parts that do not overlap, where of several modules the last counts. Each range has its start, its end and its
/// module's index; each part its end, its start and that index.
fn parts(ranges: impl Iterator<Item = (u64, u64, usize)>) -> Vec<(u64, u64, usize)> {
    let ranges = ranges.filter(|(start, end, _)| start < end);
    // Of each range where it begins and where it ends. Numbers tell ranges of one module apart.
    let edges = ranges.enumerate().flat_map(|(number, (start, end, module))| {
        [(start, true, (module, number)), (end, false, (module, number))]
    });
    let mut edges: Vec<_> = edges.collect();
    edges.sort_unstable();
    let (mut parts, mut open, mut from) = (Vec::new(), BTreeSet::new(), 0);
    for (at, begins, range) in edges {
        if let Some((module, _)) = open.last()
            && from < at
        {
            parts.push((at, from, *module));
        }
        from = at;
        if begins {
            open.insert(range);
        } else {
            open.remove(&range);
        }
    }
    parts
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

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn of_ranges_that_overlap_the_last_module_counts() {
        let cut = |ranges: &[(u64, u64, usize)]| parts(ranges.iter().copied());
        assert_eq!(cut(&[(0, 4, 0), (4, 8, 1)]), [(4, 0, 0), (8, 4, 1)]);
        assert_eq!(cut(&[(0, 9, 0), (3, 5, 1)]), [(3, 0, 0), (5, 3, 1), (9, 5, 0)]);
        assert_eq!(cut(&[(3, 5, 0), (0, 9, 1)]), [(3, 0, 1), (5, 3, 1), (9, 5, 1)]);
        assert_eq!(cut(&[(0, 5, 1), (3, 9, 0)]), [(3, 0, 1), (5, 3, 1), (9, 5, 0)]);
        assert_eq!(cut(&[(0, 5, 0), (0, 5, 0), (7, 7, 1), (9, 8, 1)]), [(5, 0, 0)]);
        assert_eq!(cut(&[]), []);
    }
}
