//! Seeds: the numbers that a run follows from, which seeds are run, and the trace that a failing one leaves.

use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;

/// How many seeds are run if nobody says otherwise.
const SEEDS: u64 = 2000;

/// How many of the last steps are shown.
const SHOWN: usize = 40;

/// Which seeds are to be run: `PERTASK_MACHINE_SEED` names one, `PERTASK_MACHINE_SEEDS` says how many.
pub fn seeds() -> Range<u64> {
    let number = |name| {
        let value = std::env::var(name).ok()?;
        Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
    };
    match number("PERTASK_MACHINE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PERTASK_MACHINE_SEEDS").unwrap_or(SEEDS),
    }
}

/// Numbers that look random and follow from the seed (SplitMix64).
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of them, if there is any.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len())])
    }
}

/// What was done, and what came of it, step by step.
#[derive(Default)]
pub struct Trace(Vec<String>);

impl Trace {
    pub fn step(&mut self, step: String) {
        self.0.push(step);
    }

    /// Says what came of the last step.
    pub fn result(&mut self, result: &str) {
        if let Some(step) = self.0.last_mut() {
            step.push_str(" -> ");
            step.push_str(result);
        }
    }

    pub fn steps(&self) -> usize {
        self.0.len()
    }

    /// A number that two different traces do not share.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.iter().for_each(|step| hasher.write(step.as_bytes()));
        hasher.finish()
    }

    pub fn last_steps(&self) -> String {
        let first = self.0.len().saturating_sub(SHOWN);
        let steps = self.0.iter().enumerate().skip(first);
        steps.map(|(number, step)| format!("{number:5}  {step}\n")).collect()
    }
}
