//! Adds up a profile's time, of whatever state it is, by task, spawn site, function, place, waker, thread, scope or label.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::iter;
use std::sync::Arc;

use super::called::Called;
use super::{Profile, Sample, Site, State, TaskRef, ThreadRef, frames};

/// What a [`Summary`] has a row for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupBy {
    /// Each spawn site and name of tasks.
    Site,
    /// Each task.
    Task,
    /// Each function, by name and source file. (If the profile has names without paths, many functions are called `new`.)
    Function,
    /// Each place: the innermost function, and the line of the program's own code that called or awaited it. Of waiting time, that is
    /// what tasks wait for and where.
    Place,
    /// Each thread. (A task that waits is on none.)
    Thread,
    /// Of waits, the tasks of each name and those that woke them, or hold what they wait for.
    Waker,
    /// Each scope.
    Scope,
    /// Each value of the label with this key. Where a sample has several, its own time is the first one's.
    Label(Arc<str>),
}

/// A number of samples, and the time that they stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount {
    /// The time in nanoseconds: CPU time, or that of another state.
    pub time_ns: u64,
    /// The number of samples, or of waits, or 0 if [`Profile::has_counts`] is false.
    pub samples: u64,
}

/// A profile's time, added up by [`Profile::summary`].
///
/// The `own` amounts of all rows add up to `whole`, whatever the rows are. Samples of no task, without a stack, in no scope or
/// without the label have a row too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What there is a row for.
    pub by: GroupBy,
    /// What the time is: CPU time, or that of another state.
    pub state: State,
    /// All samples of the profile.
    pub whole: Amount,
    /// Whether the numbers of samples are known. If not, they are all 0.
    pub has_counts: bool,
    /// The rows, those with the most own time first.
    pub rows: Vec<SummaryRow>,
}

/// One row of a [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryRow {
    /// Whose time it is.
    pub subject: Subject,
    /// The time of the subject itself: of a function without the functions that it called, of a scope without the scopes
    /// within it, of a label's value without the samples that have another value before it. For other subjects it equals
    /// `total`.
    pub own: Amount,
    /// All samples that the subject occurs in. Each counts once, however often a function stands in its stack.
    pub total: Amount,
}

/// Whose time a row shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Subject {
    /// Tasks of one spawn site and name.
    Site {
        /// The tasks' name, or `None` if they were given none.
        name: Option<Arc<str>>,
        /// The place where they were spawned, if it is known.
        site: Option<Site>,
    },
    /// A task. Without an id, it stands for several tasks of one name and site.
    Task(TaskRef),
    /// No task: the scheduler, drivers, and threads that run no tasks.
    OutsideTasks,
    /// A part of a runtime, outside tasks: `tokio scheduler`.
    Runtime(Arc<str>),
    /// A function.
    Function {
        /// The function's name, or its file and offset if no symbol is known.
        name: Arc<str>,
        /// The source file, if it is known.
        file: Option<Arc<str>>,
    },
    /// A place in the code.
    Place {
        /// The innermost function: of a wait, what is awaited.
        name: Arc<str>,
        /// The line of the program's own code that called or awaited it, or else the nearest one that is known.
        at: Option<Site>,
        /// What the tasks are called whose place it is, or `None` if they have several names.
        task: Option<Arc<str>>,
    },
    /// Tasks that waited, and those that woke them, or hold what they wait for.
    Waker {
        /// What the tasks are called that waited.
        task: Arc<str>,
        /// What the tasks are called that woke them, or `None` where no task did, or where that is not known.
        by: Option<Arc<str>>,
        /// Whether these have not woken them, but hold the lock that they wait for.
        holds: bool,
    },
    /// Samples without a stack.
    NoStack,
    /// A thread, or `None` if it is not known.
    Thread(Option<ThreadRef>),
    /// A scope.
    Scope(Arc<str>),
    /// No scope was open.
    NoScope,
    /// A value of the label.
    Label(Arc<str>),
    /// Samples without the label.
    NoLabel,
}

/// What stands for no task.
pub(super) const NO_TASK: &str = "(no task)";

impl Profile {
    /// Returns the amount of all samples together.
    #[must_use]
    pub fn whole(&self) -> Amount {
        self.samples.iter().fold(Amount::default(), |sum, sample| sum.plus(Amount::of(sample)))
    }

    /// Adds up the time, with a row for each of what `by` says.
    ///
    /// ```
    /// use pertask_profile::{Function, GroupBy, Line, Location, ProfileBuilder, Sample, Subject};
    ///
    /// let mut builder = ProfileBuilder::new("by hand", 1_000_000);
    /// let [walk, main] = ["walk", "main"].map(|name| {
    ///     let name = builder.text(name);
    ///     let function = builder.function(Function { name, ..Function::default() });
    ///     builder.location(Location { lines: vec![Line { function, line: 1 }], ..Location::default() })
    /// });
    /// // `walk` calls itself, and is counted once.
    /// builder.add(Sample { count: 3, time_ns: 3_000_000, stack: vec![walk, walk, main], ..Sample::default() });
    /// builder.add(Sample { count: 1, time_ns: 1_000_000, stack: vec![main], ..Sample::default() });
    /// let profile = builder.finish(std::time::Duration::from_secs(1));
    ///
    /// let summary = profile.summary(&GroupBy::Function);
    /// let rows: Vec<_> = summary.rows.iter().map(|row| (row.subject.to_string(), row.own.samples, row.total.samples)).collect();
    /// assert_eq!(rows, [("walk".to_owned(), 3, 3), ("main".to_owned(), 1, 4)]);
    /// ```
    #[must_use]
    pub fn summary(&self, by: &GroupBy) -> Summary {
        let rows = match by {
            GroupBy::Site => self.each_once(site),
            GroupBy::Task => self.each_once(|sample| {
                sample.task.clone().map_or_else(|| outside(sample), Subject::Task)
            }),
            GroupBy::Waker => self.by_waker(),
            GroupBy::Thread => self.each_once(|sample| Subject::Thread(sample.thread.clone())),
            GroupBy::Label(key) => self.by_label(key),
            GroupBy::Scope => self.scopes(),
            GroupBy::Function => self.by_function(),
            GroupBy::Place => self.by_place(),
        };
        Summary {
            by: by.clone(),
            state: self.state,
            whole: self.whole(),
            has_counts: self.has_counts,
            rows: sorted(rows),
        }
    }

    /// Returns the keys of the users' labels, in alphabetical order.
    #[must_use]
    pub fn label_keys(&self) -> Vec<Arc<str>> {
        keys(self.samples.iter())
    }

    /// Returns the keys of the users' labels in all states, in alphabetical order.
    #[must_use]
    pub fn label_keys_of_lives(&self) -> Vec<Arc<str>> {
        keys(self.all_samples())
    }

    fn by_waker(&self) -> Vec<SummaryRow> {
        let mut called = Called::default();
        self.each_once(|sample| Subject::Waker {
            task: called.of(sample),
            by: sample.woken_by.as_ref().or(sample.held_by.as_ref()).map(|task| called.task(task)),
            holds: sample.woken_by.is_none() && sample.held_by.is_some(),
        })
    }

    /// Returns rows of which each sample is in exactly one.
    fn each_once(&self, mut subject: impl FnMut(&Sample) -> Subject) -> Vec<SummaryRow> {
        let mut rows = Rows::default();
        for sample in &self.samples {
            let row = rows.of(subject(sample));
            rows.add_own(row, Amount::of(sample));
            rows.add_total(row, Amount::of(sample));
        }
        rows.finish(|subject| subject)
    }

    fn by_label(&self, key: &str) -> Vec<SummaryRow> {
        let mut rows = Rows::default();
        for sample in &self.samples {
            let values = sample.labels_of(key).cloned().map(Subject::Label);
            let values: Vec<_> = values.map(|value| rows.of(value)).collect();
            let first = values.first().copied().unwrap_or_else(|| rows.of(Subject::NoLabel));
            rows.add(first, &values, Amount::of(sample));
        }
        rows.finish(|subject| subject)
    }

    fn scopes(&self) -> Vec<SummaryRow> {
        let mut rows = Rows::default();
        for sample in &self.samples {
            let scopes = sample.scopes.iter().cloned().map(Subject::Scope);
            let open: Vec<_> = scopes.map(|scope| rows.of(scope)).collect();
            let innermost = open.last().copied().unwrap_or_else(|| rows.of(Subject::NoScope));
            rows.add(innermost, &open, Amount::of(sample));
        }
        rows.finish(|subject| subject)
    }

    fn by_function(&self) -> Vec<SummaryRow> {
        let mut rows: Rows<Option<NameAndFile<'_>>> = Rows::default();
        // The rows of each location, the innermost function first. Each location is looked up once.
        let mut known: HashMap<_, Vec<usize>> = HashMap::new();
        let mut stack = Vec::new();
        for sample in &self.samples {
            stack.clear();
            for id in &sample.stack {
                let of_location = known.entry(*id).or_insert_with(|| {
                    let files = self.files(*id).chain(iter::repeat(None));
                    let names = self.shared_names(*id).into_iter().zip(files);
                    names.map(|it| rows.of(Some(it))).collect()
                });
                stack.extend_from_slice(of_location);
            }
            let innermost = stack.first().copied().unwrap_or_else(|| rows.of(None));
            rows.add(innermost, &stack, Amount::of(sample));
        }
        rows.finish(|function| match function {
            Some((name, file)) => Subject::Function { name, file: file.cloned() },
            None => Subject::NoStack,
        })
    }
}

impl Sample {
    /// Returns the value of the label with this key, the first if there are several.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&Arc<str>> {
        self.labels_of(key).next()
    }

    /// Returns all values of the label with this key.
    pub fn labels_of<'a, 'k>(
        &'a self,
        key: &'k str,
    ) -> impl Iterator<Item = &'a Arc<str>> + use<'a, 'k> {
        self.labels.iter().filter(move |(of, _)| &**of == key).map(|(_, value)| value)
    }
}

impl Amount {
    pub(super) fn of(sample: &Sample) -> Self {
        Self { time_ns: sample.time_ns, samples: sample.count }
    }

    /// Returns the sum of both amounts, which stops at the largest integer.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            time_ns: self.time_ns.saturating_add(other.time_ns),
            samples: self.samples.saturating_add(other.samples),
        }
    }
}

impl Subject {
    /// Returns the name by which people call the subject.
    fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Site { name: Some(name), .. } => (&**name).into(),
            Self::Site { site: Some(site), .. } => frames::place(site).into(),
            Self::Site { .. } => frames::UNKNOWN.into(),
            Self::Task(TaskRef { name: Some(name), .. }) => (&**name).into(),
            Self::Task(task) => frames::site(task),
            Self::OutsideTasks => frames::OUTSIDE.into(),
            Self::Runtime(part) => frames::outside(Some(part)),
            Self::Function { name, .. } | Self::Place { name, .. } => (&**name).into(),
            Self::Scope(name) | Self::Label(name) => (&**name).into(),
            Self::Waker { task, by: Some(by), holds: true } => {
                format!("{task}, waiting for a lock that {by} holds").into()
            }
            Self::Waker { task, by, .. } => {
                format!("{task}, woken by {}", by.as_deref().unwrap_or(NO_TASK)).into()
            }
            Self::NoStack => "(no stack)".into(),
            Self::Thread(thread) => frames::thread(thread.as_ref()),
            Self::NoScope => "(no scope)".into(),
            Self::NoLabel => "(no such label)".into(),
        }
    }

    /// Compares subjects by name, and those of one name by what tells them apart, so that the order of rows is always the same. Names
    /// are compared in place: rows may have long ones.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            // The name of these is made of two.
            (
                Self::Waker { task, by, holds },
                Self::Waker { task: other_task, by: other_by, holds: other_holds },
            ) => (task, by, holds).cmp(&(other_task, other_by, other_holds)),
            _ => (self.name(), self.place()).cmp(&(other.name(), other.place())),
        }
    }

    /// Returns what tells apart subjects of one name.
    fn place(&self) -> (Option<u64>, Option<(&str, u32)>) {
        fn of(site: Option<&Site>) -> Option<(&str, u32)> {
            site.map(|site| (&*site.file, site.line))
        }
        match self {
            Self::Site { site, .. } => (None, of(site.as_ref())),
            Self::Task(task) => (task.id, of(task.site.as_ref())),
            Self::Place { at, .. } => (None, of(at.as_ref())),
            Self::Function { file, .. } => (None, file.as_deref().map(|file| (file, 0))),
            _ => (None, None),
        }
    }
}

/// Shows the name by which people call the subject, and which [`Filter`](super::Filter) takes.
impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

fn keys<'a>(samples: impl Iterator<Item = &'a Sample>) -> Vec<Arc<str>> {
    let labels = samples.flat_map(|sample| &sample.labels);
    let keys: HashSet<_> = labels.map(|(key, _)| key).collect();
    let mut keys: Vec<_> = keys.into_iter().cloned().collect();
    keys.sort();
    keys
}

fn site(sample: &Sample) -> Subject {
    match &sample.task {
        Some(task) => Subject::Site { name: task.name.clone(), site: task.site.clone() },
        None => outside(sample),
    }
}

fn outside(sample: &Sample) -> Subject {
    sample.runtime.clone().map_or(Subject::OutsideTasks, Subject::Runtime)
}

type NameAndFile<'a> = (Arc<str>, Option<&'a Arc<str>>);

/// Rows that are being added up, by their keys.
struct Rows<K> {
    index: HashMap<K, usize>,
    amounts: Vec<Growing>,
    samples: u64,
}

/// A row's amounts so far, and the last sample that was added to its total.
#[derive(Clone, Copy, Default)]
struct Growing {
    own: Amount,
    total: Amount,
    last: u64,
}

impl<K> Default for Rows<K> {
    fn default() -> Self {
        Self { index: HashMap::new(), amounts: Vec::new(), samples: 0 }
    }
}

impl<K: Eq + Hash> Rows<K> {
    fn of(&mut self, key: K) -> usize {
        let next = self.amounts.len();
        let row = *self.index.entry(key).or_insert(next);
        if row == next {
            self.amounts.push(Growing::default());
        }
        row
    }

    /// Adds a sample to the own amount of one row, and once to the total of that row and of all others.
    fn add(&mut self, innermost: usize, all: &[usize], amount: Amount) {
        self.samples += 1;
        self.add_own(innermost, amount);
        for row in all.iter().copied().chain([innermost]) {
            if self.amounts[row].last != self.samples {
                self.amounts[row].last = self.samples;
                self.add_total(row, amount);
            }
        }
    }

    fn add_own(&mut self, row: usize, amount: Amount) {
        self.amounts[row].own = self.amounts[row].own.plus(amount);
    }

    fn add_total(&mut self, row: usize, amount: Amount) {
        self.amounts[row].total = self.amounts[row].total.plus(amount);
    }

    fn finish(self, subject: impl Fn(K) -> Subject) -> Vec<SummaryRow> {
        let amounts = self.amounts;
        let row = |(key, at): (K, usize)| {
            let Growing { own, total, .. } = amounts[at];
            SummaryRow { subject: subject(key), own, total }
        };
        self.index.into_iter().map(row).collect()
    }
}

/// Sorts rows by own time, then by total, then by name, so that the order is always the same.
fn sorted(mut rows: Vec<SummaryRow>) -> Vec<SummaryRow> {
    rows.sort_by(|a, b| {
        let amounts = (b.own, b.total).cmp(&(a.own, a.total));
        amounts.then_with(|| a.subject.order(&b.subject))
    });
    rows
}
