//! Allocations that are sampled: by the byte, as Go's and jemalloc's heap profilers do. On each worker one byte in so many is chosen, at
//! distances that have no pattern, and the allocation that has it is a sample. So a large one is seen nearly always, and a small one as
//! often as all of its kind together have bytes.
//!
//! This file knows when an allocation is a sample. What is then written down is the sampler's matter. All of it runs within the
//! allocator, so it allocates nothing and takes no lock.

use super::Memory;
use super::meter::Meter;
use crate::os::clock::Choice;
use crate::sync::{AtomicU32, Ordering, fence, global};
use std::sync::OnceLock;

/// The bytes between two samples, on average.
pub(crate) const INTERVAL_BYTES: u64 = 512 << 10;

/// A byte that no meter reaches.
pub(super) const NEVER: u64 = u64::MAX;

/// Takes in an allocation of so many bytes, which the calling thread has just made.
type Take = fn(bytes: u64);

static TAKE: OnceLock<Take> = OnceLock::new();

global! {
    /// The number of sessions that sample allocations.
    static WANTED: AtomicU32 = AtomicU32::new(0);
}

/// While a value of this type lives, allocations of workers are sampled.
#[derive(Debug)]
pub(crate) struct Sampled(());

impl Sampled {
    /// The first call decides who takes in the samples. Somebody counts memory as long as this lives.
    pub(crate) fn begin(take: Take) -> Self {
        TAKE.get_or_init(|| take);
        // Relaxed: the fence orders it.
        WANTED.fetch_add(1, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `reached`. If this fence comes first, a worker that has chosen no byte finds that one is wanted.
        // If the worker's comes first, its choice is undone here.
        fence(Ordering::SeqCst);
        Memory::for_each_meter(Meter::choose_anew);
        Self(())
    }
}

impl Drop for Sampled {
    fn drop(&mut self) {
        // Relaxed: an allocation at this moment may be sampled all the same. The session that wanted it is over.
        WANTED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An allocation has reached the meter's chosen byte.
#[cold]
#[inline(never)]
pub(super) fn reached(meter: &Meter, bytes: usize) {
    let chosen = meter.chosen();
    // Relaxed: see `Sampled`.
    let is_wanted = WANTED.load(Ordering::Relaxed) != 0;
    let so_far = meter.read().allocated_bytes;
    let next = if is_wanted { so_far.saturating_add(distance(so_far)) } else { NEVER };
    meter.choose(chosen, next);
    if !is_wanted {
        // SeqCst: pairs with the fence in `begin`.
        fence(Ordering::SeqCst);
        // Relaxed: the fence orders it.
        if WANTED.load(Ordering::Relaxed) != 0 {
            meter.choose_anew();
        }
    }
    // The first byte was not chosen by chance.
    if is_wanted
        && chosen != 0
        && let Some(take) = TAKE.get()
    {
        take(bytes as u64);
    }
}

/// A distance to the next chosen byte, from an exponential distribution: where the last one was says nothing of the next.
pub(super) fn distance(so_far: u64) -> u64 {
    let mut x = Choice::of_process().wall_ns() ^ so_far.rotate_left(32);
    // Steele et al., Fast splittable pseudorandom number generators, 2014: the mixing of SplitMix64.
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    let above_zero = ((x >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    1 + (-above_zero.ln() * INTERVAL_BYTES as f64) as u64
}

/// How many allocations, and how many bytes, a sampled allocation of so many bytes stands for: it was to be seen with the chance that one
/// of its bytes is chosen.
pub(crate) fn stands_for(bytes: u64) -> (f64, f64) {
    let missed = (-(bytes as f64) / INTERVAL_BYTES as f64).exp();
    let count = 1.0 / (1.0 - missed).max(f64::MIN_POSITIVE);
    (count, count * bytes as f64)
}
