//! The names of scopes, as small numbers.

use crate::interned::{Interned, OTHER};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

/// How many different names of scopes a process can have. What comes later is `(other)`.
const MAX_NAMES: u32 = 16_384;

/// The name of a scope, interned when it is first used.
#[derive(Debug)]
pub struct ScopeName {
    name: &'static str,
    /// 0: not asked for yet.
    number: AtomicU32,
}

static NAMES: LazyLock<Interned<Arc<str>>> = LazyLock::new(|| Interned::new(MAX_NAMES));

impl ScopeName {
    /// A name, for a `static`. [`scope!`](crate::scope) makes one.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, number: AtomicU32::new(0) }
    }

    #[inline]
    pub(super) fn number(&self) -> u32 {
        // Relaxed: the number says all; who reads 0 asks again.
        match self.number.load(Ordering::Relaxed) {
            0 => self.intern(),
            number => number,
        }
    }

    #[cold]
    fn intern(&self) -> u32 {
        let number = number_of(self.name);
        self.number.store(number, Ordering::Relaxed);
        number
    }
}

/// The number of a name that is known only when the program runs.
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
