//! A sampled profile: which task was on the CPU and where in the code, and where tasks waited, in a model that is independent of any tool.
//!
//! - A sampler fills a profile through a [`ProfileBuilder`].
//! - [`Profile::write_pprof`] writes it for `go tool pprof` and other readers of that format. pprof keeps everything, and
//!   [`Profile::from_pprof`] reads it back.
//! - [`Profile::write_flamegraph`], [`Profile::write_firefox`], [`Profile::write_speedscope`] and [`Profile::write_folded`] write
//!   it for viewers.
//! - [`Profile::summary`] adds the time up by task, spawn site, function, place, waker, thread, scope or label.
//! - [`Profile::in_state`] makes a profile of time off the CPU, for all of these: where tasks wait, for one. [`Profile::lives`] and
//!   [`FlamegraphOptions::whole_life`] have all states together.
//! - [`Profile::filtered`] returns a part of it.
//! - [`Comparison`] says what has changed between two profiles, and what of that is noise.
//!
//! ```
//! use pertask_profile::{
//!     Function, FlamegraphOptions, Location, Line, Profile, ProfileBuilder, RootBy, Sample, Site, TaskRef, Weight,
//! };
//!
//! // How the samples were taken, in words, and the nanoseconds of CPU time between two samples.
//! let mut builder = ProfileBuilder::new("by hand", 1_000_000);
//! let name = builder.text("app::handle");
//! let file = builder.text("src/app.rs");
//! let handle = builder.function(Function { name, file, ..Function::default() });
//! let lines = vec![Line { function: handle, line: 12 }];
//! let location = builder.location(Location { address: 0x1040, mapping: None, lines });
//! let site = Site { file: builder.text("src/main.rs"), line: 7 };
//! let task = TaskRef { id: Some(1), name: Some(builder.text("GET /")), site: Some(site), ..TaskRef::default() };
//! builder.add(Sample {
//!     count: 3,
//!     time_ns: 3_000_000,
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
//! profile.write_speedscope("app", RootBy::TaskName, Weight::Time, &mut Vec::new())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod allocation;
mod builder;
mod called;
mod compare;
mod filter;
#[cfg(feature = "firefox")]
mod firefox;
#[cfg(feature = "flamegraph")]
mod flamegraph;
mod folded;
mod frames;
mod life;
mod lost;
mod place;
#[cfg(feature = "pprof")]
mod pprof;
#[cfg(feature = "speedscope")]
mod speedscope;
mod stacks;
mod state;
mod summary;
#[cfg(feature = "table")]
mod table;
mod whose;

use std::sync::Arc;
use std::time::SystemTime;

pub use allocation::{Allocation, AllocationRow};
pub use builder::{Bounds, ProfileBuilder};
pub use compare::{
    Comparison, Difference, DifferenceRow, FALSE_DISCOVERIES, Growth, Measure, Part, Side, Verdict,
    Whole,
};
pub use filter::Filter;
#[cfg(feature = "flamegraph")]
pub use flamegraph::FlamegraphOptions;
pub use folded::Weight;
pub use frames::RootBy;
pub use life::{LifeRow, LifeSummary, Times};
pub use lost::Lost;
#[cfg(feature = "pprof")]
pub use pprof::{PprofDifference, PprofFile, PprofTypes, PprofWriter, ReadError, ReadLimits};
pub use state::State;
pub use summary::{Amount, GroupBy, Subject, Summary, SummaryRow};
#[cfg(feature = "table")]
pub use table::{
    ComparisonOverview, DifferenceTable, LifeTable, Overview, SummaryStyle, SummaryTable,
};

/// The samples of a period of time.
///
/// Names are shared strings, so a sample only holds references to them. [`location`](Self::location),
/// [`function`](Self::function) and [`mapping`](Self::mapping) look up the tables. An encoder shows an id that is not in its
/// table as unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// When sampling began.
    pub start: SystemTime,
    /// How long sampling lasted, in wall time.
    pub duration_ns: u64,
    /// How the samples were taken, in words.
    pub mechanism: String,
    /// The CPU time between two samples. What a sample really stands for is its [`time_ns`](Sample::time_ns).
    pub period_ns: u64,
    /// The samples, all of which are in this [`state`](Self::state). Equal samples are one entry with a count.
    pub samples: Vec<Sample>,
    /// What the samples are of. CPU time, unless [`in_state`](Self::in_state) has made this profile of another one.
    pub state: State,
    /// Samples of time off the CPU, in whatever state. [`in_state`](Self::in_state) makes profiles of them.
    pub off_cpu: Vec<Sample>,
    /// Memory that was allocated. Files of pprof keep it; summaries and pictures are of time alone.
    pub allocations: Vec<Allocation>,
    /// Whether allocations were recorded, be there any or not.
    pub has_allocations: bool,
    /// Whether the number of samples is known. Some programs write their CPU time alone; the `count` of each sample is 0 then.
    pub has_counts: bool,
    /// Places in the code, indexed by [`LocationId`].
    pub locations: Vec<Location>,
    /// Functions, indexed by [`FunctionId`].
    pub functions: Vec<Function>,
    /// Files that were mapped into the process, indexed by [`MappingId`]. The first is the program.
    pub mappings: Vec<Mapping>,
    /// What the profile lacks, or holds only in part.
    pub lost: Lost,
    /// Remarks for people, such as which files' functions have no names and what to do about it.
    pub remarks: Vec<String>,
    /// How to know the frame that polls a task, in a profile whose addresses have no names yet.
    ///
    /// It is `None` where stacks end at their task already, or have no tasks.
    pub task_root: Option<TaskRoot>,
}

/// How to know the frame that polls a task once functions have names: the frames below it are the runtime's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRoot {
    /// The beginning of the names of the functions that poll or drop a task. It has no space.
    pub functions: String,
    /// The end of the path of the source file that has these functions.
    pub file: String,
}

/// One or more samples, or waits, that are equal in everything: state, stack, task, waker, thread, scopes and labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    /// The number of samples, or 0 if [`Profile::has_counts`] is false. Of waiting time, it is about the number of waits.
    pub count: u64,
    /// The time that they stand for together: CPU time, or the time in another [`state`](Self::state).
    pub time_ns: u64,
    /// What the task did in that time.
    pub state: State,
    /// The call stack, from the function that ran, or that was awaited, to its outermost caller.
    pub stack: Vec<LocationId>,
    /// The task that ran or waited, or `None` if none did.
    pub task: Option<TaskRef>,
    /// The tasks that ended these waits, by name and site; or `None` where no task did (a timer, the network, another thread), or where that
    /// is not known.
    pub woken_by: Option<TaskRef>,
    /// Of waits that went on at the end, the tasks that held the lock that was waited for, by name and site; or `None` where that is not
    /// known.
    pub held_by: Option<TaskRef>,
    /// The part of a runtime that ran outside tasks, as in `tokio scheduler`, or `None` if that is not known.
    pub runtime: Option<Arc<str>>,
    /// The thread that ran, or `None` if it is not known or the samples are of several threads.
    pub thread: Option<ThreadRef>,
    /// The open scopes, the outermost first.
    pub scopes: Vec<Arc<str>>,
    /// The user's labels, as keys and values.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// Whether the stack reaches its root.
    pub complete: bool,
}

impl Default for Sample {
    /// Returns no samples, with an empty stack that counts as complete.
    fn default() -> Self {
        Self {
            count: 0,
            time_ns: 0,
            state: State::OnCpu,
            stack: Vec::new(),
            task: None,
            woken_by: None,
            held_by: None,
            runtime: None,
            thread: None,
            scopes: Vec::new(),
            labels: Vec::new(),
            complete: true,
        }
    }
}

/// The task of a sample.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TaskRef {
    /// The task's number, unique in the process, or `None` if the samples are of several tasks. If all that is known besides is the
    /// task's type, it is the number that the task's runtime has given it.
    pub id: Option<u64>,
    /// The task's name, or `None` if it was given none. If all that is known of the task is its type, this is the type in words
    /// after a `~`.
    pub name: Option<Arc<str>>,
    /// The place where the task was spawned. If all that is known of the task is its type, this is where its code begins.
    pub site: Option<Site>,
    /// The number of the task that spawned it.
    pub parent: Option<u64>,
    /// The whole type of the task's future, if that is all that is known of the task. Nothing has measured it then: its CPU time is
    /// an estimate by samples.
    pub future: Option<Arc<str>>,
}

/// A place in the source code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    /// The source file.
    pub file: Arc<str>,
    /// The line in that file.
    pub line: u32,
}

/// The thread of a sample.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ThreadRef {
    /// The thread's kernel id, or 0 if it is not known.
    pub tid: u32,
    /// The thread's name.
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

/// A place in the machine code, and the functions there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Location {
    /// The address in the process. For a caller, it lies within the call instruction.
    pub address: u64,
    /// The mapping that the address lies in.
    pub mapping: Option<MappingId>,
    /// The functions there, the innermost first. There are several where calls are inlined, and none where no symbol is known.
    pub lines: Vec<Line>,
}

/// A source line of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// The function.
    pub function: FunctionId,
    /// The line in the function's file, or 0 if it is not known.
    pub line: u32,
}

/// A function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Function {
    /// The demangled name.
    pub name: Arc<str>,
    /// The linker's name.
    pub system_name: Arc<str>,
    /// The source file, or an empty string if it is not known.
    pub file: Arc<str>,
    /// The line where the function begins, or 0 if it is not known.
    pub start_line: u32,
}

/// A part of a file that is mapped into the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// The first address.
    pub start: u64,
    /// The address after the last one.
    pub end: u64,
    /// The offset in the file at which the mapping begins.
    pub offset: u64,
    /// The file's name.
    pub file: Arc<str>,
    /// The file's build id in hexadecimal digits, or an empty string.
    pub build_id: Arc<str>,
}

impl Profile {
    /// Returns the location with this id.
    #[must_use]
    pub fn location(&self, id: LocationId) -> Option<&Location> {
        self.locations.get(id.0 as usize)
    }

    /// Returns the function with this id.
    #[must_use]
    pub fn function(&self, id: FunctionId) -> Option<&Function> {
        self.functions.get(id.0 as usize)
    }

    /// Returns the mapping with this id.
    #[must_use]
    pub fn mapping(&self, id: MappingId) -> Option<&Mapping> {
        self.mappings.get(id.0 as usize)
    }
}

/// The README's example compiles, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
