//! Where tokio is in a process: the functions that poll its tasks, those that run many tasks, and its count of tasks, by the symbols of
//! the process's files.

#[cfg(target_arch = "x86_64")]
use crate::code::first_argument;
use crate::kept::Kept;
use crate::landing_pads;
#[cfg(not(target_arch = "x86_64"))]
use crate::landing_pads::CallSite;
use crate::space::Walked;
use pertask_symbols::{MappedElf, Memory, Module, Symbol};
use std::collections::BTreeMap;
use std::ops::Range;

/// Where tokio is in a process.
#[derive(Debug, Default)]
pub(crate) struct Tokio {
    /// Its functions that matter, by their first addresses.
    functions: BTreeMap<u64, Function>,
    /// The IDs that the next tasks will have: where they are, and the module's path. Each copy of tokio in the process has one.
    next_ids: Vec<(Range<u64>, String)>,
    /// Whether a file has more symbols than were read.
    pub(crate) is_cut: bool,
}

/// A function of tokio.
#[derive(Debug)]
struct Function {
    end: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// It polls a task.
    Polls {
        /// Whether it is the kind of function that a task's table has.
        is_raw: bool,
        /// The functions in tasks' tables that are this one, or that go on here.
        entries: Vec<u64>,
        /// Where it keeps the address of the task's header, which is its argument.
        kept: Option<Kept>,
    },
    /// It runs one task after the other.
    Runs,
}

/// The function that a task's table has.
const RAW_POLL: &str = "tokio::runtime::task::raw::poll";
/// Where it may go on.
const HARNESS: &str = "tokio::runtime::task::harness::Harness<";
/// The ID of the next task.
const NEXT_ID: [&str; 2] = ["tokio::runtime::task::id::Id", "::next::NEXT_ID"];
/// The functions that run tasks: where they are, and what one of the last parts of their names is.
const RUNNERS: [(&str, &[&str]); 5] = [
    ("tokio::runtime::scheduler::multi_thread::worker::", &["run", "run_task"]),
    ("tokio::runtime::scheduler::multi_thread_alt::worker::", &["run", "run_task"]),
    ("tokio::runtime::scheduler::current_thread::", &["block_on", "run_task"]),
    ("tokio::task::local::LocalSet", &["tick"]),
    ("tokio::runtime::blocking::pool::Inner", &["run"]),
];

/// What a frame says of the task that it polls.
pub(crate) struct Polling<'a> {
    /// The frame, counted from the innermost.
    pub(crate) frame: usize,
    /// The functions of which the task's table has one.
    pub(crate) entries: &'a [u64],
    /// Where the frame's function keeps the address of the task's header.
    pub(crate) kept: &'a Kept,
}

/// The longest function that is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// The most bytes of a jump, with what may stand before it.
const JUMP: u64 = 16;

impl Tokio {
    /// Adds what an image has of tokio.
    pub(crate) fn add(&mut self, image: &MappedElf<'_>, module: &Module, memory: &Memory) {
        let symbols = image.symbols(may_be_wanted);
        self.is_cut |= symbols.len() >= MappedElf::MOST_SYMBOLS;
        let tables = image.unwind_sections();
        for Symbol { name, addresses, .. } in &symbols {
            let is_raw = is_raw_poll(name);
            let kind = match () {
                () if is_next_id(name) => {
                    self.next_ids.push((addresses.clone(), module.path.clone()));
                    continue;
                }
                () if is_raw || is_harness_poll(name) => {
                    let Range { start, end } = *addresses;
                    let code = memory.read(start..end.min(start.saturating_add(LONGEST)));
                    let panics = tables
                        .as_ref()
                        .and_then(|tables| landing_pads::of_function(start, tables, memory));
                    let kept = code
                        .zip(panics)
                        .and_then(|(code, panics)| first_argument(&code, start, &panics));
                    Kind::Polls { is_raw, entries: Vec::new(), kept }
                }
                () if is_runner(name) => Kind::Runs,
                () => continue,
            };
            let new = Function { end: addresses.end, kind };
            let known = self.functions.entry(addresses.start).or_insert(new);
            known.end = known.end.max(addresses.end);
        }
        for Symbol { addresses, .. } in symbols.iter().filter(|symbol| is_raw_poll(&symbol.name)) {
            self.add_entry(addresses.start, memory);
        }
    }

    /// Notes that tables of tasks have this function, where it is and where it goes on.
    fn add_entry(&mut self, start: u64, memory: &Memory) {
        let code = memory.read(start..start.saturating_add(JUMP)).unwrap_or_default();
        let goes_on = jump(&code).map(|distance| start.wrapping_add_signed(distance));
        for code in [Some(start), goes_on].into_iter().flatten() {
            if let Some(Function { kind: Kind::Polls { entries, .. }, .. }) =
                self.functions.get_mut(&code)
            {
                entries.push(start);
            }
        }
    }

    /// Removes what a module had that is no longer mapped.
    pub(crate) fn remove(&mut self, gone: &Module) {
        self.next_ids.retain(|(_, path)| *path != gone.path);
        let is_its =
            |address: &u64| gone.ranges.iter().any(|range| range.addresses.contains(address));
        self.functions.retain(|start, _| !is_its(start));
    }

    /// Where the ID of the next task is, or `None` if there is no tokio, or more than one: each of those counts for itself.
    pub(crate) fn next_id(&self) -> Option<u64> {
        match &self.next_ids[..] {
            [(addresses, _)] if !self.is_cut => Some(addresses.start),
            _ => None,
        }
    }

    /// Whether there are tasks of tokio, as far as the symbols tell.
    pub(crate) fn is_there(&self) -> bool {
        self.functions.values().any(|function| matches!(function.kind, Kind::Polls { .. }))
    }

    /// How many copies of tokio there are.
    pub(crate) fn copies(&self) -> usize {
        self.next_ids.len()
    }

    /// Returns the frame of a stack that polls the innermost task, if it is known how to find that task.
    ///
    /// It is the innermost frame that polls any. If a function that runs many tasks was called from there, a task may be polled by a function
    /// that is not known here, and then none is returned: what is further out is another task, such as the worker itself.
    pub(crate) fn polling(&self, walked: &Walked) -> Option<Polling<'_>> {
        let kind = |frame: usize| self.kind(walked.place(frame));
        let frames = 0..walked.addresses.len();
        let (frame, found) = frames.clone().find_map(|frame| Some((frame, kind(frame)?)))?;
        let Kind::Polls { entries, kept: Some(kept), .. } = found else { return None };
        let entries = match entries.is_empty() {
            false => entries,
            // Unoptimised, it is called by the function that the table has.
            true => match frames.contains(&(frame + 1)).then(|| kind(frame + 1))?? {
                Kind::Polls { is_raw: true, entries, .. } => entries,
                _ => return None,
            },
        };
        Some(Polling { frame, entries, kept })
    }

    /// Whether a stack has a frame that polls a task.
    pub(crate) fn polls(&self, walked: &Walked) -> bool {
        let kinds = (0..walked.addresses.len()).find_map(|frame| self.kind(walked.place(frame)));
        matches!(kinds, Some(Kind::Polls { .. }))
    }

    fn kind(&self, address: u64) -> Option<&Kind> {
        let (_, function) = self.functions.range(..=address).next_back()?;
        (address < function.end).then_some(&function.kind)
    }
}

/// On other architectures, nobody reads the code.
#[cfg(not(target_arch = "x86_64"))]
fn first_argument(_: &[u8], _: u64, _: &[CallSite]) -> Option<Kept> {
    None
}

/// Whether a linker's name may be one of those, whatever its mangling.
fn may_be_wanted(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    let has = |part: &str| name.contains(part);
    // Nearly all names lack this.
    has("5tokio")
        && (has("4task3raw4poll")
            || has("4task7harness") && has("4poll")
            || has("4task2id") && has("7NEXT_ID")
            || has("9scheduler") && (has("3run") || has("8run_task") || has("8block_on"))
            || has("4task5local8LocalSet") && has("4tick")
            || has("8blocking4pool5Inner") && has("3run"))
}

fn is_raw_poll(name: &str) -> bool {
    name.strip_prefix(RAW_POLL).is_some_and(|rest| rest.is_empty() || rest.starts_with("::<"))
}

/// `tokio::runtime::task::harness::Harness<T,S>::poll`, or with the v0 mangling `<tokio::runtime::task::harness::Harness<..>>::poll`.
fn is_harness_poll(name: &str) -> bool {
    name.strip_prefix('<').unwrap_or(name).starts_with(HARNESS) && name.ends_with(">::poll")
}

/// Also a closure in one of them.
fn is_runner(name: &str) -> bool {
    let name = name.strip_prefix('<').unwrap_or(name);
    RUNNERS.iter().any(|(place, last)| {
        let rest = name.strip_prefix(place);
        rest.is_some_and(|rest| rest.split("::").any(|part| last.contains(&part)))
    })
}

fn is_next_id(name: &str) -> bool {
    let [id, next] = NEXT_ID;
    name.strip_prefix('<').unwrap_or(name).starts_with(id) && name.ends_with(next)
}

/// How far a function jumps that does nothing but to go on elsewhere.
#[cfg(target_arch = "x86_64")]
fn jump(code: &[u8]) -> Option<i64> {
    // Where a jump may lead to, and a frame pointer that is set up and given back.
    const MARK: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
    const FRAME: &[u8] = &[0x55, 0x48, 0x89, 0xe5, 0x5d];
    let skip = |at: usize, what: &[u8]| {
        if code.get(at..).is_some_and(|code| code.starts_with(what)) { at + what.len() } else { at }
    };
    let skipped = skip(skip(0, MARK), FRAME);
    match code.get(skipped..)? {
        [0xe9, to @ ..] => {
            let distance = i32::from_le_bytes(*to.first_chunk()?);
            Some(i64::from(distance) + skipped as i64 + 5)
        }
        [0xeb, to, ..] => Some(i64::from(to.cast_signed()) + skipped as i64 + 2),
        _ => None,
    }
}

/// How far a function jumps that does nothing but to go on elsewhere.
#[cfg(target_arch = "aarch64")]
fn jump(code: &[u8]) -> Option<i64> {
    const MARK: u32 = 0xd503_245f;
    let word = |at: usize| Some(u32::from_le_bytes(*code.get(at..)?.first_chunk()?));
    let skipped = if word(0)? == MARK { 4 } else { 0 };
    let word = word(skipped)?;
    // `b`, with a signed distance of 26 bits in words.
    let is_jump = word >> 26 == 0b000101;
    is_jump.then(|| i64::from((word << 6).cast_signed() >> 6) * 4 + skipped as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_are_known_by_both_manglings() {
        assert!(is_raw_poll("tokio::runtime::task::raw::poll"));
        assert!(is_raw_poll("tokio::runtime::task::raw::poll::<app::run::{closure#0}, S>"));
        assert!(!is_raw_poll("tokio::runtime::task::raw::poll_other"));
        assert!(is_harness_poll("tokio::runtime::task::harness::Harness<T,S>::poll"));
        assert!(is_harness_poll("<tokio::runtime::task::harness::Harness<app::F, S>>::poll"));
        assert!(!is_harness_poll("tokio::runtime::task::harness::Harness<T,S>::poll_inner"));
        for runner in [
            "tokio::runtime::scheduler::multi_thread::worker::Context::run_task",
            "<tokio::runtime::scheduler::multi_thread::worker::Context>::run",
            "tokio::runtime::scheduler::multi_thread::worker::run::{{closure}}",
            "tokio::runtime::scheduler::current_thread::CoreGuard::block_on::{{closure}}",
            "<tokio::runtime::scheduler::current_thread::CoreGuard>::block_on::<app::main::{closure#0}>",
            "tokio::task::local::LocalSet::tick",
            "<tokio::runtime::blocking::pool::Inner>::run",
        ] {
            assert!(is_runner(runner), "{runner}");
        }
        // A task that wakes another one calls this.
        let wakes = "tokio::runtime::scheduler::multi_thread::worker::Handle::schedule_task";
        assert!(!is_runner(wakes));
        assert!(is_next_id("tokio::runtime::task::id::Id::next::NEXT_ID"));
        assert!(is_next_id("<tokio::runtime::task::id::Id>::next::NEXT_ID"));
        assert!(!is_next_id("tokio::runtime::thread_id::ThreadId::next::NEXT_ID"));
        let legacy = b"_ZN5tokio7runtime4task2id2Id4next7NEXT_ID17h0123456789abcdefE";
        let v0 = b"_RNvNvMNtNtNtCs1_5tokio7runtime4task2idNtB4_2Id4next7NEXT_ID";
        assert!(may_be_wanted(legacy) && may_be_wanted(v0));
        assert!(!may_be_wanted(b"_ZN5tokio7runtime9thread_id8ThreadId4next7NEXT_IDE"));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_function_that_only_jumps_is_known_by_its_code() {
        assert_eq!(jump(&[0xe9, 0xfb, 0xff, 0xff, 0xff]), Some(0));
        assert_eq!(jump(&[0xf3, 0x0f, 0x1e, 0xfa, 0xe9, 0x10, 0, 0, 0]), Some(0x19));
        assert_eq!(jump(&[0xeb, 0x02]), Some(4));
        assert_eq!(jump(&[0x55, 0x48, 0x89, 0xe5, 0x5d, 0xe9, 0x10, 0, 0, 0]), Some(0x1a));
        assert_eq!(jump(&[0x55, 0x41, 0x57]), None);
        assert_eq!(jump(&[0xe9]), None);
    }

    #[cfg(target_arch = "aarch64")]
    #[test]
    fn a_function_that_only_jumps_is_known_by_its_code() {
        assert_eq!(jump(&0x1400_0002_u32.to_le_bytes()), Some(8));
        assert_eq!(jump(&0x17ff_ffff_u32.to_le_bytes()), Some(-4));
        assert_eq!(jump(&0xd65f_03c0_u32.to_le_bytes()), None);
    }
}
