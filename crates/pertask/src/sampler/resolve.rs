//! From a sampling session to a profile: addresses become functions, and numbers of tasks become names and spawn sites.
//!
//! A task's stack ends at the frame that polls the task. The frames below belong to the runtime. They say nothing about the
//! task, and would split its time by the thread that polled it.

use crate::sampler::{Module, RawProfile, RawSample, Unmet};
use crate::tasks::label_set::Labels;
use crate::tasks::tracked;
use pertask_core::System;
use pertask_profile::{
    Function, FunctionId, Line, Location, LocationId, Mapping, MappingId, Profile, ProfileBuilder,
    Sample, Site, TaskRef, ThreadRef,
};
use pertask_symbols::{Frame, Symbolizer};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The stack of the time that a thread used before the sampler found it.
const NOT_SAMPLED_YET: &str = "(before its first sample)";

/// The stack of time that was measured and never sampled.
const NO_SAMPLE: &str = "(no sample)";

/// The root of a stack that is a fiber's.
const FIBER_ROOT: &str = "[fiber]";

/// And for time in the kernel, where only user mode is sampled.
const IN_KERNEL: &str = "(kernel, not sampled)";

impl RawProfile {
    /// Makes a profile, with the names of functions, tasks and threads.
    ///
    /// This reads the names of functions from the program's files on disk. For a large program with full debug information,
    /// that takes a second and some hundred megabytes, so call it on a thread for which no other waits. Functions of files that
    /// were replaced since the program began have no names.
    ///
    /// ```no_run
    /// use pertask::sampler::{Sampler, SamplerOptions};
    ///
    /// let sampler = Sampler::start(SamplerOptions::default())?;
    /// // ... the program runs ...
    /// let profile = sampler.stop().resolve();
    /// profile.write_pprof(std::fs::File::create("profile.pb.gz")?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn resolve(&self) -> Profile {
        let mut resolver = Resolver::new(self);
        for raw in &self.samples {
            let sample = resolver.sample(raw, &self.threads);
            resolver.builder.add(sample);
        }
        for unmet in &self.unmet {
            let sample = resolver.unmet(unmet, &self.threads);
            resolver.builder.add(sample);
        }
        for remark in &self.remarks {
            resolver.builder.remark(remark.as_str());
        }
        for problem in resolver.symbolizer.problems() {
            resolver.builder.remark(problem.to_string());
        }
        resolver.builder.dropped(self.lost.dropped());
        resolver.builder.not_sampled(self.lost.threads_not_sampled, self.lost.unsampled_cpu_ns);
        resolver.builder.finish(self.duration)
    }
}

struct Resolver<'a> {
    builder: ProfileBuilder,
    symbolizer: Symbolizer,
    modules: &'a [Module],
    /// The mappings of each module's ranges, in the order of the modules.
    mappings: Vec<Vec<Option<MappingId>>>,
    /// The addresses that have been resolved so far.
    places: HashMap<u64, Arc<Place>>,
    /// The stacks that have been resolved so far, by their memory and whether they are a task's, and whether each reaches its
    /// root.
    stacks: HashMap<(*const u64, bool), (Vec<LocationId>, bool)>,
}

/// An address, resolved.
struct Place {
    mapping: Option<MappingId>,
    lines: Vec<Line>,
    /// The index of the first line that polls a task.
    root: Option<usize>,
}

impl<'a> Resolver<'a> {
    fn new(raw: &'a RawProfile) -> Self {
        let mut builder = ProfileBuilder::new(raw.mechanism.clone(), raw.period_ns);
        builder.start(raw.start);
        let mut mappings = vec![Vec::new(); raw.modules.len()];
        for at in program_first(&raw.modules) {
            mappings[at] = add_mappings(&mut builder, &raw.modules[at]);
        }
        Self {
            builder,
            symbolizer: Symbolizer::new(&raw.modules),
            modules: &raw.modules,
            mappings,
            places: HashMap::new(),
            stacks: HashMap::new(),
        }
    }

    fn sample(&mut self, raw: &RawSample, threads: &BTreeMap<u32, String>) -> Sample {
        let task = raw.task.map(|id| self.task(Some(id), raw.parent, raw.path));
        let (mut stack, at_root) = self.stack(&raw.stack, task.is_some());
        if raw.fiber && !at_root {
            stack.push(self.words(FIBER_ROOT));
        }
        Sample {
            count: 1,
            cpu_ns: raw.cpu_ns,
            stack,
            task,
            thread: Some(self.thread(raw.thread, threads)),
            scopes: raw.scopes.iter().map(|name| self.builder.text(name)).collect(),
            labels: self.labels(&raw.labels),
            complete: raw.complete || at_root,
        }
    }

    /// The entry for CPU time without a sample. Its count of samples is 0.
    fn unmet(&mut self, unmet: &Unmet, threads: &BTreeMap<u32, String>) -> Sample {
        Sample {
            cpu_ns: unmet.cpu_ns,
            stack: vec![self.words(if unmet.kernel { IN_KERNEL } else { NO_SAMPLE })],
            task: unmet.path.map(|path| self.task(None, None, Some(path))),
            thread: unmet.thread.map(|thread| self.thread(thread, threads)),
            labels: self.labels(&unmet.labels),
            ..Sample::default()
        }
    }

    fn labels(&mut self, labels: &Labels) -> Vec<(Arc<str>, Arc<str>)> {
        let texts = |(key, value)| (self.builder.text(key), self.builder.text(value));
        labels.iter().map(texts).collect()
    }

    fn thread(&mut self, tid: u32, threads: &BTreeMap<u32, String>) -> ThreadRef {
        let name = threads.get(&tid).map_or("", |name| name);
        ThreadRef { tid, name: self.builder.text(name) }
    }

    fn task(&mut self, id: Option<u64>, parent: Option<u64>, path: Option<u32>) -> TaskRef {
        let site = path.and_then(|path| System::global().path(path)).map(|path| path.site());
        TaskRef {
            id,
            name: site.and_then(|site| site.name()).map(|name| self.builder.text(name)),
            site: site.map(|site| Site {
                file: self.builder.text(site.location().file()),
                line: site.location().line(),
            }),
            parent,
        }
    }

    /// Resolves a stack. Returns it, and whether it reaches the frame that polls its task.
    fn stack(&mut self, addresses: &Arc<[u64]>, of_task: bool) -> (Vec<LocationId>, bool) {
        let key = (addresses.as_ptr(), of_task);
        if let Some(known) = self.stacks.get(&key) {
            return known.clone();
        }
        let stack = if addresses.is_empty() {
            (vec![self.words(NOT_SAMPLED_YET)], true)
        } else {
            self.resolve_stack(addresses, of_task)
        };
        self.stacks.insert(key, stack.clone());
        stack
    }

    fn resolve_stack(&mut self, addresses: &[u64], of_task: bool) -> (Vec<LocationId>, bool) {
        // A caller continues after its call, and the call's own address is wanted.
        let first = addresses.first().copied();
        let callers = addresses.iter().skip(1).map(|address| address.saturating_sub(1));
        let mut stack: Vec<_> =
            first.into_iter().chain(callers).map(|at| (at, self.place(at))).collect();
        let at_root = of_task && stack.iter().any(|(_, place)| place.root.is_some());
        let lines = if of_task { end_at_task(&mut stack) } else { None };
        let last = stack.len().saturating_sub(1);
        let mut ids = Vec::with_capacity(stack.len());
        for (depth, (address, place)) in stack.into_iter().enumerate() {
            let kept = lines.filter(|_| depth == last).unwrap_or(place.lines.len());
            let lines = place.lines[..kept].to_vec();
            ids.push(self.builder.location(Location { address, mapping: place.mapping, lines }));
        }
        (ids, at_root)
    }

    fn place(&mut self, address: u64) -> Arc<Place> {
        if let Some(known) = self.places.get(&address) {
            return Arc::clone(known);
        }
        let frames = self.symbolizer.frames(address);
        let place = Arc::new(Place {
            mapping: self.mapping(address),
            lines: frames.iter().map(|frame| self.line(frame)).collect(),
            root: frames.iter().position(is_task_root),
        });
        self.places.insert(address, Arc::clone(&place));
        place
    }

    fn line(&mut self, frame: &Frame) -> Line {
        let function = Function {
            name: self.builder.text(&frame.function),
            system_name: self.builder.text(&frame.system_name),
            file: self.builder.text(frame.file.as_deref().unwrap_or_default()),
            start_line: 0,
        };
        Line { function: self.builder.function(function), line: frame.line.unwrap_or(0) }
    }

    fn mapping(&self, address: u64) -> Option<MappingId> {
        let module = self.symbolizer.module(address)?;
        let holds = |range: &crate::sampler::ModuleRange| range.addresses.contains(&address);
        let range = self.modules.get(module)?.ranges.iter().position(holds)?;
        *self.mappings.get(module)?.get(range)?
    }

    /// A location that stands for no code. Its name says why.
    fn words(&mut self, words: &str) -> LocationId {
        let name = self.builder.text(words);
        let function: FunctionId = self.builder.function(Function { name, ..Function::default() });
        self.builder
            .location(Location { lines: vec![Line { function, line: 0 }], ..Location::default() })
    }
}

/// Cuts a stack where its task is polled. Returns how many lines of the last remaining frame belong to the task.
///
/// If that frame has no symbol, the stack stays whole, up to the thread's root.
fn end_at_task(stack: &mut Vec<(u64, Arc<Place>)>) -> Option<usize> {
    let at = stack.iter().position(|(_, place)| place.root.is_some())?;
    let lines = stack[at].1.root.filter(|lines| *lines > 0);
    // If the thread was interrupted in the poll itself, outside the future, that frame is all there is.
    let lines = lines.or((at == 0).then_some(1));
    stack.truncate(if lines.is_some() { at + 1 } else { at });
    lines
}

/// Whether a function polls or drops a task's future, or is the closure that does so.
fn is_task_root(frame: &Frame) -> bool {
    // With line tables only, the names of inlined functions have neither type nor module.
    let bare = || ["poll<", "drop<"].iter().any(|name| frame.function.starts_with(name));
    let here = || frame.file.as_deref().is_some_and(|file| file.ends_with(tracked::FILE));
    frame.function.starts_with(tracked::FUNCTIONS) || bare() && here()
}

/// The indices of the modules, the program's own first.
fn program_first(modules: &[Module]) -> Vec<usize> {
    let program = std::env::current_exe().unwrap_or_default();
    let mut order: Vec<_> = (0..modules.len()).collect();
    order.sort_by_key(|at| std::path::Path::new(&modules[*at].path) != program);
    order
}

fn add_mappings(builder: &mut ProfileBuilder, module: &Module) -> Vec<Option<MappingId>> {
    let file = builder.text(&module.path);
    let digits: String = module.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let build_id = builder.text(&digits);
    let mapping = |range: &crate::sampler::ModuleRange| {
        builder.mapping(Mapping {
            start: range.addresses.start,
            end: range.addresses.end,
            offset: range.file_offset,
            file: Arc::clone(&file),
            build_id: Arc::clone(&build_id),
        })
    };
    module.ranges.iter().map(mapping).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_that_ends_at_a_fibers_root_says_so() {
        let mut raw = RawProfile::empty();
        raw.remarks.push("a remark".to_owned());
        raw.samples = [true, false].map(|fiber| sample(fiber, &[0x1040, 0x1080])).to_vec();
        let profile = raw.resolve();
        let root = |sample: &Sample| {
            let location = profile.location(*sample.stack.last()?)?;
            profile.function(location.lines.first()?.function).map(|function| &*function.name)
        };
        let roots: Vec<_> = profile.samples.iter().map(root).collect();
        assert_eq!(roots, [Some("[fiber]"), None], "the others have no symbols");
        assert!(profile.remarks.contains(&"a remark".to_owned()), "{:?}", profile.remarks);
    }

    fn sample(fiber: bool, stack: &[u64]) -> RawSample {
        RawSample {
            time_ns: 0,
            cpu_ns: 1,
            thread: 1,
            task: None,
            parent: None,
            path: None,
            labels: Labels::default(),
            scopes: [].into(),
            deeper_scopes: 0,
            overrun: 0,
            handler_ns: 0,
            stack: stack.into(),
            complete: true,
            truncated: false,
            fiber,
        }
    }
}
