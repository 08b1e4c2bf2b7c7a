//! What the boxes of the picture stand for, as numbers that are equal where boxes are one, and in the order of their names.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;

use super::super::frames::{INCOMPLETE, UNKNOWN, beginning, outside};
use super::super::{
    Function, FunctionId, Location, LocationId, Profile, RootBy, Sample, Site, State, TaskRef,
    ThreadRef,
};
use super::options::FlamegraphOptions;
use super::text;

/// A box's meaning. It is small, so that the samples of a level can be sorted by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Frame {
    /// The whole profile.
    All,
    /// A task, site or thread: its place in [`Frames::roots`].
    Root(u32),
    /// What the tasks of a root did, where several states are drawn.
    State(State),
    /// Callers that the unwinder did not reach.
    Incomplete,
    /// A location or a function that the profile does not have.
    Unknown,
    /// A function: its place in [`Frames::functions`].
    Function(u32),
    /// Code without a symbol: the first location with its address and mapping.
    Code(LocationId),
}

impl Frame {
    /// Returns the state that it stands for, if it does for one.
    pub(super) fn state(self) -> Option<State> {
        match self {
            Self::State(state) => Some(state),
            _ => None,
        }
    }
}

/// What a task row or a thread row is named after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Root<'a> {
    /// Tasks of a name.
    Task(&'a str),
    /// Tasks of a spawn site.
    Site(&'a str, u32),
    /// Tasks of which neither is known.
    UnknownTask,
    /// A thread's name and kernel id.
    Thread(&'a str, u32),
    /// A thread of which nothing is known.
    UnknownThread,
    /// No task, and the part of a runtime that it was, if that is known.
    Outside(Option<&'a str>),
}

/// Where the tasks of one root were spawned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spawned<'a> {
    Unknown,
    At(&'a Site),
    AtSeveral,
    /// They have not been seen being spawned: this is where their code begins.
    Code(&'a Site),
}

/// The frames of a profile.
pub(super) struct Frames<'a> {
    pub(super) profile: &'a Profile,
    /// The samples that are drawn.
    pub(super) samples: Vec<&'a Sample>,
    /// Whether they are of several states.
    pub(super) is_of_life: bool,
    /// The roots, by name.
    roots: Vec<Root<'a>>,
    /// Each sample's root.
    root_of: Vec<u32>,
    /// Where the tasks of each root were spawned.
    spawned: Vec<Spawned<'a>>,
    /// Functions that differ by name or file, in that order: one of each.
    functions: Vec<&'a Function>,
    /// The place among them of each of the profile's functions.
    place_of: Vec<u32>,
    /// The first and the last line of each that is in a stack, or zeros.
    lines: Vec<(u32, u32)>,
    /// The first location of that mapping and address, for each location.
    first_of: Vec<LocationId>,
}

impl<'a> Frames<'a> {
    pub(super) fn of(profile: &'a Profile, options: &FlamegraphOptions) -> Self {
        let is_of_life = options.whole_life;
        let off_cpu = if is_of_life { &profile.off_cpu[..] } else { &[] };
        let samples: Vec<_> = profile.samples.iter().chain(off_cpu).collect();
        let roots = samples.iter().map(|sample| Root::of(sample, options.root));
        let (roots, root_of) = ranked(roots.collect(), Root::by_name);
        let by_name =
            |a: &&'a Function, b: &&'a Function| (name(a), &a.file).cmp(&(name(b), &b.file));
        let (functions, place_of) = ranked(profile.functions.iter().collect(), by_name);
        let lines = lines(profile, &place_of, functions.len());
        let first_of = first_of_each_address(&profile.locations);
        let spawned = spawned(&samples, &root_of, roots.len());
        Self {
            profile,
            samples,
            is_of_life,
            roots,
            root_of,
            spawned,
            functions,
            place_of,
            lines,
            first_of,
        }
    }

    pub(super) fn root(&self, sample: usize) -> Frame {
        Frame::Root(self.root_of[sample])
    }

    pub(super) fn function(&self, id: FunctionId) -> Frame {
        self.place_of.get(id.0 as usize).map_or(Frame::Unknown, |place| Frame::Function(*place))
    }

    pub(super) fn code(&self, id: LocationId) -> Frame {
        self.first_of.get(id.0 as usize).map_or(Frame::Unknown, |first| Frame::Code(*first))
    }

    /// The task, site or thread that a frame stands for.
    pub(super) fn as_root(&self, frame: Frame) -> Option<Root<'a>> {
        match frame {
            Frame::Root(place) => Some(self.roots[place as usize]),
            _ => None,
        }
    }

    /// The function that a frame stands for.
    pub(super) fn as_function(&self, frame: Frame) -> Option<&'a Function> {
        match frame {
            Frame::Function(place) => Some(self.functions[place as usize]),
            _ => None,
        }
    }

    /// A frame's name as the profile has it: neither harmless nor short.
    pub(super) fn name(&self, frame: Frame) -> Cow<'a, str> {
        match frame {
            Frame::All => "all".into(),
            Frame::Root(place) => self.roots[place as usize].name(),
            Frame::State(State::OnCpu) => "on CPU".into(),
            Frame::State(state) => state.name().into(),
            Frame::Incomplete => INCOMPLETE.into(),
            Frame::Unknown => UNKNOWN.into(),
            Frame::Function(place) => name(self.functions[place as usize]).into(),
            Frame::Code(id) => {
                self.profile.without_symbol(&self.profile.locations[id.0 as usize]).into()
            }
        }
    }

    /// The order of two frames below one parent: by name, and code without a symbol last, by address.
    pub(super) fn order(&self, a: Frame, b: Frame) -> Ordering {
        let address = |frame| match frame {
            Frame::Code(id) => self.profile.locations[id.0 as usize].address,
            _ => 0,
        };
        match (a, b) {
            (Frame::Code(_), Frame::Code(_)) => address(a).cmp(&address(b)).then(a.cmp(&b)),
            _ => a.cmp(&b),
        }
    }

    /// Where in the source it is: `src/app.rs:12`, or `spawned at src/main.rs:7`.
    pub(super) fn source(&self, frame: Frame) -> Option<String> {
        match self.as_root(frame) {
            Some(Root::Task(_)) => self.spawned_at(frame),
            Some(_) => None,
            None => self.function_source(frame),
        }
    }

    fn spawned_at(&self, frame: Frame) -> Option<String> {
        let Frame::Root(place) = frame else { return None };
        let at =
            |Site { file, line }: &Site| format!("{}:{line}", text::end(file, text::SOURCE_CHARS));
        match self.spawned[place as usize] {
            Spawned::Unknown => None,
            Spawned::At(site) => Some(format!("spawned at {}", at(site))),
            Spawned::Code(site) => Some(format!("by type, code at {}", at(site))),
            Spawned::AtSeveral => Some("spawned at several sites".to_owned()),
        }
    }

    /// With the line where the function begins, or else the lines of it that are in stacks.
    fn function_source(&self, frame: Frame) -> Option<String> {
        let Frame::Function(place) = frame else { return None };
        let function = self.functions[place as usize];
        if function.file.is_empty() {
            return None;
        }
        let file = text::end(&function.file, text::SOURCE_CHARS);
        Some(match (function.start_line, self.lines[place as usize]) {
            (0, (0, 0)) => file.into_owned(),
            (0, (first, last)) if first < last => format!("{file}:{first}-{last}"),
            (0, (line, _)) | (line, _) => format!("{file}:{line}"),
        })
    }
}

impl<'a> Root<'a> {
    fn of(sample: &'a Sample, by: RootBy) -> Self {
        match (by, &sample.task) {
            (RootBy::Thread, _) => Self::of_thread(sample.thread.as_ref()),
            (_, None) => Self::Outside(sample.runtime.as_deref()),
            (RootBy::TaskName, Some(TaskRef { name: Some(name), .. })) => Self::Task(name),
            (_, Some(TaskRef { site: Some(Site { file, line }), .. })) => Self::Site(file, *line),
            _ => Self::UnknownTask,
        }
    }

    fn of_thread(thread: Option<&'a ThreadRef>) -> Self {
        thread.map_or(Self::UnknownThread, |thread| Self::Thread(&thread.name, thread.tid))
    }

    fn name(self) -> Cow<'a, str> {
        match self {
            Self::Task(name) => name.into(),
            Self::Thread(name, 0) => beginning(name).into(),
            Self::Site(file, line) => format!("{file}:{line}").into(),
            Self::Thread("", tid) => format!("[{tid}]").into(),
            Self::Thread(name, tid) => format!("{} [{tid}]", beginning(name)).into(),
            Self::UnknownTask => UNKNOWN.into(),
            Self::UnknownThread => "(unknown thread)".into(),
            Self::Outside(part) => outside(part),
        }
    }

    /// Compares without making the names, of which a file can have many that are long.
    fn by_name(&self, other: &Self) -> Ordering {
        fn key<'a>(root: &Root<'a>) -> (u8, &'a str, u32) {
            match *root {
                Root::Outside(part) => (0, part.unwrap_or_default(), 0),
                Root::UnknownTask | Root::UnknownThread => (1, "", 0),
                Root::Task(name) => (2, name, 0),
                Root::Site(text, number) => (3, text, number),
                Root::Thread(text, number) => (2, text, number),
            }
        }
        key(self).cmp(&key(other))
    }
}

fn spawned<'a>(samples: &[&'a Sample], root_of: &[u32], roots: usize) -> Vec<Spawned<'a>> {
    let mut spawned = vec![Spawned::Unknown; roots];
    for (sample, root) in samples.iter().zip(root_of) {
        let Some(task) = &sample.task else { continue };
        let Some(site) = &task.site else { continue };
        let at = &mut spawned[*root as usize];
        *at = match *at {
            Spawned::Unknown if task.future.is_some() => Spawned::Code(site),
            Spawned::Unknown => Spawned::At(site),
            known @ (Spawned::At(one) | Spawned::Code(one)) if one == site => known,
            _ => Spawned::AtSeveral,
        };
    }
    spawned
}

/// The first and the last line of each function, of those that are known.
fn lines(profile: &Profile, place_of: &[u32], functions: usize) -> Vec<(u32, u32)> {
    let mut lines = vec![(0, 0); functions];
    let all = profile.locations.iter().flat_map(|location| &location.lines);
    for line in all.filter(|line| line.line > 0) {
        let Some(place) = place_of.get(line.function.0 as usize) else { continue };
        let (first, last) = &mut lines[*place as usize];
        *first = if *first == 0 { line.line } else { line.line.min(*first) };
        *last = line.line.max(*last);
    }
    lines
}

/// A function's name: the readable one if there is one.
fn name(function: &Function) -> &str {
    let names = [&*function.name, &*function.system_name];
    names.into_iter().find(|name| !name.is_empty()).unwrap_or(UNKNOWN)
}

/// The things that differ, in order, and the place of each thing among them.
fn ranked<T: Copy>(things: Vec<T>, order: impl Fn(&T, &T) -> Ordering) -> (Vec<T>, Vec<u32>) {
    let mut sorted: Vec<u32> = (0..things.len() as u32).collect();
    sorted.sort_by(|a, b| order(&things[*a as usize], &things[*b as usize]));
    let mut distinct: Vec<T> = Vec::new();
    let mut place_of = vec![0; things.len()];
    for index in sorted {
        let thing = things[index as usize];
        if distinct.last().is_none_or(|last| order(last, &thing).is_ne()) {
            distinct.push(thing);
        }
        place_of[index as usize] = distinct.len() as u32 - 1;
    }
    (distinct, place_of)
}

fn first_of_each_address(locations: &[Location]) -> Vec<LocationId> {
    let mut first = HashMap::new();
    let ids = (0..).map(LocationId);
    let of = |(location, id): (&Location, _)| {
        *first.entry((location.mapping, location.address)).or_insert(id)
    };
    locations.iter().zip(ids).map(of).collect()
}
