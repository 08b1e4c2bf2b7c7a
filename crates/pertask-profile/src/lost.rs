//! What a profile does not hold, or not wholly: all of it is counted, and shown by every encoder that has a place for it.

use std::fmt;
use std::time::Duration;

/// What a profile does not hold, or not wholly. All but the last is zero in a healthy one.
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
    /// Threads that could not be sampled.
    pub threads_not_sampled: u64,
    /// CPU time of the process that is not in the profile. A little is usual: what came after each thread's last sample.
    pub unsampled_cpu_ns: u64,
}

impl Lost {
    /// Whether nothing was lost.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Each count: by its name in files, in words, and its place.
    pub(super) fn parts(&mut self) -> [(&'static str, &'static str, &mut u64); 7] {
        [
            ("samples_dropped", "samples dropped", &mut self.samples_dropped),
            ("stacks_incomplete", "stacks incomplete", &mut self.stacks_incomplete),
            ("samples_folded", "samples folded", &mut self.samples_folded),
            ("locations_folded", "locations folded", &mut self.locations_folded),
            ("texts_folded", "names folded", &mut self.texts_folded),
            ("threads_not_sampled", "threads not sampled", &mut self.threads_not_sampled),
            ("unsampled_cpu_ns", "ns of CPU time not in it", &mut self.unsampled_cpu_ns),
        ]
    }
}

/// In words, what is not zero: `12 samples dropped, 3 stacks incomplete, 5.2ms of CPU time not in it`.
impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lost = *self;
        let unsampled_ns = std::mem::take(&mut lost.unsampled_cpu_ns);
        let parts = lost.parts();
        let parts = parts.iter().filter(|(.., count)| **count != 0);
        let mut words: Vec<_> = parts.map(|(_, words, count)| format!("{count} {words}")).collect();
        if unsampled_ns > 0 {
            words.push(format!("{:.1?} of CPU time not in it", Duration::from_nanos(unsampled_ns)));
        }
        f.write_str(if words.is_empty() { "nothing lost" } else { "" })?;
        f.write_str(&words.join(", "))
    }
}
