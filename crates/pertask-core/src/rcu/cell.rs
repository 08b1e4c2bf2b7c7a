//! A place that readers in sections look into, and others replace.

use super::{enter, synchronize};
use crate::error::Error;
use crate::primitive::{AtomicPtr, Ordering};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

/// A value that hooks read while others replace it: what a PMU keeps for a CPU, and does not write from hooks alone.
///
/// Readers never wait; [`replace`](Self::replace) waits for those that may hold the old value.
///
/// ```
/// use pertask_core::rcu::RcuCell;
///
/// let cell = RcuCell::default();
/// cell.replace(Some(Box::new(7)))?;
/// assert_eq!(cell.with(|value| value.copied()), Some(7));
/// assert_eq!(cell.replace(None)?, Some(Box::new(7)));
/// # Ok::<(), pertask_core::Error>(())
/// ```
#[derive(Debug)]
pub struct RcuCell<T> {
    /// INVARIANT: null, or a box that belongs to the cell: freed only after it was taken out of here and every section
    /// that began before has ended.
    at: AtomicPtr<T>,
    owns: PhantomData<Box<T>>,
}

impl<T> Default for RcuCell<T> {
    fn default() -> Self {
        Self { at: AtomicPtr::new(ptr::null_mut()), owns: PhantomData }
    }
}

impl<T: Send + Sync> RcuCell<T> {
    /// Calls `f` with the value, in a section.
    ///
    /// `f` must not wait for another thread.
    #[inline(always)]
    pub fn with<R>(&self, f: impl FnOnce(Option<&T>) -> R) -> R {
        let _section = enter();
        // Acquire: pairs with the Release in `replace`, for what the box holds.
        let value = NonNull::new(self.at.load(Ordering::Acquire));
        // SAFETY: it was in the cell inside this section, so it is not freed before the section's end.
        f(value.map(|value| unsafe { value.as_ref() }))
    }

    /// Puts another value in, and returns the old one when nobody looks at it any more.
    ///
    /// # Errors
    /// [`Error::InsideHook`], [`Error::BarrierRefused`]: then the new value is in, and the old one is never freed.
    pub fn replace(&self, new: Option<Box<T>>) -> Result<Option<Box<T>>, Error> {
        let new = new.map_or(ptr::null_mut(), Box::into_raw);
        // Release: pairs with the Acquire in `with`. Acquire: pairs with the Release of whoever put the old value in.
        let Some(old) = NonNull::new(self.at.swap(new, Ordering::AcqRel)) else { return Ok(None) };
        synchronize()?;
        // SAFETY: a box, taken out by us alone; every section that could hold it has ended.
        Ok(Some(unsafe { Box::from_raw(old.as_ptr()) }))
    }
}

impl<T> Drop for RcuCell<T> {
    fn drop(&mut self) {
        // Acquire: pairs with the Release in `replace`.
        let value = self.at.swap(ptr::null_mut(), Ordering::Acquire);
        if !value.is_null() {
            // SAFETY: the cell is dropped, so nobody borrows it, and sections borrow it.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}
