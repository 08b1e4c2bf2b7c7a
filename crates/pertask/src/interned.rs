//! Values as small numbers. A signal handler can copy a number, and a table of values is bounded.

use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// All values of one kind that the process has used, by number and by content. No value is ever removed.
///
/// INVARIANT: numbers run from 1 to `limit`; `by_number` has each number that `by_content` has.
pub(crate) struct Interned<V> {
    // Lock-free: threads look values up while tasks run.
    by_content: papaya::HashMap<V, u32>,
    by_number: papaya::HashMap<u32, V>,
    /// The last number that was given away. Only a new value takes the lock.
    last: Mutex<u32>,
    limit: u32,
}

/// The number that stands for all values beyond the limit.
pub(crate) const OTHER: u32 = u32::MAX;

impl<V: Clone + Eq + Hash> Interned<V> {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            by_content: papaya::HashMap::new(),
            by_number: papaya::HashMap::new(),
            last: Mutex::new(0),
            limit,
        }
    }

    /// The number of a value, or [`OTHER`] for a new value beyond the limit.
    pub(crate) fn number_of(&self, value: &V) -> u32 {
        let known = || self.by_content.pin().get(value).copied();
        known().unwrap_or_else(|| {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            known().unwrap_or_else(|| self.add(value, &mut last))
        })
    }

    /// The value of a number, or `None` for [`OTHER`] and for numbers that were never given away.
    pub(crate) fn get(&self, number: u32) -> Option<V> {
        self.by_number.pin().get(&number).cloned()
    }

    /// Adds a value. The caller holds the lock.
    fn add(&self, value: &V, last: &mut u32) -> u32 {
        if *last >= self.limit {
            return OTHER;
        }
        *last += 1;
        // By number first: a thread that finds the number then finds its value.
        self.by_number.pin().insert(*last, value.clone());
        self.by_content.pin().insert(value.clone(), *last);
        *last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_a_number_that_leads_back() {
        let interned = Interned::new(10);
        let (a, b) = (interned.number_of(&"a"), interned.number_of(&"b"));
        assert_ne!(a, b);
        assert_eq!(interned.number_of(&"a"), a);
        assert_eq!((interned.get(a), interned.get(b)), (Some("a"), Some("b")));
        assert_eq!((interned.get(0), interned.get(OTHER)), (None, None));
    }

    #[test]
    fn what_finds_no_place_is_other_and_what_has_one_keeps_it() {
        let interned = Interned::new(100);
        let numbers: Vec<_> = (0..103).map(|value| interned.number_of(&value)).collect();
        assert_eq!(numbers[100..], [OTHER; 3]);
        assert_eq!(interned.number_of(&7), numbers[7]);
    }

    #[test]
    fn threads_that_meet_at_a_value_share_its_number() {
        let interned = Interned::new(10_000);
        let number_all = || (0..1_000).map(|value| interned.number_of(&value)).collect::<Vec<_>>();
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..3).map(|_| scope.spawn(number_all)).collect();
            let mine = number_all();
            others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), mine));
        });
        assert!(!interned.by_number.pin().contains_key(&OTHER));
    }
}
