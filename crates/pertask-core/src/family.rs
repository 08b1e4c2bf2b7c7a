//! An event that is inherited: the tasks that descend from the one it was attached to, and their counts.
//!
//! Fork and exit touch one lock each, for some instructions. A read walks the members in chunks, so that neither
//! waits for it; the tally keeps it from counting a task twice that ends meanwhile.

use crate::ctx_data::CtxRef;
use crate::error::Error;
use crate::pmu::{Count, Pmu, Registered};
use crate::primitive::{Arc, AtomicBool, Mutex, Ordering, lock};
use crate::slot::Attached;
use crate::tally::Tally;
use crate::task::Task;
use std::sync::Arc as StdArc;

/// Members that a read looks at under one hold of the lock.
const CHUNK: usize = 64;

/// The events that a task's children inherit, as they stand on the task.
///
/// INVARIANT: once `Closed`, for ever: the task has ended.
pub(crate) struct Links {
    /// Whether there may be any, so that a fork without them takes no lock.
    any: AtomicBool,
    list: Mutex<List>,
}

enum List {
    // A box: nearly all tasks have none, and each pays for the room.
    Open(Option<Box<OpenList>>),
    Closed,
}

#[derive(Default)]
struct OpenList {
    links: Vec<Link>,
    /// With so many, those to closed families are taken out before the next is added.
    prune_at: usize,
}

struct Link {
    family: StdArc<dyn AnyFamily>,
    member: usize,
}

/// A [`Family`], its types forgotten.
trait AnyFamily: Send + Sync {
    fn fork(self: StdArc<Self>, child: &Arc<Task>);
    fn exit(&self, member: usize);
    fn is_closed(&self) -> bool;
}

/// One inherited event.
pub(crate) struct Family<P: Pmu> {
    pmu: &'static Registered<P>,
    state: Mutex<State<P::Count>>,
    /// The number of the last read; one at a time, since a member remembers only the latest that has seen it.
    reads: Mutex<u64>,
}

/// INVARIANT: each member holds one reference, its own; when the family closes it has no members.
struct State<C> {
    closed: bool,
    members: Vec<Option<Member<C>>>,
    vacant: Vec<usize>,
    ended: Tally<C>,
    /// Descendants that could be given no data.
    lost: u64,
}

struct Member<C> {
    task: Arc<Task>,
    held: CtxRef,
    base: C,
    seen_in_walk: u64,
}

impl Links {
    pub(crate) fn new() -> Self {
        Self { any: AtomicBool::new(false), list: Mutex::new(List::Open(None)) }
    }

    /// Whether there may be any.
    fn any(&self) -> bool {
        // Relaxed: an event attached at this moment counts what comes next or does not.
        self.any.load(Ordering::Relaxed)
    }

    /// For fork: the child joins the families of its parent.
    pub(crate) fn fork(&self, child: &Arc<Task>) {
        if !self.any() {
            return;
        }
        let families: Vec<_> = match &*lock(&self.list) {
            List::Open(Some(open)) => open.links.iter().map(|l| StdArc::clone(&l.family)).collect(),
            List::Open(None) | List::Closed => return,
        };
        families.into_iter().for_each(|family| family.fork(child));
    }

    /// For exit: the task leaves its families; nothing is inherited from it any more.
    pub(crate) fn exit(&self) {
        // Relaxed: who adds a link looks at `Closed`, under the lock; see `add`.
        let links = std::mem::replace(&mut *lock(&self.list), List::Closed);
        if let List::Open(Some(open)) = links {
            open.links.iter().for_each(|link| link.family.exit(link.member));
        }
    }

    /// False if the task has ended: it will not tell the family.
    fn add(&self, link: Link) -> bool {
        match &mut *lock(&self.list) {
            List::Open(open) => open.get_or_insert_default().add(link),
            List::Closed => return false,
        }
        self.any.store(true, Ordering::Relaxed);
        true
    }
}

impl OpenList {
    /// A task that lives long may see many events come and go, and one may have many at once: links are looked through
    /// when their number has doubled, which costs each that is added two looks at most, and keeps at most twice as many
    /// as live.
    fn add(&mut self, link: Link) {
        if self.links.len() >= self.prune_at {
            self.links.retain(|link| !link.family.is_closed());
            self.prune_at = 2 * self.links.len() + 1;
        }
        self.links.push(link);
    }
}

impl<P: Pmu> Family<P> {
    /// A family of one, `task`, and of all that it will fork.
    pub(crate) fn begin(
        pmu: &'static Registered<P>,
        task: &Arc<Task>,
    ) -> Result<StdArc<Self>, Error> {
        let family =
            StdArc::new(Self { pmu, state: Mutex::new(State::new()), reads: Mutex::new(0) });
        StdArc::clone(&family).join(task)?;
        Ok(family)
    }

    /// The counts of all members, those that have ended included, since each joined.
    pub(crate) fn read(&self) -> P::Count {
        let mut walk = lock(&self.reads);
        *walk += 1;
        let mut sum = P::Count::default();
        let mut at = 0;
        while let Some(next) = self.read_chunk(at, *walk, &mut sum) {
            at = next;
        }
        let ended = lock(&self.state).ended.total_beside(*walk);
        sum.add(&ended.count);
        sum
    }

    fn read_chunk(&self, at: usize, walk: u64, sum: &mut P::Count) -> Option<usize> {
        let mut state = lock(&self.state);
        let end = state.members.len().min(at + CHUNK);
        for member in state.members.get_mut(at..end)?.iter_mut().flatten() {
            member.seen_in_walk = walk;
            sum.add(&self.count(member));
        }
        (end > at).then_some(end)
    }

    /// Descendants that could be given no data.
    pub(crate) fn lost(&self) -> u64 {
        lock(&self.state).lost
    }

    /// Lets all members go. Nothing is inherited any more.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        loop {
            let members: Vec<_> = {
                let mut state = lock(&self.state);
                let from = state.members.len().saturating_sub(CHUNK);
                state.members.drain(from..).flatten().collect()
            };
            if members.is_empty() && lock(&self.state).members.is_empty() {
                return;
            }
            members.into_iter().for_each(|member| self.put(member));
        }
    }

    fn join(self: StdArc<Self>, task: &Arc<Task>) -> Result<(), Error> {
        let held = match task.slot(self.pmu.state.index).attach(&self.pmu.state.cache)? {
            Attached::Installed(held) | Attached::Shared(held) => held,
            Attached::Exited => return Err(Error::TaskExited),
        };
        let member = Member {
            task: Arc::clone(task),
            base: self.pmu.read_held(&held),
            held,
            seen_in_walk: 0,
        };
        let index = match lock(&self.state).add(member) {
            Ok(index) => index,
            Err(late) => {
                self.put(late);
                return Ok(());
            }
        };
        // Should the task have ended by now, its counts are final, and read where they are.
        let _ = task.links.add(Link { family: self, member: index });
        Ok(())
    }

    fn put(&self, member: Member<P::Count>) {
        let _ = member.task.slot(self.pmu.state.index).put(member.held);
    }

    fn count(&self, member: &Member<P::Count>) -> P::Count {
        self.pmu.read_held(&member.held).since(&member.base)
    }
}

impl<P: Pmu> AnyFamily for Family<P> {
    fn fork(self: StdArc<Self>, child: &Arc<Task>) {
        if lock(&self.state).closed {
            return;
        }
        if StdArc::clone(&self).join(child).is_err() {
            lock(&self.state).lost += 1;
        }
    }

    fn exit(&self, index: usize) {
        let mut state = lock(&self.state);
        let Some(member) = state.members.get_mut(index).and_then(Option::take) else { return };
        state.vacant.push(index);
        let count = self.count(&member);
        state.ended.fold(member.seen_in_walk, &count);
        drop(state);
        self.put(member);
    }

    fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }
}

impl<C: Count> State<C> {
    fn new() -> Self {
        Self {
            closed: false,
            members: Vec::new(),
            vacant: Vec::new(),
            ended: Tally::default(),
            lost: 0,
        }
    }

    /// The member's index, or the member itself if the family is closed.
    fn add(&mut self, member: Member<C>) -> Result<usize, Member<C>> {
        if self.closed {
            return Err(member);
        }
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.members.push(None);
            self.members.len() - 1
        });
        self.members[index] = Some(member);
        Ok(index)
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

    impl AnyFamily for Asked {
        fn fork(self: StdArc<Self>, _: &Arc<Task>) {}
        fn exit(&self, _: usize) {}
        fn is_closed(&self) -> bool {
            self.times.fetch_add(1, Ordering::Relaxed);
            self.closed.load(Ordering::Relaxed)
        }
    }

    fn add(links: &Links, family: &StdArc<Asked>) {
        assert!(links.add(Link { family: StdArc::clone(family) as _, member: 0 }));
    }

    fn len(links: &Links) -> usize {
        match &*lock(&links.list) {
            List::Open(Some(open)) => open.links.len(),
            List::Open(None) | List::Closed => 0,
        }
    }

    #[test]
    fn joining_many_families_looks_twice_at_each_at_most() {
        let (links, family) = (Links::new(), StdArc::new(Asked::default()));
        for joined in 1..=10_000 {
            add(&links, &family);
            let looks = family.times.load(Ordering::Relaxed);
            assert!(looks <= 2 * joined, "{looks} looks for {joined} families");
        }
        assert_eq!(len(&links), 10_000);
    }

    #[test]
    fn links_to_closed_families_do_not_pile_up() {
        let (links, live) = (Links::new(), StdArc::new(Asked::default()));
        (0..10).for_each(|_| add(&links, &live));
        let gone = StdArc::new(Asked::default());
        gone.closed.store(true, Ordering::Relaxed);
        for _ in 0..10_000 {
            add(&links, &gone);
            assert!(len(&links) <= 2 * (10 + 1), "{} links, 10 of them live", len(&links));
        }
        let looks = gone.times.load(Ordering::Relaxed) + live.times.load(Ordering::Relaxed);
        assert!(looks <= 2 * 10_010, "{looks} looks for 10,010 families");
    }
}
