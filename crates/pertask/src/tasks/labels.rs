//! Labels, as in Go's pprof: a future sets them, they hold while it is polled, and the tasks that it spawns inherit them.
//!
//! The running task carries its labels as a number, the tag of an [account](super::accounts).

use super::accounts::{self, Account};
use super::tracked::Tracked;
use pertask_core::{Cpu, SpawnPath, Task};
use pin_project_lite::pin_project;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A set of labels: keys with their values, sorted by key, each key once.
///
/// A set is cheap to clone. Two sets with the same content are equal.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[(Box<str>, Box<str>)]>);

/// Sets labels for a future.
pub trait LabelExt: Future + Sized {
    /// Sets labels that hold while this future is polled.
    ///
    /// They are added to the labels that hold already; for a key in both, the new value holds. Tasks that are made during such a
    /// poll begin with these labels.
    ///
    /// ```
    /// use pertask::{LabelExt, Labels, TaskExt};
    ///
    /// let request = async { Labels::current().get("tenant").map(str::to_owned) };
    /// let request = request.labels([("tenant", "acme")]).task("GET /users");
    /// assert_eq!(futures::executor::block_on(request).as_deref(), Some("acme"));
    /// ```
    fn labels<K: AsRef<str>, V: AsRef<str>>(
        self,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Labeled<Self> {
        Labeled { future: self, own: Labels::new(labels), last: None }
    }
}

impl<F: Future> LabelExt for F {}

pin_project! {
    /// A future with labels, made by [`LabelExt::labels`].
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct Labeled<F> {
        #[pin]
        future: F,
        own: Labels,
        last: Option<Last>,
    }
}

/// What held in a future at its last poll.
#[derive(Debug)]
struct Last {
    /// The tag around the future, and the spawn path of the task that polled it.
    around: (u32, Option<u32>),
    /// The tag of both sets joined, and its account, which lives as long as the future has it.
    tag: u32,
    _account: Option<Arc<Account>>,
}

impl Labels {
    /// Makes a set of these labels.
    ///
    /// For a key that comes twice, the last value holds.
    pub fn new<K: AsRef<str>, V: AsRef<str>>(labels: impl IntoIterator<Item = (K, V)>) -> Self {
        let none = Self::default();
        none.with(
            labels.into_iter().map(|(key, value)| (key.as_ref().into(), value.as_ref().into())),
        )
    }

    /// The labels that hold on the calling thread at this moment.
    #[must_use]
    pub fn current() -> Self {
        Self::of_tag(Cpu::with(Cpu::tag))
    }

    /// The value of a key, or `None` if the set does not have the key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let place = self.0.binary_search_by(|(other, _)| (**other).cmp(key)).ok()?;
        Some(&self.0[place].1)
    }

    /// The keys and values, sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The set of a tag.
    pub(crate) fn of_tag(tag: u32) -> Self {
        match tag {
            accounts::NONE => Self::default(),
            tag => accounts::labels_of(tag).unwrap_or_else(|| Self::new([("labels", "(other)")])),
        }
    }

    /// The bytes of all keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    fn joined(&self, inner: &Self) -> Self {
        match (self.is_empty(), inner.is_empty()) {
            (true, _) => inner.clone(),
            (_, true) => self.clone(),
            _ => self.with(inner.0.to_vec()),
        }
    }

    fn with(&self, labels: impl IntoIterator<Item = (Box<str>, Box<str>)>) -> Self {
        let mut all: Vec<_> = self.0.to_vec();
        for (key, value) in labels {
            match all.binary_search_by(|(other, _)| other.cmp(&key)) {
                Ok(place) => all[place].1 = value,
                Err(place) => all.insert(place, (key, value)),
            }
        }
        Self(all.into())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<F: Future> Future for Labeled<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let (around, path) = Cpu::with(|cpu| (cpu.tag(), cpu.path()));
        let here = (around, path.map(SpawnPath::id));
        let tag = match this.last {
            Some(last) if last.around == here => last.tag,
            last => {
                let both = Labels::of_tag(around).joined(this.own);
                let account = accounts::hold(path, both.clone());
                let tag = accounts::tag_of(&both, account.as_ref());
                last.insert(Last { around: here, tag, _account: account }).tag
            }
        };
        let _ended = Holding::begin(tag, around);
        this.future.poll(context)
    }
}

/// Gives a new task the account of the labels that it has inherited, on its own spawn path. The account lives as long as the
/// result.
pub(crate) fn inherit(task: &Task) -> Option<Arc<Account>> {
    match task.tag() {
        accounts::NONE => None,
        tag => label(task, Labels::of_tag(tag)),
    }
}

/// Gives a task labels in addition to those that it has.
pub(super) fn add(task: &Task, labels: &Labels) -> Option<Arc<Account>> {
    label(task, Labels::of_tag(task.tag()).joined(labels))
}

/// Gives a task these labels.
fn label(task: &Task, labels: Labels) -> Option<Arc<Account>> {
    let account = accounts::hold(Some(task.path()), labels.clone());
    task.set_tag(accounts::tag_of(&labels, account.as_ref()));
    account
}

impl<F> Tracked<F> {
    /// Gives the task these labels from now on, in addition to those that it has.
    ///
    /// For a key that the task has already, the new value holds. [`LabelExt::labels`] labels futures that are no task yet.
    pub fn labels<K: AsRef<str>, V: AsRef<str>>(
        mut self,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        if let Some(task) = self.handle() {
            self.account = add(task, &Labels::new(labels));
        }
        self
    }
}

/// A poll with labels. Its drop restores the labels around it, also when the poll panics.
struct Holding {
    around: u32,
}

impl Holding {
    fn begin(tag: u32, around: u32) -> Self {
        set(tag);
        Self { around }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        set(self.around);
    }
}

fn set(tag: u32) {
    Cpu::with(|cpu| cpu.set_tag(tag));
}
