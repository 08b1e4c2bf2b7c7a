//! A reference count in the manner of the kernel's `refcount_t`: it saturates instead of overflowing, and never
//! rises from zero.

use crate::primitive::{AtomicU32, Ordering};

/// Counts the owners of an object.
///
/// The count means nothing else: any other claim on the object has a field of its own.
///
/// INVARIANT: once the count is zero, it stays zero. Once it is [`SATURATED`](Self::SATURATED), it stays saturated: the object
/// is leaked, so that it cannot be freed while somebody uses it.
#[derive(Debug)]
pub(crate) struct Refcount(AtomicU32);

impl Refcount {
    /// From this value on, the count no longer changes.
    pub(crate) const SATURATED: u32 = 0xC000_0000;

    /// A count of `owners`.
    #[must_use]
    pub(crate) fn new(owners: u32) -> Self {
        Self(AtomicU32::new(owners))
    }

    /// The count at this moment. Another thread may have changed it since.
    #[must_use]
    pub(crate) fn read(&self) -> u32 {
        // Relaxed: for display only. Code that acts on the count must use one of the operations below.
        self.0.load(Ordering::Relaxed)
    }

    /// Takes a reference, unless the count is zero.
    ///
    /// Acquire and Release on success, nothing on failure: pairs with itself, [`dec_and_test`](Self::dec_and_test) and
    /// `set_one`.
    #[must_use]
    pub(crate) fn inc_not_zero(&self) -> bool {
        self.update(Ordering::AcqRel, |count| (count != 0).then(|| saturating_inc(count))).is_ok()
    }

    /// Whether there is exactly one owner. Acquire if so: pairs with [`dec_and_test`](Self::dec_and_test), so that the last
    /// owner sees everything that the other owners did.
    #[must_use]
    pub(crate) fn is_one(&self) -> bool {
        self.0.load(Ordering::Acquire) == 1
    }

    /// Drops a reference. Returns true to the one caller that dropped the last.
    ///
    /// Release: everything done under the reference comes before the end of the object. Acquire for the last owner: it sees
    /// everything that the other owners did. Dropping a reference of a zero count is a bug in the caller; the count then
    /// saturates, so nothing is freed twice.
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
            assert_ne!(before, Ok(0), "dropped a reference that nobody held");
        }
        before == Ok(1)
    }

    /// Drops a reference unless it is the last. Returns false if it changed nothing.
    ///
    /// Release: everything done under the reference comes before the end of the object.
    #[must_use]
    pub(crate) fn dec_not_one(&self) -> bool {
        let dec = |count| match count {
            0 | 1 => None,
            Self::SATURATED.. => Some(count),
            _ => Some(count - 1),
        };
        self.update(Ordering::AcqRel, dec).is_ok()
    }

    /// Gives a count of zero its first owner. Only for counters that do not govern the lifetime of memory, and only under a
    /// lock that all callers share.
    ///
    /// Release: pairs with the Acquire in `inc_not_zero`. A thread that takes a reference sees what was set up before this
    /// call.
    pub(crate) fn set_one(&self) {
        self.0.store(1, Ordering::Release);
    }

    fn update(&self, success: Ordering, next: impl FnMut(u32) -> Option<u32>) -> Result<u32, u32> {
        // Relaxed on failure: the value is only retried or reported.
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
