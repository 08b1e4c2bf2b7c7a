//! What a profile does not hold, or not wholly: all of it is counted, and shown by every encoder that has a place for it.

use std::fmt;

/// What a profile does not hold, or not wholly. All zero in a healthy one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Samples that were due and are not in the profile.
    pub samples_dropped: u64,
    /// Samples whose stack does not go to its root.
    pub stacks_incomplete: u64,
    /// Samples that are in the profile without some of what was known of them: it was full.
    pub samples_folded: u64,
    /// Times that a location or a function was given as `(other)`: there was no room for one more.
    pub locations_folded: u64,
    /// Times that a name was given as `(other)`: there was no room for one more.
    pub texts_folded: u64,
}

impl Lost {
    /// Whether nothing was lost.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Each count: by its name in files, in words, and its place.
    pub(super) fn parts(&mut self) -> [(&'static str, &'static str, &mut u64); 5] {
        [
            ("samples_dropped", "samples dropped", &mut self.samples_dropped),
            ("stacks_incomplete", "stacks incomplete", &mut self.stacks_incomplete),
            ("samples_folded", "samples folded", &mut self.samples_folded),
            ("locations_folded", "locations folded", &mut self.locations_folded),
            ("texts_folded", "names folded", &mut self.texts_folded),
        ]
    }
}

/// In words, what is not zero: `12 samples dropped, 3 stacks incomplete`.
impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lost = *self;
        let parts = lost.parts();
        let parts = parts.iter().filter(|(.., count)| **count != 0);
        let words: Vec<_> = parts.map(|(_, words, count)| format!("{count} {words}")).collect();
        f.write_str(if words.is_empty() { "nothing lost" } else { "" })?;
        f.write_str(&words.join(", "))
    }
}
