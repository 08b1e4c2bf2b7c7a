//! A sampling session in the words of a profile: tasks and threads have their names, and code has addresses only.

use super::RawProfile;
use super::profile::{RawAllocation, RawSample, RawWait, Unmet};
use crate::tasks::label_set::Labels;
use crate::tasks::tracked;
use pertask_core::System;
use pertask_profile::{
    Allocation, Function, FunctionId, Line, Location, LocationId, Mapping, MappingId, Profile,
    ProfileBuilder, Sample, Site, State, TaskRef, TaskRoot, ThreadRef,
};
use pertask_symbols::{GeneratedCode, Module, Symbolizer};
use std::collections::HashMap;
use std::sync::Arc;

/// The stack of the time that a thread used before the sampler found it.
const NOT_SAMPLED_YET: &str = "(before its first sample)";

/// The stack of time that was measured and never sampled.
const NO_SAMPLE: &str = "(no sample)";

/// And for time in the kernel, where only user mode is sampled.
const IN_KERNEL: &str = "(kernel, not sampled)";

/// And for time of which it is not known in which task it was, because polls ended in another order than they began, or on another
/// thread.
const UNKNOWN_TASK: &str = "(unknown task)";

/// The root of a stack that is a fiber's. Where the fiber polls the task, the stack ends there, as others do.
const FIBER_ROOT: &str = "[fiber]";

/// The stack of waiting time of which nobody saw where.
const WAIT_NOT_SEEN: &str = "(wait not seen)";

/// And of time in polls off the CPU.
const OFF_CPU_IN_POLL: &str = "(off the CPU in a poll)";

/// And of memory of which nobody saw where it was allocated.
const ALLOCATION_NOT_SEEN: &str = "(allocation not seen)";

/// The locations that stand for no code. Their names say why. They come before all others.
const WORDS: [&str; 8] = [
    NOT_SAMPLED_YET,
    NO_SAMPLE,
    IN_KERNEL,
    UNKNOWN_TASK,
    FIBER_ROOT,
    WAIT_NOT_SEEN,
    OFF_CPU_IN_POLL,
    ALLOCATION_NOT_SEEN,
];

/// A session that is being described.
pub(super) struct Recording<'a> {
    raw: &'a RawProfile,
    tables: Profile,
    /// All addresses of the stacks, sorted.
    addresses: Vec<u64>,
    /// Those among them at which no module has code, sorted.
    generated: Vec<u64>,
    /// The store of names, which bounds their number and their size.
    texts: ProfileBuilder,
}

impl<'a> Recording<'a> {
    pub(super) fn of(raw: &'a RawProfile) -> Self {
        let mut texts = ProfileBuilder::new("", 0);
        let addresses = addresses(raw);
        let mut tables = head(raw);
        let ranges = add_mappings(&mut tables, &raw.modules, &mut texts);
        let mut functions = Functions::default();
        for words in WORDS {
            let lines = vec![functions.line(words, &mut texts)];
            tables.locations.push(Location { lines, ..Location::default() });
        }
        let modules = Symbolizer::new(&raw.modules);
        let is_generated = |address: &u64| modules.module(*address).is_none();
        let generated: Vec<_> = addresses.iter().copied().filter(is_generated).collect();
        let names = GeneratedCode::of_this_process(generated.clone());
        for address in &addresses {
            let location = match modules.module(*address) {
                Some(module) => {
                    let mapping = ranges[module].iter().find_map(|range| range.holding(*address));
                    Location { address: *address, mapping, lines: Vec::new() }
                }
                None => {
                    // It is named now, because nobody could do it later.
                    let name = names.name(*address);
                    let line = name.map(|name| functions.line(name, &mut texts));
                    Location { address: *address, mapping: None, lines: line.into_iter().collect() }
                }
            };
            tables.locations.push(location);
        }
        tables.functions = functions.all;
        Self { raw, tables, addresses, generated, texts }
    }

    /// Takes the profile without its samples. Its locations have the order of [`WORDS`] and then of the addresses.
    pub(super) fn take_tables(&mut self) -> Profile {
        let empty = ProfileBuilder::new("", 0).finish(std::time::Duration::ZERO);
        std::mem::replace(&mut self.tables, empty)
    }

    /// Describes a sample.
    pub(super) fn sample(&mut self, raw: &RawSample) -> Sample {
        let (stack, complete) = self.stack(&raw.stack, raw.complete, raw.fiber, NOT_SAMPLED_YET);
        Sample {
            count: 1,
            time_ns: raw.cpu_ns,
            state: State::OnCpu,
            stack,
            task: raw.task.map(|id| self.task(Some(id), raw.parent, raw.path)),
            woken_by: None,
            held_by: None,
            runtime: None,
            thread: Some(self.thread(raw.thread)),
            scopes: raw.scopes.iter().map(|name| self.texts.text(name)).collect(),
            labels: self.labels(&raw.labels),
            complete,
        }
    }

    /// Describes CPU time without a sample. Its count of samples is 0.
    pub(super) fn unmet(&mut self, unmet: &Unmet) -> Sample {
        let why = match unmet {
            unmet if unmet.kernel => IN_KERNEL,
            unmet if unmet.is_of_unknown_task() => UNKNOWN_TASK,
            _ => NO_SAMPLE,
        };
        Sample {
            time_ns: unmet.cpu_ns,
            stack: vec![word(why)],
            task: unmet.path.map(|path| self.task(None, None, Some(path))),
            thread: unmet.thread.map(|thread| self.thread(thread)),
            labels: self.labels(&unmet.labels),
            ..Sample::default()
        }
    }

    /// Describes waits: the time of waiting, and that of being ready, at the same place.
    pub(super) fn waits(&mut self, raw: &RawWait) -> impl Iterator<Item = Sample> + use<> {
        let (stack, complete) = self.stack(&raw.stack, raw.complete, raw.fiber, WAIT_NOT_SEEN);
        let waiting = Sample {
            count: raw.count,
            time_ns: raw.waiting_ns,
            state: State::Waiting,
            stack,
            task: Some(self.task(None, None, Some(raw.path))),
            woken_by: raw.woken_by.map(|path| self.task(None, None, Some(path))),
            held_by: raw.held_by.map(|path| self.task(None, None, Some(path))),
            labels: self.labels(&raw.labels),
            complete,
            ..Sample::default()
        };
        let ready =
            Sample { count: 0, time_ns: raw.ready_ns, state: State::Ready, ..waiting.clone() };
        [waiting, ready].into_iter().filter(|sample| sample.time_ns > 0)
    }

    /// Describes the time that tasks of a path were polled without the CPU.
    pub(super) fn blocked(&mut self, path: u32, time_ns: u64) -> Sample {
        Sample {
            time_ns,
            state: State::Blocked,
            stack: vec![word(OFF_CPU_IN_POLL)],
            task: Some(self.task(None, None, Some(path))),
            ..Sample::default()
        }
    }

    /// Describes allocations.
    pub(super) fn allocation(&mut self, raw: &RawAllocation) -> Allocation {
        let (stack, complete) =
            self.stack(&raw.stack, raw.complete, raw.fiber, ALLOCATION_NOT_SEEN);
        let sample = Sample {
            count: raw.count,
            stack,
            task: raw.path.map(|path| self.task(None, None, Some(path))),
            labels: self.labels(&raw.labels),
            complete,
            ..Sample::default()
        };
        Allocation { bytes: raw.bytes, sample }
    }

    /// The locations of a stack, or the words that say why there is none; and whether it is whole.
    fn stack(
        &self,
        addresses: &[u64],
        complete: bool,
        fiber: bool,
        missing: &str,
    ) -> (Vec<LocationId>, bool) {
        if addresses.is_empty() {
            return (vec![word(missing)], true);
        }
        let place = |address| self.addresses.binary_search(&address).ok();
        let places = places(addresses).filter_map(place);
        let locations = places.map(|at| LocationId((WORDS.len() + at) as u32));
        let root = fiber.then(|| word(FIBER_ROOT));
        (locations.chain(root).collect(), complete && !self.has_generated(addresses))
    }

    fn labels(&mut self, labels: &Labels) -> Vec<(Arc<str>, Arc<str>)> {
        let texts = |(key, value)| (self.texts.text(key), self.texts.text(value));
        labels.iter().map(texts).collect()
    }

    /// Whether the unwinder went through code of which no table says how. What it took for callers may lack some.
    fn has_generated(&self, stack: &[u64]) -> bool {
        !self.generated.is_empty()
            && places(stack).any(|place| self.generated.binary_search(&place).is_ok())
    }

    fn thread(&mut self, tid: u32) -> ThreadRef {
        let name = self.raw.threads.get(&tid).map_or("", |name| name);
        ThreadRef { tid, name: self.texts.text(name) }
    }

    fn task(&mut self, id: Option<u64>, parent: Option<u64>, path: Option<u32>) -> TaskRef {
        let site = path.and_then(|path| System::global().path(path)).map(|path| path.site());
        TaskRef {
            id,
            name: site.and_then(|site| site.name()).map(|name| self.texts.text(name)),
            site: site.map(|site| Site {
                file: self.texts.text(site.location().file()),
                line: site.location().line(),
            }),
            parent,
            future: None,
        }
    }
}

/// The addresses of a stack as places in the code.
///
/// A caller continues after its call, and the call's own address is wanted.
fn places(addresses: &[u64]) -> impl Iterator<Item = u64> {
    let first = addresses.first().copied();
    let callers = addresses.iter().skip(1).map(|address| address.saturating_sub(1));
    first.into_iter().chain(callers)
}

/// All addresses of the session's stacks as places in the code, sorted, each once.
fn addresses(raw: &RawProfile) -> Vec<u64> {
    // Equal stacks share their memory.
    let mut stacks: Vec<&Arc<[u64]>> = Vec::new();
    let mut all = Vec::new();
    const MOST: usize = 1 << 14;
    // Twice what was left the last time, so that sorting takes no more than the logarithm of the addresses for each.
    let mut most = MOST;
    let mut off_cpu: Vec<_> = raw.waits.iter().map(|wait| &wait.stack).collect();
    off_cpu.extend(raw.allocations.iter().map(|allocation| &allocation.stack));
    off_cpu.sort_unstable_by_key(|stack| stack.as_ptr());
    off_cpu.dedup_by_key(|stack| stack.as_ptr());
    off_cpu.iter().for_each(|stack| all.extend(places(stack)));
    for samples in raw.samples.chunks(MOST) {
        stacks.extend(samples.iter().map(|sample| &sample.stack));
        stacks.sort_unstable_by_key(|stack| stack.as_ptr());
        stacks.dedup_by_key(|stack| stack.as_ptr());
        for stack in stacks.drain(..) {
            all.extend(places(stack));
            // Most addresses come again and again.
            if all.len() > most {
                all.sort_unstable();
                all.dedup();
                most = MOST.max(2 * all.len());
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    all.shrink_to_fit();
    all
}

/// The profile without anything in its tables.
fn head(raw: &RawProfile) -> Profile {
    let mut builder = ProfileBuilder::new(raw.mechanism.clone(), raw.period_ns);
    builder.start(raw.start).dropped(raw.lost.dropped());
    builder.not_sampled(raw.lost.threads_not_sampled, raw.lost.unsampled_cpu_ns);
    raw.remarks.iter().for_each(|remark| builder.remark(remark.as_str()));
    let root =
        TaskRoot { functions: tracked::FUNCTIONS.to_owned(), file: tracked::FILE.to_owned() };
    let has_allocations = raw.has_allocations;
    Profile { task_root: Some(root), has_allocations, ..builder.finish(raw.duration) }
}

fn word(word: &str) -> LocationId {
    LocationId(WORDS.iter().position(|known| *known == word).unwrap_or(0) as u32)
}

/// Functions that are known by name alone, each once.
#[derive(Default)]
struct Functions {
    all: Vec<Function>,
    known: HashMap<Arc<str>, FunctionId>,
}

impl Functions {
    fn line(&mut self, name: &str, texts: &mut ProfileBuilder) -> Line {
        let name = texts.text(name);
        let next = FunctionId(self.all.len() as u32);
        let function = *self.known.entry(Arc::clone(&name)).or_insert(next);
        if function == next {
            self.all.push(Function { name, ..Function::default() });
        }
        Line { function, line: 0 }
    }
}

/// A range of a module's code, with its mapping.
struct Range {
    start: u64,
    end: u64,
    mapping: MappingId,
}

impl Range {
    fn holding(&self, address: u64) -> Option<MappingId> {
        (self.start <= address && address < self.end).then_some(self.mapping)
    }
}

/// Adds the mappings of all modules, the program's own first. Returns those of each module.
fn add_mappings(
    tables: &mut Profile,
    modules: &[Module],
    texts: &mut ProfileBuilder,
) -> Vec<Vec<Range>> {
    let mut all: Vec<Vec<Range>> = modules.iter().map(|_| Vec::new()).collect();
    for at in program_first(modules) {
        let module = &modules[at];
        let digits: String = module.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let (file, build_id) = (texts.text(&module.path), texts.text(&digits));
        for range in &module.ranges {
            let (start, end) = (range.addresses.start, range.addresses.end);
            let mapping = MappingId(tables.mappings.len() as u32);
            let (file, build_id) = (Arc::clone(&file), Arc::clone(&build_id));
            tables.mappings.push(Mapping { start, end, offset: range.file_offset, file, build_id });
            all[at].push(Range { start, end, mapping });
        }
    }
    all
}

/// The indices of the modules, the program's own first.
fn program_first(modules: &[Module]) -> Vec<usize> {
    let program = std::env::current_exe().unwrap_or_default();
    let mut order: Vec<_> = (0..modules.len()).collect();
    order.sort_by_key(|at| std::path::Path::new(&modules[*at].path) != program);
    order
}
