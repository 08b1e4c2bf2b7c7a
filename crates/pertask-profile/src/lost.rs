//! What a profile lacks. All of it is counted, and every encoder that has a place for the counts shows them.

use pertask_text::human;
use std::fmt;

/// What a profile lacks, or holds only in part.
///
/// In a healthy profile, all counts but the last are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Samples that were due and are not in the profile.
    pub samples_dropped: u64,
    /// Samples whose stack does not reach its root.
    pub stacks_incomplete: u64,
    /// Samples that lost their task, thread, scopes or labels, because the profile was full.
    pub samples_folded: u64,
    /// How often a location or a function became `(other)`, because there was no room for another one.
    pub locations_folded: u64,
    /// How often a name became `(other)`, because there was no room for another one.
    pub texts_folded: u64,
    /// Names that were too long, and lost a part.
    pub texts_cut: u64,
    /// Samples whose stack was too deep, and lost its outermost callers. They are among the incomplete ones.
    pub stacks_cut: u64,
    /// Threads that could not be sampled.
    pub threads_not_sampled: u64,
    /// CPU time of the process that is not in the profile. A little is usual: what each thread used after its last sample.
    pub unsampled_cpu_ns: u64,
}

/// One of the counts of a [`Lost`].
pub(super) struct Part<'a> {
    /// The name of the count in files.
    #[cfg_attr(not(feature = "pprof"), allow(dead_code, reason = "pprof alone has it"))]
    pub(super) key: &'static str,
    /// The thing that is counted, in the singular.
    noun: &'static str,
    /// What happened to it.
    fate: &'static str,
    /// The count itself.
    pub(super) count: &'a mut u64,
}

impl Lost {
    /// Returns whether nothing was lost.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the counts, each with its name and its words.
    pub(super) fn parts(&mut self) -> [Part<'_>; 9] {
        [
            ("samples_dropped", "sample", "dropped", &mut self.samples_dropped),
            ("stacks_incomplete", "stack", "incomplete", &mut self.stacks_incomplete),
            ("samples_folded", "sample", "folded", &mut self.samples_folded),
            ("locations_folded", "location", "folded", &mut self.locations_folded),
            ("texts_folded", "name", "folded", &mut self.texts_folded),
            ("texts_cut", "name", "cut", &mut self.texts_cut),
            ("stacks_cut", "stack", "cut", &mut self.stacks_cut),
            ("threads_not_sampled", "thread", "not sampled", &mut self.threads_not_sampled),
            ("unsampled_cpu_ns", "ns of CPU time", "not sampled", &mut self.unsampled_cpu_ns),
        ]
        .map(|(key, noun, fate, count)| Part { key, noun, fate, count })
    }
}

/// Shows the counts that are not zero: `12 samples dropped, 1 stack incomplete, 5.20 ms of CPU time not sampled`.
impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lost = *self;
        let unsampled_ns = std::mem::take(&mut lost.unsampled_cpu_ns);
        let parts = lost.parts();
        let parts = parts.iter().filter(|part| *part.count != 0);
        let mut words: Vec<_> = parts.map(ToString::to_string).collect();
        if unsampled_ns > 0 {
            words.push(format!("{} of CPU time not sampled", human::duration_ns(unsampled_ns)));
        }
        f.write_str(if words.is_empty() { "nothing lost" } else { "" })?;
        f.write_str(&words.join(", "))
    }
}

/// `12 samples dropped`.
impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { noun, fate, count, .. } = self;
        let plural = if **count == 1 { "" } else { "s" };
        write!(f, "{count} {noun}{plural} {fate}")
    }
}
