//! The names of scopes, as small numbers.

use crate::interned::{Interned, OTHER};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

/// The number of different names of scopes that a process can have. Later names are `(other)`.
const MAX_NAMES: u32 = 16_384;

/// The name of a scope, which is interned when it is first used.
#[derive(Debug)]
pub struct ScopeName {
    name: &'static str,
    /// The name's number, or 0 before its first use.
    number: AtomicU32,
}

static NAMES: LazyLock<Interned<Arc<str>>> = LazyLock::new(|| Interned::new(MAX_NAMES));

impl ScopeName {
    /// Makes a name, for a `static`.
    ///
    /// [`scope!`](crate::scope) does this for its caller.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, number: AtomicU32::new(0) }
    }

    #[inline]
    pub(super) fn number(&self) -> u32 {
        // Relaxed: the table of names has its own orderings, and a thread that reads 0 interns the name again.
        match self.number.load(Ordering::Relaxed) {
            0 => self.intern(),
            number => number,
        }
    }

    #[cold]
    fn intern(&self) -> u32 {
        let number = number_of(self.name);
        // Relaxed: see `number`.
        self.number.store(number, Ordering::Relaxed);
        number
    }
}

/// The number of a name that is known only at run time.
pub(crate) fn number_of(name: &str) -> u32 {
    NAMES.number_of(&Arc::from(name))
}

/// The name of a number.
pub(crate) fn name_of(number: u32) -> Arc<str> {
    match number {
        OTHER => Arc::from("(other)"),
        number => NAMES.get(number).unwrap_or_else(|| Arc::from("(unknown)")),
    }
}
