//! What a signal must not change: results, registers, `errno`.

use crate::harness::{rounds, start, stop, torture};
use std::hint::black_box;
use std::thread;

/// Keeps many vector registers in use; the same each time.
fn vectors(seed: u64) -> u64 {
    let mut lanes: [f64; 16] = std::array::from_fn(|lane| 1.0 + (seed % 97) as f64 + lane as f64);
    for _ in 0..20_000 {
        for (number, lane) in lanes.iter_mut().enumerate() {
            *lane = (*lane * 1.000_000_1 + number as f64).sqrt() * 1.5;
        }
    }
    lanes.iter().fold(0, |bits, lane| bits.rotate_left(9) ^ lane.to_bits())
}

/// And general ones.
fn integers(seed: u64) -> u64 {
    let mut state = [seed, 1, 2, 3, 4, 5, 6, 7];
    for round in 0..100_000_u64 {
        for at in 0..8 {
            let next = state[(at + 3) % 8].wrapping_mul(0x9e37_79b9_7f4a_7c15);
            state[at] = state[at].rotate_left(7) ^ next.wrapping_add(round);
        }
    }
    state.into_iter().fold(0, u64::wrapping_add)
}

#[test]
fn results_are_what_they_were() {
    torture(|mechanism| {
        let expected: Vec<_> = (0..8).map(|seed| (vectors(seed), integers(seed))).collect();
        let Some(sampler) = start(mechanism) else { return };
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..rounds(10) {
                        for (seed, expected) in (0..).zip(&expected) {
                            assert_eq!((vectors(seed), integers(seed)), *expected);
                        }
                    }
                });
            }
        });
        stop(sampler);
    });
}

#[test]
fn errno_is_the_hosts() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        for number in 0..rounds(200_000) as i32 {
            let wanted = number % 120 + 1;
            // SAFETY: the thread's own word.
            unsafe { *libc::__errno_location() = wanted };
            for round in 0..30 {
                black_box(round);
            }
            // SAFETY: as above.
            assert_eq!(unsafe { *libc::__errno_location() }, wanted);
        }
        stop(sampler);
    });
}
