//! Labels, as in Go's pprof: a future sets them, they hold while it is polled, and the tasks that it spawns inherit them.
//!
//! The running task carries its labels as a number, the tag of an [account](super::accounts).

use super::accounts::{self, Held};
use super::label_set::Labels;
use pertask_core::{Cpu, SpawnPath};
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

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
    _account: Option<Held>,
}

impl Labels {
    /// The labels that hold on the calling thread at this moment.
    #[must_use]
    pub fn current() -> Self {
        accounts::labels_of(Cpu::with(Cpu::tag))
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
                let both = accounts::labels_to_join(around).joined(this.own);
                let account = accounts::hold(path, both.clone());
                let tag = accounts::tag_of(&both, account.as_ref());
                last.insert(Last { around: here, tag, _account: account }).tag
            }
        };
        let _ended = Holding::begin(tag, around);
        this.future.poll(context)
    }
}

/// A poll with labels. Its drop restores the labels around it, also when the poll panics.
struct Holding {
    around: u32,
}

impl Holding {
    fn begin(tag: u32, around: u32) -> Self {
        // The guard first: a PMU's hook may panic, and the tag is set all the same.
        let holding = Self { around };
        set(tag);
        holding
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A second panic, in a PMU's hook, would abort the program.
            let _ = std::panic::catch_unwind(|| set(self.around));
        } else {
            set(self.around);
        }
    }
}

fn set(tag: u32) {
    Cpu::with(|cpu| cpu.set_tag(tag));
}
