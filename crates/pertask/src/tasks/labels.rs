//! Labels, in the manner of Go's pprof: set for a future, seen while it is polled, inherited by the tasks that it spawns.
//!
//! A set of labels is interned to a small number, which the running task carries; so a switch moves nothing, and a signal
//! handler can read which labels hold.

use crate::interned::Interned;
use crate::tasks::tracked::Tracked;
use pertask_core::Cpu;
use pin_project_lite::pin_project;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

/// How many different sets of labels a process can have, of those that its futures were given and of those that came of
/// putting them together. What comes later is `(other)`.
pub const MAX_LABEL_SETS: usize = 65_536;

/// Labels: keys and their values, by key, each key once.
///
/// Cheap to clone; two of the same content are equal.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[(Box<str>, Box<str>)]>);

/// Sets labels for a future.
pub trait LabelExt: Future + Sized {
    /// While this future is polled, these labels hold, beside those that hold already; of the same key the inner one holds.
    /// Tasks that are made meanwhile begin with them.
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
    /// A future with labels. Made by [`LabelExt::labels`].
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct Labeled<F> {
        #[pin]
        future: F,
        own: Labels,
        // The tag that was found around it at the last poll, and the one of both together.
        last: Option<(u32, u32)>,
    }
}

impl Labels {
    /// These labels. Of the same key the last one holds.
    pub fn new<K: AsRef<str>, V: AsRef<str>>(labels: impl IntoIterator<Item = (K, V)>) -> Self {
        let none = Self::default();
        none.with(
            labels.into_iter().map(|(key, value)| (key.as_ref().into(), value.as_ref().into())),
        )
    }

    /// Those that hold here.
    #[must_use]
    pub fn current() -> Self {
        Self::of_tag(Cpu::with(Cpu::tag))
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let place = self.0.binary_search_by(|(other, _)| (**other).cmp(key)).ok()?;
        Some(&self.0[place].1)
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The set of that number.
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

/// The tag of the set that holds inside, of the one around and a future's own.
fn joined(around: u32, own: &Labels) -> u32 {
    let both = Labels::of_tag(around).with(own.0.to_vec());
    if both.is_empty() { NONE } else { INTERNED.number_of(&both) }
}

/// The tag of the empty set.
const NONE: u32 = 0;

impl<F> Tracked<F> {
    /// The task has these labels from now on, beside those that it has. As [`LabelExt::labels`], for a future that is a task
    /// already.
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

/// A poll with labels: ends them however it ends.
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

/// How often a set of labels found no place.
#[must_use]
pub fn label_sets_without_place() -> u64 {
    INTERNED.overflowed()
}

static INTERNED: LazyLock<Interned<Labels>> =
    LazyLock::new(|| Interned::new(MAX_LABEL_SETS as u32));
