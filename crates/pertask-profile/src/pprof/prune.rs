//! Frames that a file asks to leave out: its `drop_frames` and `keep_frames`, as `go tool pprof` honours them.
//!
//! A frame whose function matches the first and not the second goes, and with it all that it called. Frames at the root stay
//! until there is one that does not match, so that no stack loses everything.

use regex_lite::{Regex, RegexBuilder};

use super::super::{Function, Location, Sample};

/// Bytes of a compiled pattern for each of its characters, and for every pattern. What needs more repeats itself without end.
const BYTES_PER_CHAR: usize = 64;
const BYTES: usize = 8 << 10;

/// The most that a compiled pattern's size times the length of all names may be. Matching takes seconds for more.
const MOST_WORK: u64 = 1 << 37;

/// Which functions are left out.
pub(super) struct Pattern {
    drop: Regex,
    keep: Option<Regex>,
}

/// What is left out of a location.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pruned {
    Nothing,
    /// The functions that its outermost ones called.
    Callees,
    Everything,
}

impl Pattern {
    /// Returns the pattern, or why it cannot be applied to the names of these functions.
    pub(super) fn of(drop: &str, keep: &str, functions: &[Function]) -> Result<Self, &'static str> {
        let names = functions.iter().map(|function| function.name.len() as u64);
        let names = names.fold(0, u64::saturating_add);
        let compiled = |pattern: &str| {
            let size = pattern.len().saturating_mul(BYTES_PER_CHAR).saturating_add(BYTES);
            if (size as u64).saturating_mul(names) > MOST_WORK {
                return Err("its names are too long for so long a pattern");
            }
            let regex = RegexBuilder::new(&format!("^({pattern})$")).size_limit(size).build();
            regex.map_err(|_| "its pattern cannot be understood")
        };
        let keep = if keep.is_empty() { None } else { Some(compiled(keep)?) };
        Ok(Self { drop: compiled(drop)?, keep })
    }

    /// Leaves the frames out, and returns how many stacks became shorter.
    pub(super) fn prune(
        &self,
        locations: &mut [Location],
        functions: &[Function],
        samples: [&mut [Sample]; 2],
    ) -> usize {
        let matches: Vec<_> = functions.iter().map(|function| self.matches(function)).collect();
        let pruned: Vec<_> = locations.iter_mut().map(|it| shorten(it, &matches)).collect();
        let samples = samples.into_iter().flatten();
        samples.filter_map(|sample| shorten_stack(sample, &pruned)).count()
    }

    fn matches(&self, function: &Function) -> bool {
        let name = without_arguments(&function.name);
        !function.name.is_empty()
            && self.drop.is_match(name)
            && self.keep.as_ref().is_none_or(|keep| !keep.is_match(name))
    }
}

/// Removes the outermost function that matches, and those that it called.
fn shorten(location: &mut Location, matches: &[bool]) -> Pruned {
    let is_match = |function: u32| matches.get(function as usize).copied().unwrap_or(false);
    let Some(at) = location.lines.iter().rposition(|line| is_match(line.function.0)) else {
        return Pruned::Nothing;
    };
    if at + 1 == location.lines.len() {
        return Pruned::Everything;
    }
    location.lines.drain(..=at);
    Pruned::Callees
}

fn shorten_stack(sample: &mut Sample, pruned: &[Pruned]) -> Option<()> {
    let of = |at: usize| pruned[sample.stack[at].0 as usize];
    let root_first = || (0..sample.stack.len()).rev();
    let user = root_first().find(|at| of(*at) == Pruned::Nothing)?;
    let at = (0..user).rev().find(|at| of(*at) != Pruned::Nothing)?;
    let gone = if of(at) == Pruned::Everything { at + 1 } else { at };
    sample.stack.drain(..gone);
    Some(())
}

/// Returns a function's name without its arguments.
fn without_arguments(name: &str) -> &str {
    // Parentheses that are a part of the name.
    const NAMES: [&str; 2] = ["(anonymous namespace)", "operator()"];
    // The names of functions on PowerPC begin so.
    let name = name.strip_prefix('.').unwrap_or(name);
    let mut at = 0;
    while let Some(next) = name[at..].find(['(', 'o']) {
        at += next;
        match NAMES.iter().find(|part| name[at..].starts_with(**part)) {
            Some(part) => at += part.len(),
            None if name[at..].starts_with('(') => return &name[..at],
            None => at += 1,
        }
    }
    name
}
