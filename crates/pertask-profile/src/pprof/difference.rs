//! Files that are the difference of two profiles: some of their numbers are negative.
//!
//! `go tool pprof -proto` writes them. With `-diff_base` the file has both profiles, of which the samples before are negative and
//! have a label. With `-base` equal samples have become one, and only what has changed is left.

use std::io::Read;
use std::time::UNIX_EPOCH;

use super::super::{Comparison, Lost, Profile, Sample};
use super::read::{self, Signed};
use super::{ReadError, ReadLimits};
use pertask_text::human::duration_ns;

/// The label of samples before, and its value.
const BASE: (&str, &str) = ("pprof::base", "true");

/// What a pprof file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PprofFile {
    /// A profile.
    Profile(Box<Profile>),
    /// The difference of two.
    Difference(Box<PprofDifference>),
}

/// The difference of two profiles, as a file has it.
///
/// How long each of them was, and when it began, is not known: the file has sums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PprofDifference {
    /// What was there before, or what has become less.
    pub before: Profile,
    /// What was there after, or what has become more.
    pub after: Profile,
    /// Whether there is only what has become more and less, and not the profiles themselves.
    pub is_net: bool,
}

impl PprofFile {
    /// Reads a pprof file, gzip'd or not, within [`ReadLimits::default`].
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, is damaged, is too large, or does not contain CPU time.
    pub fn read(reader: impl Read) -> Result<Self, ReadError> {
        Self::read_within(reader, &ReadLimits::default())
    }

    /// Reads a pprof file, gzip'd or not, within the given limits.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, is damaged, exceeds a limit, or does not contain CPU time.
    pub fn read_within(reader: impl Read, limits: &ReadLimits) -> Result<Self, ReadError> {
        let signed = read::signed(reader, limits)?;
        let is_difference = signed.is_difference();
        let Signed { profile, less, .. } = signed;
        match is_difference {
            true => Ok(Self::Difference(Box::new(PprofDifference::of(profile, less)))),
            false => Ok(Self::Profile(Box::new(profile))),
        }
    }
}

impl PprofDifference {
    /// Returns the comparison that the file holds.
    #[must_use]
    pub fn comparison(&self) -> Comparison<'_> {
        Comparison { is_net: self.is_net, ..Comparison::of(&self.before, &self.after) }
    }

    fn of(more: Profile, less: Vec<Sample>) -> Self {
        let mut after = more;
        // What is neither more nor less may be of either.
        after.samples.retain(|sample| !is_base(sample) || sample.count > 0 || sample.time_ns > 0);
        let is_net = after.all_samples().any(is_base) || !less.iter().all(is_base);
        after.start = UNIX_EPOCH;
        let lasted_ns = std::mem::take(&mut after.duration_ns);
        let lost = std::mem::take(&mut after.lost);
        after.allocations.clear();
        let has_allocations = std::mem::take(&mut after.has_allocations);
        let (less, less_off_cpu) = Profile::by_cpu(less);
        let mut before =
            Profile { samples: less, off_cpu: less_off_cpu, remarks: Vec::new(), ..after.clone() };
        let [of_before, of_after] = [&mut before, &mut after];
        let samples = of_before.samples.iter_mut().chain(&mut of_before.off_cpu);
        for sample in samples.chain(&mut of_after.samples).chain(&mut of_after.off_cpu) {
            sample.labels.retain(|(key, value)| (&**key, &**value) != BASE);
        }
        after.remarks.extend(of_both(lasted_ns, lost));
        let of_allocations = "what has changed in allocations is not shown; go tool pprof -sample_index=alloc_space shows it";
        after.remarks.extend(has_allocations.then(|| of_allocations.to_owned()));
        Self { before, after, is_net }
    }
}

/// Returns remarks on what the file says of both profiles together.
fn of_both(lasted_ns: u64, lost: Lost) -> Vec<String> {
    let mut remarks = Vec::new();
    if lasted_ns > 0 {
        remarks.push(format!("both recordings together lasted {}", duration_ns(lasted_ns)));
    }
    if !lost.is_empty() {
        remarks.push(format!("lost by one of them or both: {lost}"));
    }
    remarks
}

fn is_base(sample: &Sample) -> bool {
    sample.labels.iter().any(|(key, value)| (&**key, &**value) == BASE)
}
