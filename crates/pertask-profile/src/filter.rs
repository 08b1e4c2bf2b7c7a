//! A part of a profile: the samples of a task, a spawn site, a thread or a label, or with a function in their stack.

use std::fmt;

use super::{Allocation, Profile, Sample, Site, State, frames};

/// Conditions that a sample must meet to be selected. The default has none, and selects every sample.
///
/// ```
/// use pertask_profile::{Filter, ProfileBuilder, Sample, TaskRef};
///
/// let mut builder = ProfileBuilder::new("by hand", 1_000_000);
/// for (name, count) in [("GET /a", 3), ("GET /b", 5)] {
///     let task = TaskRef { name: Some(builder.text(name)), ..TaskRef::default() };
///     builder.add(Sample { count, task: Some(task), ..Sample::default() });
/// }
/// let profile = builder.finish(std::time::Duration::from_secs(1));
///
/// let filter = Filter { task: Some("GET /b".to_owned()), ..Filter::default() };
/// assert_eq!(profile.filtered(&filter).whole().samples, 5);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The task's name or number. `(outside tasks)` selects the samples of no task, and `(tokio scheduler)` those of that part of a
    /// runtime. A `~` at the beginning of a name may be left out.
    pub task: Option<String>,
    /// The task's spawn site: `FILE` or `FILE:LINE`. The last components of the file's path are enough.
    pub site: Option<String>,
    /// The thread's name, its number, or both as in `worker [4711]`.
    pub thread: Option<String>,
    /// Labels that the sample must have, as keys and values. If a key has several values, each of them is found.
    pub labels: Vec<(String, String)>,
    /// Texts that must each be a part of the name of a function in the stack.
    pub functions: Vec<String>,
}

impl Filter {
    /// Returns whether there are no conditions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns a filter for each of the conditions.
    #[must_use]
    pub fn conditions(&self) -> Vec<Self> {
        let Self { task, site, thread, labels, functions } = self.clone();
        let none = Self::default;
        let mut each = Vec::new();
        each.extend(task.map(|task| Self { task: Some(task), ..none() }));
        each.extend(site.map(|site| Self { site: Some(site), ..none() }));
        each.extend(thread.map(|thread| Self { thread: Some(thread), ..none() }));
        each.extend(labels.into_iter().map(|label| Self { labels: vec![label], ..none() }));
        each.extend(functions.into_iter().map(|name| Self { functions: vec![name], ..none() }));
        each
    }

    /// Returns whether a sample meets all conditions except those on functions.
    fn wants(&self, sample: &Sample) -> bool {
        self.task.as_deref().is_none_or(|task| is_task(sample, task))
            && self.site.as_deref().is_none_or(|site| is_site(sample, site))
            && self.thread.as_deref().is_none_or(|thread| is_thread(sample, thread))
            && self.labels.iter().all(|label| has_label(sample, label))
    }
}

impl Profile {
    /// Returns the part of the profile that the filter selects.
    ///
    /// The tables of locations, functions and mappings stay whole. So does [`lost`](Self::lost), because nobody knows how much
    /// of it belongs to the part. Only the incomplete stacks are counted anew, of samples on the CPU.
    #[must_use]
    pub fn filtered(&self, filter: &Filter) -> Self {
        let places: Vec<_> = filter.functions.iter().map(|name| self.places_in(name)).collect();
        let wanted = |sample: &&Sample| {
            let is_in = |places: &Vec<bool>| {
                sample.stack.iter().any(|id| places.get(id.0 as usize).copied().unwrap_or(false))
            };
            filter.wants(sample) && places.iter().all(is_in)
        };
        let samples: Vec<_> = self.samples.iter().filter(wanted).cloned().collect();
        let off_cpu = self.off_cpu.iter().filter(wanted).cloned().collect();
        let of_wanted = |allocation: &&Allocation| wanted(&&allocation.sample);
        let allocations = self.allocations.iter().filter(of_wanted).cloned().collect();
        let mut lost = self.lost;
        if !filter.is_empty() {
            let is_sampled = |sample: &&Sample| sample.state == State::OnCpu;
            let incomplete = samples.iter().filter(is_sampled).filter(|sample| !sample.complete);
            lost.stacks_incomplete = incomplete.fold(0, |sum, it| it.count.saturating_add(sum));
        }
        Self { samples, off_cpu, allocations, lost, ..self.without_samples() }
    }

    /// Returns for each location whether a function there has this text in its name.
    fn places_in(&self, name: &str) -> Vec<bool> {
        let is_in = |location| self.names_at(location).iter().any(|found| found.contains(name));
        self.locations.iter().map(is_in).collect()
    }
}

/// Shows the conditions in words: `task GET /, site main.rs:7, function parse`.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |what, wanted: &Option<String>| {
            wanted.as_ref().map(|wanted| format!("{what} {wanted}"))
        };
        let ones = [one("task", &self.task), one("site", &self.site), one("thread", &self.thread)];
        let labels = self.labels.iter().map(|(key, value)| format!("label {key}={value}"));
        let functions = self.functions.iter().map(|name| format!("function {name}"));
        let all: Vec<_> = ones.into_iter().flatten().chain(labels).chain(functions).collect();
        f.write_str(&all.join(", "))
    }
}

fn is_task(sample: &Sample, wanted: &str) -> bool {
    match &sample.task {
        None => wanted == frames::OUTSIDE || wanted == frames::outside(sample.runtime.as_deref()),
        Some(task) => {
            let name = task.name.as_deref();
            name == Some(wanted)
                || task.future.is_some()
                    && name.and_then(|name| name.strip_prefix('~')) == Some(wanted)
                || task.id.is_some_and(|id| wanted.parse() == Ok(id))
        }
    }
}

fn is_site(sample: &Sample, wanted: &str) -> bool {
    let site = sample.task.as_ref().and_then(|task| task.site.as_ref());
    site.is_some_and(|site: &Site| {
        ends_with(&site.file, wanted) || ends_with(&frames::place(site), wanted)
    })
}

/// Returns whether the label's key has this value, perhaps among others.
fn has_label(sample: &Sample, (key, value): &(String, String)) -> bool {
    sample.labels_of(key).any(|found| **found == **value)
}

fn is_thread(sample: &Sample, wanted: &str) -> bool {
    if frames::thread(sample.thread.as_ref()) == wanted {
        return true;
    }
    sample.thread.as_ref().is_some_and(|thread| {
        *thread.name == *wanted || (thread.tid != 0 && wanted.parse() == Ok(thread.tid))
    })
}

/// Returns whether the path is this one, or ends with its components.
fn ends_with(path: &str, wanted: &str) -> bool {
    let rest = path.strip_suffix(wanted);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/') || wanted.starts_with('/'))
        && !wanted.is_empty()
}
