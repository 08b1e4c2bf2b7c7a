//! Stacks of single threads at single moments, for the watch: of a thread that runs, by a summons; of one that is blocked in the
//! kernel, from outside.

use super::collector;
use super::functions::Functions;
use super::modules::{self, Changes, Unwinder};
use super::outside::{self, View};
use super::signals;
use super::stacks::Stacks;
use super::summons::{Answer, Summoner, Summons};
use super::unwind::Cache;
use super::walker::Walker;
use framehop::Unwinder as _;
use pertask_core::CpuRecord;
use pertask_symbols::{MappedElf, Memory, Module};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// The addresses of a stack: where the thread was, and then where each caller continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stack {
    pub(crate) addresses: Vec<u64>,
    /// Whether the walk has reached the thread's root.
    pub(crate) complete: bool,
}

/// Takes stacks. One thread has it.
pub(crate) struct Catcher {
    memory: Option<Memory>,
    code: Code,
    /// The mappings as they were last read, and when they may be read again.
    stacks: Stacks,
    next_look: Instant,
    cache: Box<Cache>,
    /// Or why threads cannot be summoned.
    summoner: Result<Summoner, String>,
    /// Why not all stacks can be had.
    remarks: Vec<String>,
}

/// The code that is mapped, and how to walk through it.
#[derive(Default)]
struct Code {
    changes: Option<Changes>,
    modules: Vec<Module>,
    functions: Vec<Functions>,
    unwinder: Arc<Unwinder>,
}

/// A thread that has been asked for its stack.
pub(crate) struct Asked(Summons);

/// The most remarks. They come from few causes.
const MOST_REMARKS: usize = 8;

/// Leaves the process's signals to other threads than the calling one.
pub(crate) fn leave_signals() {
    signals::block_all_but_faults();
}

impl Catcher {
    pub(crate) fn new() -> Self {
        let (summoner, memory) = (collector::summoner(), Memory::open());
        let mut remarks = Vec::new();
        remarks.extend(summoner.as_ref().err().map(|why| no_running(why)));
        remarks.extend(
            memory.as_ref().err().map(|why| format!("no stacks of blocked threads: {why}")),
        );
        let (cache, code) = (Box::default(), Code::default());
        let (memory, stacks, next_look) = (memory.ok(), Stacks::default(), Instant::now());
        let mut catcher = Self { memory, code, stacks, next_look, cache, summoner, remarks };
        catcher.refresh();
        catcher
    }

    /// Reads again what code is mapped, if that has changed. Returns whether it has.
    pub(crate) fn refresh(&mut self) -> bool {
        let changes = Changes::now();
        let Some(memory) = self.memory.as_ref().filter(|_| self.code.changes != Some(changes))
        else {
            return false;
        };
        match Code::read(changes, memory) {
            Ok(code) => self.code = code,
            Err(why) => self.remark(format!("no stacks: {why}")),
        }
        true
    }

    /// The modules that are mapped.
    pub(crate) fn modules(&self) -> &[Module] {
        &self.code.modules
    }

    /// Where the function at an address begins, or the address itself where no table knows.
    pub(crate) fn function_start(&self, address: u64) -> u64 {
        let found = self.code.functions.iter().find_map(|module| module.at(address));
        found.map_or(address, |function| function.start)
    }

    /// The stack of a thread that is blocked in the kernel, and will go on at this instruction with this stack pointer. Whoever asks
    /// must check afterwards that the thread has not run meanwhile.
    pub(crate) fn of_blocked(&mut self, instruction: u64, stack: u64) -> Option<Stack> {
        self.look_at_mappings();
        let mapped = self.stacks.mapping(stack)?;
        let view = View {
            memory: self.memory.as_ref()?,
            functions: &self.code.functions,
            unwinder: &self.code.unwinder,
        };
        let range: Range<u64> = stack..mapped.end;
        let (addresses, complete) = outside::walk(&view, &mut self.cache, instruction, &range);
        Some(Stack { addresses, complete })
    }

    /// Asks a running thread for the stack of the poll that it is in. `None` if it cannot be asked now, or at all.
    pub(crate) fn ask(
        &mut self,
        thread: u32,
        cpu: &'static CpuRecord,
        switches: u64,
    ) -> Option<Asked> {
        self.look_at_mappings();
        let summoner = self.summoner.as_ref().ok()?;
        let walker = Walker::new(Arc::clone(&self.code.unwinder), &self.stacks);
        let with = (walker, self.stacks.of(thread));
        match collector::undisturbed(|| summoner.summon(thread, cpu, switches, with))? {
            Ok(summons) => Some(Asked(summons)),
            Err(why) => {
                self.remark(no_running(&why));
                None
            }
        }
    }

    /// Reads the mappings again, but not too often: that takes time in proportion to their number.
    fn look_at_mappings(&mut self) {
        const REST: u32 = 50;
        let start = Instant::now();
        if start < self.next_look {
            return;
        }
        if let Some(stacks) = Stacks::read() {
            self.stacks = stacks;
        }
        self.next_look = start + start.elapsed() * REST;
    }

    /// What people should know of stacks that are missing.
    pub(crate) fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Ends it. These threads were asked, and may not have answered.
    pub(crate) fn end(self, threads: impl Iterator<Item = u32>) {
        if let Ok(summoner) = self.summoner {
            collector::dismiss(summoner, threads);
        }
    }

    pub(crate) fn remark(&mut self, remark: String) {
        if self.remarks.len() < MOST_REMARKS && !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
    }
}

fn no_running(why: &str) -> String {
    format!("no stacks of running threads: {why}")
}

impl Asked {
    pub(crate) fn thread(&self) -> u32 {
        self.0.thread()
    }

    /// The stack, `Ok(None)` if the poll was over by then, or `Err` if the thread has not answered yet.
    pub(crate) fn answer(&self) -> Result<Option<Stack>, ()> {
        match self.0.answer() {
            Answer::NotYet => Err(()),
            Answer::TooLate => Ok(None),
            Answer::Stack { addresses, complete } => Ok(Some(Stack { addresses, complete })),
        }
    }
}

impl Code {
    fn read(changes: Changes, memory: &Memory) -> std::io::Result<Self> {
        let mappings = pertask_symbols::mappings()?;
        let (mut modules, mut functions) = (Vec::new(), Vec::new());
        let mut unwinder = Unwinder::new();
        for image in MappedElf::all(&mappings, memory) {
            modules.push(image.module());
            let Some(sections) = image.unwind_sections() else { continue };
            functions.extend(Functions::of(&sections));
            unwinder.add_module(modules::unwinding(sections));
        }
        let (changes, unwinder) = (Some(changes), Arc::new(unwinder));
        Ok(Self { changes, modules, functions, unwinder })
    }
}
