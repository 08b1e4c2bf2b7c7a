//! The inherited events of one task.

use crate::foreign::Delayed;
use crate::primitive::{Arc, AtomicBool, Mutex, Ordering, lock};
use std::sync::Arc as StdArc;

/// An inherited event, as seen by its member tasks (of type `T`).
pub(crate) trait Inherited<T>: Send + Sync {
    /// Tells the event that one of its members has made a child.
    fn fork(self: StdArc<Self>, child: &Arc<T>);
    /// Tells the event that the task with that member number ends.
    fn exit(&self, member: usize);
    /// Whether the event has been detached.
    fn is_closed(&self) -> bool;
}

/// The events that a task's children inherit.
///
/// INVARIANT: once `Closed`, it stays closed: the task has ended.
pub(crate) struct Links<T> {
    /// Whether the task may have links, so that a fork from a task without any takes no lock.
    any: AtomicBool,
    list: Mutex<List<T>>,
}

enum List<T> {
    // Boxed: nearly all tasks have no links, and every task pays for the space.
    Open(Option<Box<OpenList<T>>>),
    Closed,
}

struct OpenList<T> {
    links: Vec<Link<T>>,
    /// At this length, `add` removes the links to closed events before it adds the next.
    prune_at: usize,
}

/// One inherited event, and the number of the task among its members.
pub(crate) struct Link<T> {
    pub(crate) event: StdArc<dyn Inherited<T>>,
    pub(crate) member: usize,
}

impl<T> Links<T> {
    pub(crate) fn new() -> Self {
        Self { any: AtomicBool::new(false), list: Mutex::new(List::Open(None)) }
    }

    /// Whether the task may have links.
    pub(crate) fn any(&self) -> bool {
        // Relaxed: an event that is attached concurrently may or may not count the next child.
        self.any.load(Ordering::Relaxed)
    }

    /// For fork: joins the child to its parent's events.
    pub(crate) fn fork(&self, child: &Arc<T>) {
        if !self.any() {
            return;
        }
        let events: Vec<_> = match &*lock(&self.list) {
            List::Open(Some(open)) => open.links.iter().map(|l| StdArc::clone(&l.event)).collect(),
            List::Open(None) | List::Closed => return,
        };
        events.into_iter().for_each(|event| event.fork(child));
    }

    /// For exit: takes the task out of all its events, even if one of them panics. From then on no child inherits from the
    /// task.
    pub(crate) fn exit(&self, panics: &mut Delayed) {
        let list = std::mem::replace(&mut *lock(&self.list), List::Closed);
        if let List::Open(Some(open)) = list {
            for link in open.links {
                panics.call(|| link.event.exit(link.member));
            }
        }
    }

    /// Adds a link. Returns false if the task has ended: then the task will not tell the event about its exit.
    pub(crate) fn add(&self, link: Link<T>) -> bool {
        let closed = match &mut *lock(&self.list) {
            List::Open(open) => open.get_or_insert_default().add(link),
            List::Closed => return false,
        };
        // Not under the lock: dropping the last link also drops the event's counts, whose destructor is not ours.
        drop(closed);
        // Relaxed: an event that is attached concurrently may or may not count the next child.
        self.any.store(true, Ordering::Relaxed);
        true
    }
}

impl<T> Default for OpenList<T> {
    fn default() -> Self {
        Self { links: Vec::new(), prune_at: 0 }
    }
}

impl<T> OpenList<T> {
    /// Adds a link, and returns the links that it pruned.
    ///
    /// A long-lived task may see many events come and go, and may have many at once. So links are checked when their number has
    /// doubled: each added link costs at most two checks, and the list holds at most twice as many links as are live.
    fn add(&mut self, link: Link<T>) -> Vec<Link<T>> {
        let mut closed = Vec::new();
        if self.links.len() >= self.prune_at {
            closed.extend(self.links.extract_if(.., |link| link.event.is_closed()));
            self.prune_at = 2 * self.links.len() + 1;
        }
        self.links.push(link);
        closed
    }
}

#[cfg(all(test, not(any(pertask_loom, pertask_shuttle))))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Counts how often it is asked whether it is closed.
    #[derive(Default)]
    struct Asked {
        closed: AtomicBool,
        times: AtomicUsize,
    }

    impl Inherited<()> for Asked {
        fn fork(self: StdArc<Self>, _: &Arc<()>) {}
        fn exit(&self, _: usize) {}
        fn is_closed(&self) -> bool {
            self.times.fetch_add(1, Ordering::Relaxed);
            self.closed.load(Ordering::Relaxed)
        }
    }

    fn add(links: &Links<()>, event: &StdArc<Asked>) {
        assert!(links.add(Link { event: StdArc::clone(event) as _, member: 0 }));
    }

    fn len(links: &Links<()>) -> usize {
        match &*lock(&links.list) {
            List::Open(Some(open)) => open.links.len(),
            List::Open(None) | List::Closed => 0,
        }
    }

    #[test]
    fn joining_many_events_looks_twice_at_each_at_most() {
        let (links, event) = (Links::new(), StdArc::new(Asked::default()));
        for joined in 1..=10_000 {
            add(&links, &event);
            let looks = event.times.load(Ordering::Relaxed);
            assert!(looks <= 2 * joined, "{looks} looks for {joined} events");
        }
        assert_eq!(len(&links), 10_000);
    }

    #[test]
    fn links_to_closed_events_do_not_pile_up() {
        let (links, live) = (Links::new(), StdArc::new(Asked::default()));
        (0..10).for_each(|_| add(&links, &live));
        let gone = StdArc::new(Asked::default());
        gone.closed.store(true, Ordering::Relaxed);
        for _ in 0..10_000 {
            add(&links, &gone);
            assert!(len(&links) <= 2 * (10 + 1), "{} links, 10 of them live", len(&links));
        }
        let looks = gone.times.load(Ordering::Relaxed) + live.times.load(Ordering::Relaxed);
        assert!(looks <= 2 * 10_010, "{looks} looks for 10,010 events");
    }
}
