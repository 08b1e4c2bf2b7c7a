//! Names for a profile that has addresses only.
//!
//! A task's stack ends at the frame that polls the task. The frames below belong to the runtime. They say nothing about the
//! task, and would split its time by the thread that polled it.

use pertask_profile::{
    Bounds, FunctionId, Line, Location, LocationId, MappingId, Profile, ProfileBuilder, Sample,
    TaskRoot,
};
use pertask_symbols::{Frame, Symbolizer};

/// A profile's locations, with names. Samples are added one by one.
pub(super) struct Naming<'a> {
    builder: ProfileBuilder,
    places: Vec<Place>,
    tables: &'a Profile,
}

/// A location of the profile, with names.
struct Place {
    address: u64,
    mapping: Option<MappingId>,
    lines: Vec<Line>,
    /// The index of the first line that polls a task.
    root: Option<usize>,
    /// The location in the new profile, if it has been needed whole.
    whole: Option<LocationId>,
}

impl<'a> Naming<'a> {
    /// Names the locations of `tables` that have no names. Their samples are not looked at.
    pub(super) fn of(tables: &'a Profile, symbolizer: &mut Symbolizer, bounds: Bounds) -> Self {
        let (mechanism, period_ns) = (tables.mechanism.clone(), tables.period_ns);
        let mut builder = ProfileBuilder::with_bounds(mechanism, period_ns, bounds);
        builder.start(tables.start);
        let mut naming = Self { builder, places: Vec::new(), tables };
        let mappings: Vec<_> =
            tables.mappings.iter().map(|it| naming.builder.mapping(it.clone())).collect();
        let mapping = |id: MappingId| *mappings.get(id.0 as usize)?;
        let places = tables.locations.iter().map(|location| Place {
            address: location.address,
            mapping: location.mapping.and_then(mapping),
            lines: Vec::new(),
            root: None,
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

    /// Adds a sample of the profile whose locations were named.
    pub(super) fn add(&mut self, sample: &Sample) {
        let of_task = sample.task.is_some() && self.tables.task_root.is_some();
        let root = |id: &LocationId| self.places.get(id.0 as usize)?.root;
        let root = sample.stack.iter().position(|id| root(id).is_some()).filter(|_| of_task);
        let stack = match root {
            Some(at) => self.up_to_task(&sample.stack[..=at]),
            None => sample.stack.iter().filter_map(|id| self.whole(*id)).collect(),
        };
        let complete = sample.complete || root.is_some();
        self.builder.add(Sample { stack, complete, ..sample.clone() });
    }

    /// Ends the profile.
    pub(super) fn finish(self) -> Profile {
        let tables = self.tables;
        let mut named = self.builder.finish(std::time::Duration::from_nanos(tables.duration_ns));
        named.has_counts = tables.has_counts;
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
                let root = self.tables.task_root.as_ref();
                self.places[at].root =
                    root.and_then(|root| frames.iter().position(|frame| is_root(root, frame)));
                self.places[at].lines = frames.iter().map(|frame| self.line(frame)).collect();
            } else {
                let lines = location.lines.iter().filter_map(|line| self.same_line(*line));
                self.places[at].lines = lines.collect();
            }
        }
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

    /// Returns the part of a stack that belongs to its task, whose last frame polls the task.
    fn up_to_task(&mut self, stack: &[LocationId]) -> Vec<LocationId> {
        let Some((last, callees)) = stack.split_last() else { return Vec::new() };
        let mut kept: Vec<_> = callees.iter().filter_map(|id| self.whole(*id)).collect();
        let place = &self.places[last.0 as usize];
        let lines = place.root.filter(|lines| *lines > 0);
        // If the thread was interrupted in the poll itself, outside the future, that frame is all there is.
        if let Some(lines) = lines.or(callees.is_empty().then_some(1)) {
            let Place { address, mapping, .. } = *place;
            let lines = place.lines[..lines].to_vec();
            kept.push(self.builder.location(Location { address, mapping, lines }));
        }
        kept
    }
}

/// Whether a function polls or drops a task's future, or is the closure that does so.
fn is_root(root: &TaskRoot, frame: &Frame) -> bool {
    // With line tables only, the names of inlined functions have neither type nor module.
    let bare = || ["poll<", "drop<"].iter().any(|name| frame.function.starts_with(name));
    let here = || frame.file.as_deref().is_some_and(|file| file.ends_with(&root.file));
    frame.function.starts_with(&root.functions) || bare() && here()
}
