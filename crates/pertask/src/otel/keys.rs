//! The keys of attributes, which records have as numbers: readers find their names in the process context.

use super::process;
use crate::tasks::label_set::Labels;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The key of a task's name.
pub(super) const NAME: u8 = 0;

/// The key of its spawn site.
pub(super) const SITE: u8 = 1;

/// The names of these two.
const OWN: [&str; 2] = ["pertask.task.name", "pertask.task.site"];

/// The most keys, and the most bytes of one.
const MOST: usize = 256 - OWN.len();
const MOST_BYTES: usize = 255;

/// The keys of labels, in the order in which they came.
///
/// INVARIANT: those up to `KNOWN` are set, differ, and never change.
static KEYS: [OnceLock<Box<str>>; MOST] = [const { OnceLock::new() }; MOST];
static KNOWN: AtomicUsize = AtomicUsize::new(0);
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);
static LEARNING: Mutex<()> = Mutex::new(());

/// How many keys of label sets found no place.
pub(super) fn left_out() -> u64 {
    // Relaxed: a figure.
    LEFT_OUT.load(Ordering::Relaxed)
}

/// How many keys of labels there are.
pub(super) fn known() -> usize {
    // Acquire: pairs with the Release in `add`, so that the keys up to there are set.
    KNOWN.load(Ordering::Acquire)
}

/// All names, each at its number's place.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    OWN.into_iter().chain(KEYS[..known()].iter().filter_map(|key| Some(&**key.get()?)))
}

/// A label's key as a number. Takes no lock.
pub(super) fn number_of(key: &str) -> Option<u8> {
    let at = KEYS[..known()].iter().position(|known| known.get().is_some_and(|it| **it == *key))?;
    u8::try_from(OWN.len() + at).ok()
}

/// Learns the keys of labels, and tells readers of those that are new.
pub(super) fn learn(labels: &Labels) {
    if labels.iter().any(|(key, _)| number_of(key).is_none()) && !process::is_anothers() {
        let _learning = LEARNING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut any = false;
        for (key, _) in labels.iter().filter(|(key, _)| number_of(key).is_none()) {
            any |= add(key);
        }
        if any {
            process::update(names());
        }
    }
}

fn add(key: &str) -> bool {
    // Relaxed: only whoever has the lock changes it.
    let at = KNOWN.load(Ordering::Relaxed);
    let place = KEYS.get(at).filter(|_| key.len() <= MOST_BYTES);
    let is_set = place.is_some_and(|place| place.set(key.into()).is_ok());
    match is_set {
        // Release: pairs with the Acquire in `known`.
        true => KNOWN.store(at + 1, Ordering::Release),
        // Relaxed: a figure.
        false => _ = LEFT_OUT.fetch_add(1, Ordering::Relaxed),
    }
    is_set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_number_for_good() {
        let labels = Labels::new([("a test's key", "1"), ("another", "2")]);
        learn(&labels);
        let number = number_of("a test's key").unwrap();
        learn(&labels);
        assert_eq!(number_of("a test's key"), Some(number));
        let names: Vec<_> = names().collect();
        assert_eq!(names[usize::from(number)], "a test's key");
        assert_eq!(names[..2], OWN);
        assert_eq!(names.iter().filter(|name| **name == "another").count(), 1);
    }

    #[test]
    fn a_key_that_is_too_long_is_left_out_and_counted() {
        let before = left_out();
        let long = "k".repeat(256);
        learn(&Labels::new([(&*long, "1")]));
        assert_eq!((number_of(&long), left_out() > before), (None, true));
    }
}
