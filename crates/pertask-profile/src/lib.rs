//! A sampled profile: who was on the CPU, and where in the code, in a form that belongs to no tool.
//!
//! A sampler fills it by a [`ProfileBuilder`]; each encoder reads it and changes nothing. [`Profile::write_pprof`] is for
//! `go tool pprof` and what speaks its format, and keeps everything; [`Profile::from_pprof`] reads it back.
//! [`Profile::write_folded`], [`Profile::write_flamegraph`], [`Profile::write_firefox`] and [`Profile::write_speedscope`] are for
//! the eye.
//! [`Profile::summary`] adds it up, by task, site, function and so on; [`Profile::filtered`] is a part of it.
//!
//! ```
//! use pertask_profile::{
//!     Function, FlamegraphOptions, Location, Line, Profile, ProfileBuilder, RootBy, Sample, Site, TaskRef, Weight,
//! };
//!
//! let mut builder = ProfileBuilder::new("by hand", 1_000_000);
//! let name = builder.text("app::handle");
//! let file = builder.text("src/app.rs");
//! let handle = builder.function(Function { name, file, ..Function::default() });
//! let lines = vec![Line { function: handle, line: 12 }];
//! let location = builder.location(Location { address: 0x1040, mapping: None, lines });
//! let site = Site { file: builder.text("src/main.rs"), line: 7 };
//! let task = TaskRef { id: Some(1), name: Some(builder.text("GET /")), site: Some(site), parent: None };
//! builder.add(Sample {
//!     count: 3,
//!     cpu_ns: 3_000_000,
//!     stack: vec![location],
//!     task: Some(task),
//!     ..Sample::default()
//! });
//! let profile = builder.finish(std::time::Duration::from_secs(1));
//!
//! let mut pprof = Vec::new();
//! profile.write_pprof(&mut pprof)?;
//! assert_eq!(Profile::from_pprof(&pprof[..])?, profile);
//!
//! let mut folded = Vec::new();
//! profile.write_folded(RootBy::TaskName, Weight::Samples, &mut folded)?;
//! assert_eq!(folded, b"GET /;app::handle 3\n");
//!
//! profile.write_flamegraph(&FlamegraphOptions::default(), &mut Vec::new())?;
//! profile.write_firefox("app", &mut Vec::new())?;
//! profile.write_speedscope("app", RootBy::TaskName, Weight::CpuNs, &mut Vec::new())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod builder;
mod filter;
#[cfg(feature = "firefox")]
mod firefox;
#[cfg(feature = "flamegraph")]
mod flamegraph;
mod folded;
mod frames;
mod lost;
#[cfg(feature = "pprof")]
mod pprof;
#[cfg(feature = "speedscope")]
mod speedscope;
mod summary;
#[cfg(feature = "table")]
mod table;

use std::sync::Arc;
use std::time::SystemTime;

pub use builder::{Bounds, ProfileBuilder};
pub use filter::Filter;
#[cfg(feature = "flamegraph")]
pub use flamegraph::FlamegraphOptions;
pub use folded::Weight;
pub use frames::RootBy;
pub use lost::Lost;
#[cfg(feature = "pprof")]
pub use pprof::{ReadError, ReadLimits};
pub use summary::{Amount, GroupBy, Subject, Summary, SummaryRow};
#[cfg(feature = "table")]
pub use table::{Overview, SummaryStyle, SummaryTable};

/// What was sampled between two moments.
///
/// Names are shared strings, so that a sample costs no more than its references to them. The tables are looked up by
/// [`location`](Self::location), [`function`](Self::function) and [`mapping`](Self::mapping); what an id does not lead to
/// is shown as unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// When sampling began.
    pub start: SystemTime,
    /// For how long it went on, by the wall clock.
    pub duration_ns: u64,
    /// How the samples were taken, in words for people.
    pub mechanism: String,
    /// How much CPU time a sample stands for as a rule. What each stands for in truth is its `cpu_ns`.
    pub period_ns: u64,
    /// The samples; equal ones are one, with a count.
    pub samples: Vec<Sample>,
    /// Places in the code, by [`LocationId`].
    pub locations: Vec<Location>,
    /// Functions, by [`FunctionId`].
    pub functions: Vec<Function>,
    /// Files that were mapped into the process, by [`MappingId`]. The first is the program.
    pub mappings: Vec<Mapping>,
    /// What is not in it, or not wholly.
    pub lost: Lost,
    /// What there is to say of it, in words for people: such as which files' functions have no names, and what to do.
    pub remarks: Vec<String>,
}

/// Samples of which all is equal: the stack, who ran, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    /// How many samples they are.
    pub count: u64,
    /// The CPU time that they stand for, together.
    pub cpu_ns: u64,
    /// The call stack, from the function that ran to its callers.
    pub stack: Vec<LocationId>,
    /// The task that ran, or `None` outside of tasks.
    pub task: Option<TaskRef>,
    /// The thread that ran, or `None` where several are taken together or it is not known.
    pub thread: Option<ThreadRef>,
    /// The scopes that were open, outermost first.
    pub scopes: Vec<Arc<str>>,
    /// The user's labels: keys and values.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// Whether the stack goes all the way to its root.
    pub complete: bool,
}

impl Default for Sample {
    /// Nothing yet, of an empty stack that is complete.
    fn default() -> Self {
        Self {
            count: 0,
            cpu_ns: 0,
            stack: Vec::new(),
            task: None,
            thread: None,
            scopes: Vec::new(),
            labels: Vec::new(),
            complete: true,
        }
    }
}

/// A task, as a sample knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TaskRef {
    /// Its number, unique in the process, or `None` where several are taken together.
    pub id: Option<u64>,
    /// Its name, or `None` where the site alone names it.
    pub name: Option<Arc<str>>,
    /// Where it was spawned.
    pub site: Option<Site>,
    /// The task that spawned it.
    pub parent: Option<u64>,
}

/// A place in the source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    /// The file.
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
}

/// A thread, as a sample knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ThreadRef {
    /// Its kernel id, or 0 where it is not known.
    pub tid: u32,
    /// Its name.
    pub name: Arc<str>,
}

/// The index of a [`Location`] in its profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocationId(pub u32);

/// The index of a [`Function`] in its profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionId(pub u32);

/// The index of a [`Mapping`] in its profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappingId(pub u32);

/// A place in the code: an instruction, and what the source calls it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Location {
    /// The address in the process. Of a caller, one within the call instruction and not behind it.
    pub address: u64,
    /// The file that it was mapped from.
    pub mapping: Option<MappingId>,
    /// The functions there: several where some are inlined, the innermost first. Empty where no symbol was found.
    pub lines: Vec<Line>,
}

/// A line of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// The function.
    pub function: FunctionId,
    /// The line in the function's file, or 0.
    pub line: u32,
}

/// A function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Function {
    /// Its name, for people.
    pub name: Arc<str>,
    /// Its name, as the linker knows it.
    pub system_name: Arc<str>,
    /// The source file, or empty.
    pub file: Arc<str>,
    /// The line where it begins, or 0.
    pub start_line: u32,
}

/// A part of a file that is mapped into the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// Its first address.
    pub start: u64,
    /// The address behind its last.
    pub end: u64,
    /// Where in the file it begins.
    pub offset: u64,
    /// The file's name.
    pub file: Arc<str>,
    /// The file's build id in hexadecimal digits, or empty.
    pub build_id: Arc<str>,
}

impl Profile {
    /// The location of that id.
    #[must_use]
    pub fn location(&self, id: LocationId) -> Option<&Location> {
        self.locations.get(id.0 as usize)
    }

    /// The function of that id.
    #[must_use]
    pub fn function(&self, id: FunctionId) -> Option<&Function> {
        self.functions.get(id.0 as usize)
    }

    /// The mapping of that id.
    #[must_use]
    pub fn mapping(&self, id: MappingId) -> Option<&Mapping> {
        self.mappings.get(id.0 as usize)
    }
}

/// The README's example compiles, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
