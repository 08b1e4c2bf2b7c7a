//! One value for each CPU, by number (the kernel's `alloc_percpu`): made on first use, and never moved.

use crate::primitive::OnceLock;

/// The length of the first level. Each further level is twice as long as the one before.
const FIRST: usize = if cfg!(pertask_loom) { 4 } else { 8 };

/// Enough for more numbers than there can be threads.
const LEVELS: usize = if cfg!(pertask_loom) { 2 } else { 24 };

/// One `T` for each number that has been asked for.
pub(crate) struct PerCpu<T> {
    levels: [OnceLock<Box<[T]>>; LEVELS],
}

impl<T: Default> PerCpu<T> {
    pub(crate) fn new() -> Self {
        Self { levels: std::array::from_fn(|_| OnceLock::new()) }
    }

    /// The value of a number. Makes it if it does not exist yet.
    #[inline]
    pub(crate) fn of(&self, number: usize) -> &T {
        let (level, place) = locate(number);
        let level_len = FIRST << level;
        let make = || (0..level_len).map(|_| T::default()).collect();
        &self.levels[level].get_or_init(make)[place]
    }

    /// The value of a number, if it has been made.
    pub(crate) fn get(&self, number: usize) -> Option<&T> {
        let (level, place) = locate(number);
        self.levels.get(level)?.get()?.get(place)
    }

    /// All values made so far. Some of them nobody has asked for yet.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.levels.iter().filter_map(OnceLock::get).flatten()
    }
}

/// The level that holds a number, and its index in that level.
#[inline]
fn locate(number: usize) -> (usize, usize) {
    let level = (number / FIRST + 1).ilog2() as usize;
    (level, number - FIRST * ((1 << level) - 1))
}

#[cfg(all(test, not(any(pertask_loom, pertask_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_a_place_of_its_own() {
        let mut expected = (0, 0);
        for number in 0..10_000 {
            assert_eq!(locate(number), expected, "{number}");
            expected.1 += 1;
            if expected.1 == FIRST << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
    }

    #[test]
    fn what_was_made_stays() {
        let numbers = PerCpu::<std::sync::atomic::AtomicUsize>::new();
        (0..100).for_each(|n| numbers.of(n).store(n, std::sync::atomic::Ordering::Relaxed));
        assert!(
            (0..100)
                .all(|n| numbers.get(n).unwrap().load(std::sync::atomic::Ordering::Relaxed) == n)
        );
        assert!(numbers.get(1 << 20).is_none());
    }
}
