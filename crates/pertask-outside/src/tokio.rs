//! Where tokio is in a process: the functions that poll its tasks, and its count of tasks, by the symbols of the process's files.

use pertask_symbols::{MappedElf, Memory, Module, Symbol};
use std::collections::BTreeMap;
use std::ops::Range;

/// Where tokio is in a process.
#[derive(Debug, Default)]
pub(crate) struct Tokio {
    /// The functions that poll tasks, by their first addresses.
    polls: BTreeMap<u64, Poll>,
    /// The numbers that the next tasks will have: where they are, and the module's path. Each copy of tokio in the process has one.
    next_ids: Vec<(Range<u64>, String)>,
}

/// A function that polls tasks.
#[derive(Debug, Default)]
struct Poll {
    end: u64,
    /// The functions in tasks' tables that are this one, or that go on here.
    entries: Vec<u64>,
}

/// The function that a task's table has.
const RAW_POLL: &str = "tokio::runtime::task::raw::poll";
/// Where it may go on.
const HARNESS: &str = "tokio::runtime::task::harness::Harness<";
/// The number of the next task.
const NEXT_ID: [&str; 2] = ["tokio::runtime::task::id::Id", "::next::NEXT_ID"];

/// The most bytes of a jump, with what may stand before it.
const JUMP: u64 = 16;

impl Tokio {
    /// Adds what an image has of tokio.
    pub(crate) fn add(&mut self, image: &MappedElf<'_>, module: &Module, memory: &Memory) {
        let symbols = image.symbols(may_be_wanted);
        let of = |is_wanted: fn(&str) -> bool| {
            symbols.iter().filter(move |symbol| is_wanted(&symbol.name))
        };
        for Symbol { addresses, .. } in of(|name| is_raw_poll(name) || is_harness_poll(name)) {
            let poll = self.polls.entry(addresses.start).or_default();
            poll.end = poll.end.max(addresses.end);
        }
        for Symbol { addresses: Range { start, .. }, .. } in of(is_raw_poll) {
            let code = memory.read(*start..start.saturating_add(JUMP)).unwrap_or_default();
            let goes_on = jump(&code).map(|distance| start.wrapping_add_signed(distance));
            for code in [Some(*start), goes_on].into_iter().flatten() {
                if let Some(poll) = self.polls.get_mut(&code) {
                    poll.entries.push(*start);
                }
            }
        }
        for Symbol { addresses, .. } in of(is_next_id) {
            self.next_ids.push((addresses.clone(), module.path.clone()));
        }
    }

    /// Removes what a module had that is no longer mapped.
    pub(crate) fn remove(&mut self, gone: &Module) {
        self.next_ids.retain(|(_, path)| *path != gone.path);
        let is_its =
            |address: &u64| gone.ranges.iter().any(|range| range.addresses.contains(address));
        self.polls.retain(|start, _| !is_its(start));
    }

    /// Where the number of the next task is, or `None` if there is no tokio, or more than one: each of those counts for itself.
    pub(crate) fn next_id(&self) -> Option<u64> {
        match &self.next_ids[..] {
            [(addresses, _)] => Some(addresses.start),
            _ => None,
        }
    }

    /// How many copies of tokio there are.
    pub(crate) fn copies(&self) -> usize {
        self.next_ids.len()
    }

    /// The functions that the table of a task has which is polled at this address. There are none if no task is.
    pub(crate) fn entries(&self, address: u64) -> &[u64] {
        let before = self.polls.range(..=address).next_back();
        match before {
            Some((_, poll)) if address < poll.end => &poll.entries,
            _ => &[],
        }
    }
}

/// Whether a linker's name may be one of those, whatever its mangling.
fn may_be_wanted(name: &[u8]) -> bool {
    let has = |part: &[u8]| name.windows(part.len()).any(|window| window == part);
    // Nearly all names lack this.
    has(b"5tokio7runtime4task")
        && (has(b"4task3raw4poll")
            || has(b"4task7harness") && has(b"4poll")
            || has(b"4task2id") && has(b"7NEXT_ID"))
}

fn is_raw_poll(name: &str) -> bool {
    name.strip_prefix(RAW_POLL).is_some_and(|rest| rest.is_empty() || rest.starts_with("::<"))
}

/// `tokio::runtime::task::harness::Harness<T,S>::poll`, or with the v0 mangling `<tokio::runtime::task::harness::Harness<..>>::poll`.
fn is_harness_poll(name: &str) -> bool {
    name.strip_prefix('<').unwrap_or(name).starts_with(HARNESS) && name.ends_with(">::poll")
}

fn is_next_id(name: &str) -> bool {
    let [id, next] = NEXT_ID;
    name.strip_prefix('<').unwrap_or(name).starts_with(id) && name.ends_with(next)
}

/// How far a function jumps that does nothing but to go on elsewhere.
#[cfg(target_arch = "x86_64")]
fn jump(code: &[u8]) -> Option<i64> {
    const MARK: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
    let skipped = if code.starts_with(MARK) { MARK.len() } else { 0 };
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
