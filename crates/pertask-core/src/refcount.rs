//! A reference count in the manner of the kernel's `refcount_t`: it saturates instead of overflowing, and never
//! rises from zero.

use crate::primitive::{AtomicU32, Ordering};

/// Counts owners of an object.
///
/// It means nothing but that: who else has a claim on the object says so in a field of its own.
///
/// INVARIANT: once zero, zero for ever. Once [`SATURATED`](Self::SATURATED), saturated for ever: the object is leaked
/// rather than freed under somebody's feet.
#[derive(Debug)]
pub(crate) struct Refcount(AtomicU32);

impl Refcount {
    /// From here on the count no longer moves.
    pub(crate) const SATURATED: u32 = 0xC000_0000;

    /// A count of `owners`.
    #[must_use]
    pub(crate) fn new(owners: u32) -> Self {
        Self(AtomicU32::new(owners))
    }

    /// The count at this moment; another thread may have changed it since.
    #[must_use]
    pub(crate) fn read(&self) -> u32 {
        // Relaxed: a figure to look at. Who acts on it must use one of the operations below.
        self.0.load(Ordering::Relaxed)
    }

    /// Takes a reference, unless there is none left to take it from.
    ///
    /// Acquire and Release on success, nothing on failure: pairs with itself, [`dec_and_test`](Self::dec_and_test)
    /// and `set_one`.
    #[must_use]
    pub(crate) fn inc_not_zero(&self) -> bool {
        self.update(Ordering::AcqRel, |count| (count != 0).then(|| saturating_inc(count))).is_ok()
    }

    /// Whether there is one owner. Acquire if so: pairs with [`dec_and_test`](Self::dec_and_test), so that a lone owner sees
    /// what all the others did.
    #[must_use]
    pub(crate) fn is_one(&self) -> bool {
        self.0.load(Ordering::Acquire) == 1
    }

    /// Drops a reference. True for the one caller who dropped the last.
    ///
    /// Release: what was done under the reference comes before the end of the object. Acquire for the last one:
    /// it sees what all the others did. A count that is already zero is a fault of the caller's; it saturates, and
    /// nothing is freed twice.
    #[must_use]
    pub(crate) fn dec_and_test(&self) -> bool {
        let dec = |count| match count {
            0 => Some(Self::SATURATED),
            Self::SATURATED.. => None,
            _ => Some(count - 1),
        };
        let before = self.update(Ordering::AcqRel, dec);
        // The models run optimised.
        if cfg!(any(debug_assertions, pertask_loom)) {
            assert_ne!(before, Ok(0), "a reference was dropped that nobody held");
        }
        before == Ok(1)
    }

    /// Drops a reference unless it is the last. False: nothing was changed.
    ///
    /// Release, as in [`dec_and_test`](Self::dec_and_test).
    #[must_use]
    pub(crate) fn dec_not_one(&self) -> bool {
        let dec = |count| match count {
            0 | 1 => None,
            Self::SATURATED.. => Some(count),
            _ => Some(count - 1),
        };
        self.update(Ordering::AcqRel, dec).is_ok()
    }

    /// Gives a count that nobody owns its first owner: for a counter that is not tied to the life of memory, and only
    /// under the lock that all who call this share.
    ///
    /// Release: what was set up before is visible to whoever takes a reference: pairs with `inc_not_zero`.
    pub(crate) fn set_one(&self) {
        self.0.store(1, Ordering::Release);
    }

    fn update(&self, success: Ordering, next: impl FnMut(u32) -> Option<u32>) -> Result<u32, u32> {
        // Relaxed on failure: the value is only tried again or reported.
        self.0.fetch_update(success, Ordering::Relaxed, next)
    }
}

fn saturating_inc(count: u32) -> u32 {
    if count >= Refcount::SATURATED { count } else { count + 1 }
}

#[cfg(all(test, not(any(pertask_loom, pertask_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn zero_never_revives() {
        let count = Refcount::new(1);
        assert!(count.dec_and_test());
        assert!(!count.inc_not_zero());
        assert_eq!(count.read(), 0);
    }

    #[test]
    fn only_the_last_drop_says_so() {
        let count = Refcount::new(1);
        assert!(count.inc_not_zero());
        assert!(!count.dec_and_test());
        assert!(count.dec_and_test());
    }

    #[test]
    fn saturates_and_stays() {
        let count = Refcount::new(Refcount::SATURATED - 1);
        assert!(count.inc_not_zero());
        assert_eq!(count.read(), Refcount::SATURATED);
        assert!(count.inc_not_zero());
        assert!(!count.dec_and_test());
        assert_eq!(count.read(), Refcount::SATURATED);
    }

    #[test]
    fn dec_not_one_leaves_the_last() {
        let count = Refcount::new(2);
        assert!(count.dec_not_one());
        assert!(!count.dec_not_one());
        assert_eq!(count.read(), 1);
    }
}
