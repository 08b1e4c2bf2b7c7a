//! Names for a profile that has addresses only.
//!
//! A task's stack ends at the frame that polls the task. The frames below belong to the runtime. They say nothing about the
//! task, and would split its time by the thread that polled it.
//!
//! A sample of no tracked task gets the type of the task that its stack shows.

use super::allocator::Layer;
use super::types::{Mark, Owner, Type, Types};
use pertask_executors::is_primitive;
use pertask_profile::{
    Allocation, Bounds, FunctionId, Line, Location, LocationId, MappingId, Profile, ProfileBuilder,
    Sample, Site, State, TaskRef, TaskRoot,
};
use pertask_symbols::{Declaration, Frame, Symbolizer};
use std::sync::Arc;

/// In place of a part of a runtime, for a stack that does not reach its root.
const CUT: &str = "stack incomplete, task not known";

/// The executor whose tasks a recorder can tell apart.
const NUMBERED: &str = "tokio";

/// The most frames that our own functions and the allocator's take at the beginning of an allocation's stack.
const MOST_OF_ALLOCATOR: usize = 32;

/// What people should know where tasks have no names and no types.
const UNKNOWN_TYPES: &str = "types of some tasks are not known; build with debug = \"limited\", or at least \"line-tables-only\", or with -C symbol-mangling-version=v0";

/// A profile's locations, with names. Samples are added one by one.
pub(super) struct Naming<'a> {
    builder: ProfileBuilder,
    places: Vec<Place>,
    types: Types,
    /// Whether there are tasks whose types are not known.
    has_unknown: bool,
    tables: &'a Profile,
}

/// A location of the profile, with names.
struct Place {
    address: u64,
    mapping: Option<MappingId>,
    lines: Vec<Line>,
    /// What each line is to a task.
    marks: Vec<Mark>,
    /// Whether each line is a function of a runtime's, or of a library of primitives, where its name says it.
    primitive: Vec<Option<bool>>,
    /// What each line is to an allocation.
    layers: Vec<Layer>,
    /// The location in the new profile, if it has been needed whole.
    whole: Option<LocationId>,
}

impl Place {
    /// What each line is.
    fn kinds(&self) -> (&[Option<bool>], &[Mark]) {
        (&self.primitive, &self.marks)
    }
}

impl<'a> Naming<'a> {
    /// Names the locations of `tables` that have no names. Their samples are not looked at.
    pub(super) fn of(tables: &'a Profile, symbolizer: &mut Symbolizer, bounds: Bounds) -> Self {
        let (mechanism, period_ns) = (tables.mechanism.clone(), tables.period_ns);
        let mut builder = ProfileBuilder::with_bounds(mechanism, period_ns, bounds);
        builder.start(tables.start);
        let types = Types::default();
        let mut naming = Self { builder, places: Vec::new(), types, has_unknown: false, tables };
        let mappings: Vec<_> =
            tables.mappings.iter().map(|it| naming.builder.mapping(it.clone())).collect();
        let mapping = |id: MappingId| *mappings.get(id.0 as usize)?;
        let places = tables.locations.iter().map(|location| Place {
            address: location.address,
            mapping: location.mapping.and_then(mapping),
            lines: Vec::new(),
            marks: Vec::new(),
            primitive: Vec::new(),
            layers: Vec::new(),
            whole: None,
        });
        naming.places = places.collect();
        naming.name_all(symbolizer);
        // There is room for a hundred. Those of a file must not leave too little for these.
        let (first, rest) = tables.remarks.split_at(tables.remarks.len().min(50));
        let problems = symbolizer.problems().iter().map(ToString::to_string);
        for remark in first.iter().cloned().chain(problems).chain(rest.iter().cloned()) {
            naming.builder.remark(remark);
        }
        naming
    }

    /// Looks at a sample that will be added later, to learn what its stack says of types.
    pub(super) fn look(&mut self, sample: &Sample) {
        if is_untyped(sample) {
            self.owner(sample);
        }
    }

    /// Adds a sample of the profile whose locations were named. All samples have been looked at before.
    pub(super) fn add(&mut self, sample: &Sample) {
        if matches!(sample.state, State::Waiting | State::Ready) {
            return self.add_wait(sample);
        }
        self.add_whole(sample, 0);
    }

    /// Adds waits. Their stack begins at the outermost of the functions in which a runtime or a library waits.
    fn add_wait(&mut self, sample: &Sample) {
        let lines = |(at, id): (usize, &LocationId)| {
            let place = self.places.get(id.0 as usize);
            let (primitive, marks) = place.map_or((&[][..], &[][..]), Place::kinds);
            let lines = primitive.iter().copied().zip(marks.iter().copied()).enumerate();
            lines.map(move |(line, (primitive, mark))| (at, line, primitive, mark))
        };
        let frames = sample.stack.iter().enumerate().flat_map(lines);
        let of_task = frames.take_while(|(.., mark)| *mark != Mark::Tracked);
        // What does not say whose it is may be in between.
        let within = of_task.take_while(|(.., primitive, _)| *primitive != Some(false));
        let leaf = within.filter(|(.., primitive, _)| *primitive == Some(true)).last();
        let (at, line) = leaf.map_or((0, 0), |(at, line, ..)| (at, line));
        let stack = sample.stack[at..].to_vec();
        self.add_whole(&Sample { stack, ..sample.clone() }, line);
    }

    /// Adds allocations. Their stack begins at what was called to allocate.
    pub(super) fn add_allocation(&mut self, allocation: &Allocation) {
        let Allocation { bytes, sample } = allocation;
        let lines = |(at, id): (usize, &LocationId)| {
            let place = self.places.get(id.0 as usize);
            // A location without names may be anybody's.
            let layers = place.map_or(&[][..], |place| &place.layers);
            let layers = if layers.is_empty() { &[Layer::Caller][..] } else { layers };
            layers.iter().copied().enumerate().map(move |(line, layer)| (at, line, layer))
        };
        let frames = || sample.stack.iter().enumerate().flat_map(lines);
        // Our own functions come first, and may call others.
        let of_ours = frames().take(MOST_OF_ALLOCATOR);
        let ours = of_ours.enumerate().filter(|(_, (.., layer))| *layer == Layer::Ours).last();
        let others: Vec<_> = frames().skip(ours.map_or(0, |(nth, _)| nth + 1)).collect();
        let layers: Vec<_> = others.iter().map(|(.., layer)| *layer).collect();
        // Where nothing but the allocator is known, that is where it was.
        let (at, line, _) = Layer::asked(&layers).map_or((0, 0, Layer::Allocator), |at| others[at]);
        let stack = sample.stack[at..].to_vec();
        let sample = self.named(&Sample { stack, ..sample.clone() }, line);
        self.builder.add_allocation(Allocation { bytes: *bytes, sample });
    }

    /// Adds a sample, without the first lines of its innermost location.
    fn add_whole(&mut self, sample: &Sample, without: usize) {
        let named = self.named(sample, without);
        self.builder.add(named);
    }

    /// Names a sample, without the first lines of its innermost location.
    fn named(&mut self, sample: &Sample, without: usize) -> Sample {
        let tracked = !is_untyped(sample) && self.tables.task_root.is_some();
        let root = tracked.then(|| self.tracked_root(sample)).flatten();
        let (mut task, mut runtime) = (sample.task.clone(), sample.runtime.clone());
        let stack = match root {
            Some((at, line)) => Some(self.up_to_root(sample, at, line)),
            None if !is_untyped(sample) => None,
            None => match self.owner(sample) {
                Owner::Task { of, last, executor } => {
                    let id = task.and_then(|task| task.id).filter(|_| executor == Some(NUMBERED));
                    task = Some(TaskRef { id, ..self.task(of) });
                    Some(self.up_to(sample, last))
                }
                Owner::Runtime(part) => {
                    (task, runtime) = (None, Some(self.builder.text(part)));
                    None
                }
                Owner::Nobody if task.is_some() => None,
                Owner::Nobody => {
                    // The frame that polls its task may be among those that are missing.
                    let is_cut = !sample.complete && runtime.is_none();
                    runtime = is_cut.then(|| self.builder.text(CUT)).or(runtime);
                    None
                }
            },
        };
        let complete = sample.complete || stack.is_some();
        let mut stack = match stack {
            Some(stack) => stack,
            None => sample.stack.iter().filter_map(|id| self.whole(*id)).collect(),
        };
        if let (1.., Some(leaf)) = (without, sample.stack.first())
            && stack.len() > 1
        {
            stack[0] = self.without(*leaf, without);
        }
        Sample { stack, task, runtime, complete, ..sample.clone() }
    }

    /// Returns a location without its first lines.
    fn without(&mut self, id: LocationId, without: usize) -> LocationId {
        let Place { address, mapping, ref lines, .. } = self.places[id.0 as usize];
        let lines = lines.get(without..).unwrap_or_default().to_vec();
        self.builder.location(Location { address, mapping, lines })
    }

    /// Says who ran in a sample of no tracked task.
    fn owner(&mut self, sample: &Sample) -> Owner {
        let Self { types, places, .. } = self;
        types.owner(frames(places, &sample.stack).map(|(_, mark)| mark))
    }

    /// Returns the task of a type.
    fn task(&mut self, of: Type) -> TaskRef {
        let words = self.types.words(of);
        let name = match self.types.is_known(of) {
            true => format!("~{words}"),
            false => words,
        };
        self.has_unknown |= !self.types.is_known(of);
        let name = self.builder.text(&name);
        let future = self.builder.text(self.types.whole(of));
        let site =
            self.types.place(of).map(|(file, line)| Site { file: self.builder.text(file), line });
        TaskRef { name: Some(name), site, future: Some(future), ..TaskRef::default() }
    }

    /// Returns where the stack of a tracked task has the frame that polls the task: its location in the stack, and its line there.
    fn tracked_root(&self, sample: &Sample) -> Option<(usize, usize)> {
        let line = |id: &LocationId| {
            let marks = &self.places.get(id.0 as usize)?.marks;
            marks.iter().position(|mark| *mark == Mark::Tracked)
        };
        sample.stack.iter().enumerate().find_map(|(at, id)| Some((at, line(id)?)))
    }

    /// Ends the profile.
    pub(super) fn finish(mut self) -> Profile {
        if self.has_unknown {
            self.builder.remark(UNKNOWN_TYPES);
        }
        let tables = self.tables;
        let mut named = self.builder.finish(std::time::Duration::from_nanos(tables.duration_ns));
        named.has_counts = tables.has_counts;
        named.has_allocations = tables.has_allocations;
        let (now, before) = (named.lost, tables.lost);
        named.lost = pertask_profile::Lost {
            // All samples were added again, so what is counted with them is counted again.
            stacks_incomplete: now.stacks_incomplete,
            samples_folded: now.samples_folded.saturating_add(before.samples_folded),
            locations_folded: now.locations_folded.saturating_add(before.locations_folded),
            texts_folded: now.texts_folded.saturating_add(before.texts_folded),
            ..before
        };
        named
    }

    /// Names all locations, one module after the other and in the order of their addresses, because what lies together is in the
    /// same part of a file.
    fn name_all(&mut self, symbolizer: &mut Symbolizer) {
        let places = self.places.iter().enumerate();
        let key =
            |(at, place): (usize, &Place)| (symbolizer.module(place.address), place.address, at);
        let mut order: Vec<_> = places.map(key).collect();
        order.sort_unstable();
        let mut last = None;
        for (module, _, at) in order {
            let location = &self.tables.locations[at];
            if location.lines.is_empty() && location.mapping.is_some() {
                if module != last {
                    last = module;
                    symbolizer.release();
                }
                let frames = symbolizer.frames(location.address);
                self.places[at].lines = frames.iter().map(|frame| self.line(frame)).collect();
                self.places[at].marks = self.marks(location.address, &frames, symbolizer);
                let primitive = frames.iter().map(|frame| is_primitive(&frame.function));
                self.places[at].primitive = primitive.collect();
                let layers = frames.iter().map(|it| Layer::of(&it.function, it.file.as_deref()));
                self.places[at].layers = layers.collect();
            } else {
                let lines = location.lines.iter().filter_map(|line| self.same_line(*line));
                self.places[at].lines = lines.collect();
                self.places[at].marks = vec![Mark::Unnamed; self.places[at].lines.len()];
                let name = |line: &Line| self.tables.function(line.function).map(|it| &it.name);
                let primitive = |line| name(line).and_then(|name| is_primitive(name));
                self.places[at].primitive = location.lines.iter().map(primitive).collect();
                let layer = |line: &Line| {
                    let function = self.tables.function(line.function);
                    function.map_or(Layer::Caller, |it| Layer::of(&it.name, Some(&it.file)))
                };
                self.places[at].layers = location.lines.iter().map(layer).collect();
            }
        }
    }

    /// Says what each frame of a location is to a task.
    fn marks(
        &mut self,
        address: u64,
        frames: &Arc<[Frame]>,
        symbolizer: &mut Symbolizer,
    ) -> Vec<Mark> {
        let declared = symbolizer.declarations(address);
        let declared = |line: usize| declared.get(line).and_then(Option::as_ref);
        let mut mark = |(line, frame): (usize, &Frame)| {
            let declared: Option<&Declaration> = declared(line);
            if self.tables.task_root.as_ref().is_some_and(|root| is_root(root, frame)) {
                return Mark::Tracked;
            }
            self.types.mark(frame, declared, || symbolizer.functions_at(address) > 1)
        };
        frames.iter().enumerate().map(&mut mark).collect()
    }

    fn line(&mut self, frame: &Frame) -> Line {
        let function = pertask_profile::Function {
            name: self.builder.text(&frame.function),
            system_name: self.builder.text(&frame.system_name),
            file: self.builder.text(frame.file.as_deref().unwrap_or_default()),
            start_line: 0,
        };
        Line { function: self.builder.function(function), line: frame.line.unwrap_or(0) }
    }

    /// Returns a line that had its name before.
    fn same_line(&mut self, line: Line) -> Option<Line> {
        let function: FunctionId =
            self.builder.function(self.tables.function(line.function)?.clone());
        Some(Line { function, ..line })
    }

    fn whole(&mut self, id: LocationId) -> Option<LocationId> {
        let place = self.places.get_mut(id.0 as usize)?;
        if place.whole.is_none() {
            let Place { address, mapping, .. } = *place;
            let lines = place.lines.clone();
            place.whole = Some(self.builder.location(Location { address, mapping, lines }));
        }
        place.whole
    }

    /// Returns the part of a stack that belongs to its task, up to the frame that polls the task and without that frame.
    fn up_to_root(&mut self, sample: &Sample, at: usize, line: usize) -> Vec<LocationId> {
        // If the thread was interrupted in the poll itself, outside the future, that frame is all there is.
        let lines = if at == 0 && line == 0 { 1 } else { line };
        self.cut(&sample.stack[..=at], lines)
    }

    /// Returns the part of a stack up to a frame, counted from the innermost.
    fn up_to(&mut self, sample: &Sample, last: usize) -> Vec<LocationId> {
        let at = frames(&self.places, &sample.stack).nth(last).map(|(line, _)| line + 1);
        let length =
            |id: &LocationId| self.places.get(id.0 as usize).map_or(0, |it| it.marks.len().max(1));
        let lengths = sample.stack.iter().map(length);
        let before = lengths.scan(0, |sum, length| {
            *sum += length;
            Some(*sum)
        });
        let location = before.take_while(|sum| *sum <= last).count();
        match at {
            Some(lines) => self.cut(&sample.stack[..=location], lines),
            None => Vec::new(),
        }
    }

    /// Returns a stack of whose last location a number of lines is kept.
    fn cut(&mut self, stack: &[LocationId], lines: usize) -> Vec<LocationId> {
        let Some((last, callees)) = stack.split_last() else { return Vec::new() };
        let mut kept: Vec<_> = callees.iter().filter_map(|id| self.whole(*id)).collect();
        if lines > 0 {
            let Place { address, mapping, .. } = self.places[last.0 as usize];
            let all = &self.places[last.0 as usize].lines;
            let lines = all[..lines.min(all.len())].to_vec();
            kept.push(self.builder.location(Location { address, mapping, lines }));
        }
        kept
    }
}

/// Whether nothing is known of a sample's task, or its number alone.
fn is_untyped(sample: &Sample) -> bool {
    let is_number = |task: &TaskRef| {
        task.id.is_some() && *task == TaskRef { id: task.id, ..TaskRef::default() }
    };
    sample.task.as_ref().is_none_or(is_number)
}

/// The frames of a stack, from the innermost: each with its line at its location, and what it is to a task.
fn frames(places: &[Place], stack: &[LocationId]) -> impl Iterator<Item = (usize, Mark)> {
    stack.iter().flat_map(move |id| {
        // Code without a name is one frame.
        let marks = match places.get(id.0 as usize) {
            Some(place) if place.marks.is_empty() => &[Mark::Unnamed],
            Some(place) => &place.marks[..],
            None => &[],
        };
        marks.iter().copied().enumerate()
    })
}

/// Whether a function polls or drops a task's future, or is the closure that does so.
fn is_root(root: &TaskRoot, frame: &Frame) -> bool {
    // With line tables only, the names of inlined functions have neither type nor module.
    let bare = || ["poll<", "drop<"].iter().any(|name| frame.function.starts_with(name));
    let here = || frame.file.as_deref().is_some_and(|file| file.ends_with(&root.file));
    frame.function.starts_with(&root.functions) || bare() && here()
}
