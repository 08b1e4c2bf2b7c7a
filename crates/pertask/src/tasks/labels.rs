//! Labels, as in Go's pprof: a future sets them, they hold while it is polled, and the tasks that it spawns inherit them.
//!
//! A set of labels is interned to a small number, the tag, which the running task carries. So a switch moves no labels, and a
//! signal handler can read which labels hold.

use crate::interned::Interned;
use crate::tasks::tracked::Tracked;
use pertask_core::Cpu;
use pin_project_lite::pin_project;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

/// The number of different sets of labels that a process can have.
///
/// The sets that futures were given count, and so do the sets that pertask joined from them. Later sets are `(other)`.
pub const MAX_LABEL_SETS: usize = 65_536;

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
        // The tag that held around the future at its last poll, and the tag of both sets joined.
        last: Option<(u32, u32)>,
    }
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
            NONE => Self::default(),
            tag => INTERNED.get(tag).unwrap_or_else(|| Self::new([("labels", "(other)")])),
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
        let around = Cpu::with(Cpu::tag);
        let (_, tag) = match *this.last {
            Some(last) if last.0 == around => last,
            _ => *this.last.insert((around, joined(around, this.own))),
        };
        let _ended = Holding::begin(tag, around);
        this.future.poll(context)
    }
}

/// The tag of the set that holds in a future: the set around it joined with its own labels.
fn joined(around: u32, own: &Labels) -> u32 {
    let both = Labels::of_tag(around).with(own.0.to_vec());
    if both.is_empty() { NONE } else { INTERNED.number_of(&both) }
}

/// The tag of the empty set.
const NONE: u32 = 0;

impl<F> Tracked<F> {
    /// Gives the task these labels from now on, in addition to those that it has.
    ///
    /// For a key that the task has already, the new value holds. [`LabelExt::labels`] labels futures that are no task yet.
    pub fn labels<K: AsRef<str>, V: AsRef<str>>(
        self,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        if let Some(task) = self.handle() {
            task.set_tag(joined(task.tag(), &Labels::new(labels)));
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

/// How often a set of labels was beyond [`MAX_LABEL_SETS`].
#[must_use]
pub fn label_sets_without_place() -> u64 {
    INTERNED.overflowed()
}

static INTERNED: LazyLock<Interned<Labels>> =
    LazyLock::new(|| Interned::new(MAX_LABEL_SETS as u32));
