//! A function at an address, and the store of names.

use std::sync::Arc;

/// A function at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// The demangled name, without the hash of Rust's legacy mangling.
    pub function: Arc<str>,
    /// The linker's name.
    pub system_name: Arc<str>,
    /// The source file, if it is known.
    pub file: Option<Arc<str>>,
    /// The line in that file, if it is known.
    pub line: Option<u32>,
}

/// The store that keeps one copy of each name. The modules' files bound its size.
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
