//! A function at an address, and its names, each kept once.

use std::sync::Arc;

/// A function at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// Its name for people: demangled, and without the hash of Rust's older names.
    pub function: Arc<str>,
    /// Its name as the linker knows it.
    pub system_name: Arc<str>,
    /// The source file, if it is known.
    pub file: Option<Arc<str>>,
    /// The line there, if it is known.
    pub line: Option<u32>,
}

/// The one copy of each name. Bounded by what the modules' files hold.
#[derive(Default)]
pub(crate) struct Names(std::collections::HashSet<Arc<str>>);

impl Names {
    pub(crate) fn of(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}
