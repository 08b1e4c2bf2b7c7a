//! A pointer that readers follow in a section while other threads replace the value behind it.

use super::{enter, synchronize};
use crate::error::Error;
use crate::primitive::{AtomicPtr, Ordering};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

/// A value that hooks read while other threads replace it.
///
/// A PMU uses it for per-CPU state that code outside the hooks also writes.
///
/// Readers never wait; [`replace`](Self::replace) waits for the readers that may hold the old value.
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
    /// INVARIANT: null, or a box that the cell owns. The box is freed only after it was taken out of the cell and every section
    /// that began before that has ended.
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
        // Acquire: pairs with the Release in `replace`, so that we see the box's contents.
        let value = NonNull::new(self.at.load(Ordering::Acquire));
        // SAFETY: the box was in the cell during this section, so it is not freed before the section ends.
        f(value.map(|value| unsafe { value.as_ref() }))
    }

    /// Replaces the value, and returns the old one once no reader can hold it any more.
    ///
    /// # Errors
    /// [`Error::InsideHook`] when called in a section; [`Error::BarrierRefused`] when the kernel refuses the barrier. In both
    /// cases the new value is in place, and the old one is never freed.
    pub fn replace(&self, new: Option<Box<T>>) -> Result<Option<Box<T>>, Error> {
        let new = new.map_or(ptr::null_mut(), Box::into_raw);
        // Release: pairs with the Acquire in `with`. Acquire: pairs with the Release of the `replace` that stored the old
        // value.
        let Some(old) = NonNull::new(self.at.swap(new, Ordering::AcqRel)) else { return Ok(None) };
        synchronize()?;
        // SAFETY: the pointer came from a box, and we alone took it out of the cell; every section that could hold it has
        // ended.
        Ok(Some(unsafe { Box::from_raw(old.as_ptr()) }))
    }
}

impl<T> Drop for RcuCell<T> {
    fn drop(&mut self) {
        // Acquire: pairs with the Release in `replace`.
        let value = self.at.swap(ptr::null_mut(), Ordering::Acquire);
        if !value.is_null() {
            // SAFETY: the cell is being dropped and readers borrow the cell, so nobody holds the box.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}
