//! The events that a task's children inherit, as they stand on the task.

use crate::foreign::Delayed;
use crate::primitive::{Arc, AtomicBool, Mutex, Ordering, lock};
use std::sync::Arc as StdArc;

/// An inherited event, as seen by the tasks (of type `T`) that have it.
pub(crate) trait Inherited<T>: Send + Sync {
    /// A task that has it has made a child.
    fn fork(self: StdArc<Self>, child: &Arc<T>);
    /// The task that is its member of that number ends.
    fn exit(&self, member: usize);
    /// Whether it has been detached.
    fn is_closed(&self) -> bool;
}

/// The events that a task's children inherit.
///
/// INVARIANT: once `Closed`, for ever: the task has ended.
pub(crate) struct Links<T> {
    /// Whether there may be any, so that a fork without them takes no lock.
    any: AtomicBool,
    list: Mutex<List<T>>,
}

enum List<T> {
    // A box: nearly all tasks have none, and each pays for the room.
    Open(Option<Box<OpenList<T>>>),
    Closed,
}

struct OpenList<T> {
    links: Vec<Link<T>>,
    /// With so many, those to closed events are taken out before the next is added.
    prune_at: usize,
}

/// One inherited event, and which of its members the task is.
pub(crate) struct Link<T> {
    pub(crate) event: StdArc<dyn Inherited<T>>,
    pub(crate) member: usize,
}

impl<T> Links<T> {
    pub(crate) fn new() -> Self {
        Self { any: AtomicBool::new(false), list: Mutex::new(List::Open(None)) }
    }

    /// Whether there may be any.
    pub(crate) fn any(&self) -> bool {
        // Relaxed: an event attached at this moment counts what comes next or does not.
        self.any.load(Ordering::Relaxed)
    }

    /// For fork: the child joins the events of its parent.
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

    /// For exit: the task leaves its events, all of them also if one panics. Nothing is inherited from it any more.
    pub(crate) fn exit(&self, panics: &mut Delayed) {
        let list = std::mem::replace(&mut *lock(&self.list), List::Closed);
        if let List::Open(Some(open)) = list {
            for link in open.links {
                panics.call(|| link.event.exit(link.member));
            }
        }
    }

    /// False if the task has ended: it will not tell the event.
    pub(crate) fn add(&self, link: Link<T>) -> bool {
        let closed = match &mut *lock(&self.list) {
            List::Open(open) => open.get_or_insert_default().add(link),
            List::Closed => return false,
        };
        // Under no lock: with the last link goes what the event has counted, whose destructor is not ours.
        drop(closed);
        // Relaxed: as in `any`.
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
    /// A task that lives long may see many events come and go, and one may have many at once: links are looked through
    /// when their number has doubled, which costs each that is added two looks at most, and keeps at most twice as many
    /// as live. Those are returned that were taken out.
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
