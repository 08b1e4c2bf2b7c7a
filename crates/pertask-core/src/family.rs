//! An inherited event: the task that it was attached to, that task's descendants, and their counts.
//!
//! Fork and exit each hold one lock for a few instructions, and no PMU code runs under it. A read walks the members in chunks,
//! so neither fork nor exit waits for it. Each member records the last read that saw it, and passes the number on when it ends,
//! so that the read does not count it twice.

use crate::count::Count;
use crate::ctx_data::{CtxRef, CtxView};
use crate::error::Error;
use crate::links::{Inherited, Link};
use crate::pmu::{Pmu, Registered};
use crate::primitive::{Arc, Mutex, lock};
use crate::rcu;
use crate::tally::Totals;
use crate::task::Task;
use crate::turn::{Turn, Turns};
use std::sync::Arc as StdArc;

/// How many members a read visits, or a close releases, each time it takes the lock.
const CHUNK: usize = 64;

/// One inherited event.
pub(crate) struct Family<P: Pmu> {
    pmu: &'static Registered<P>,
    state: Mutex<State<P::Count>>,
    turns: Turns,
    /// The counts of members that have ended. Only a thread that has a turn locks it.
    ended: Mutex<Ended<P::Count>>,
}

/// INVARIANT: each member holds one reference of its own. A closed family has no members.
struct State<C> {
    closed: bool,
    members: Vec<Option<Member<C>>>,
    vacant: Vec<usize>,
    /// Members that have ended and are not yet in `ended`: for each, the last read that saw it, and its counts.
    just_ended: Vec<(u64, C)>,
    /// How many descendants got no data.
    lost: u64,
}

struct Member<C> {
    task: Arc<Task>,
    held: CtxRef,
    /// Shared, so that a read can use it outside the lock.
    base: StdArc<C>,
    seen_in_read: u64,
}

/// INVARIANT: `aside` holds exactly the members that ended after `read` had seen them. All other ended members are in
/// `settled`.
#[derive(Default)]
struct Ended<C> {
    settled: Totals<C>,
    aside: Totals<C>,
    read: u64,
}

impl<P: Pmu> Family<P> {
    /// A family of `task` and all tasks that it will fork.
    pub(crate) fn begin(
        pmu: &'static Registered<P>,
        task: &Arc<Task>,
    ) -> Result<StdArc<Self>, Error> {
        let family = StdArc::new(Self {
            pmu,
            state: Mutex::new(State::new()),
            turns: Turns::new(),
            ended: Mutex::new(Ended::default()),
        });
        StdArc::clone(&family).join(task)?;
        Ok(family)
    }

    /// The counts of all members since each joined, including members that have ended.
    ///
    /// # Panics
    /// If called inside another read of the same event.
    pub(crate) fn read(&self) -> P::Count {
        let turn = self.turns.begin();
        let mut sum = P::Count::default();
        let mut at = 0;
        while let Some(next) = self.read_chunk(at, turn.number(), &mut sum) {
            at = next;
        }
        sum.add(&self.settle(&turn).total_beside(turn.number()));
        sum
    }

    /// Adds the counts of a chunk of members. Returns where the next chunk begins, or `None` after the last.
    fn read_chunk(&self, at: usize, read: u64, sum: &mut P::Count) -> Option<usize> {
        // During the section a member's data stays alive, even if the member ends meanwhile.
        let section = rcu::enter();
        let mut chunk = Vec::with_capacity(CHUNK);
        let end = {
            let mut state = lock(&self.state);
            let end = state.members.len().min(at + CHUNK);
            for member in state.members.get_mut(at..end)?.iter_mut().flatten() {
                member.seen_in_read = read;
                chunk.push(member.view(&section));
            }
            end
        };
        chunk.into_iter().for_each(|(view, base)| sum.add(&self.pmu.read(view).since(&base)));
        (end > at).then_some(end)
    }

    /// How many descendants got no data.
    pub(crate) fn lost(&self) -> u64 {
        lock(&self.state).lost
    }

    /// Releases all members. From then on no task inherits the event.
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
        let (held, base) = self.pmu.attach(task)?;
        let member =
            Member { task: Arc::clone(task), held, base: StdArc::new(base), seen_in_read: 0 };
        let added = lock(&self.state).add(member);
        let member = match added {
            Ok(member) => member,
            Err(late) => {
                self.put(late);
                return Ok(());
            }
        };
        // If the task has ended by now, its counts are final, and the family reads them from its data.
        let _ = task.links.add(Link { event: self, member });
        Ok(())
    }

    fn put(&self, member: Member<P::Count>) {
        let _ = member.task.slot(self.pmu.state.index).put(member.held);
    }

    /// Moves the members that have just ended into `ended`, so that it covers every member that has left.
    fn settle(&self, turn: &Turn<'_>) -> impl std::ops::Deref<Target = Ended<P::Count>> {
        let _ = turn;
        let mut ended = lock(&self.ended);
        let just_ended = std::mem::take(&mut lock(&self.state).just_ended);
        just_ended.iter().for_each(|(seen, count)| ended.fold(*seen, count));
        ended
    }

    /// A member's counts, read outside the lock. `None` if it is no longer a member.
    fn count(&self, index: usize) -> Option<P::Count> {
        let section = rcu::enter();
        let (view, base) = lock(&self.state).members.get(index)?.as_ref()?.view(&section);
        Some(self.pmu.read(view).since(&base))
    }
}

impl<P: Pmu> Inherited<Task> for Family<P> {
    fn fork(self: StdArc<Self>, child: &Arc<Task>) {
        if lock(&self.state).closed {
            return;
        }
        if StdArc::clone(&self).join(child).is_err() {
            lock(&self.state).lost += 1;
        }
    }

    fn exit(&self, index: usize) {
        let leaving = Leaving { family: self, index };
        let count = self.count(index);
        std::mem::forget(leaving);
        // Now and then, so that they do not pile up if nobody reads the event.
        if self.leave(index, count) >= CHUNK
            && let Some(turn) = self.turns.try_begin()
        {
            self.settle(&turn);
        }
    }

    fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }
}

impl<P: Pmu> Family<P> {
    /// Removes a member and records its counts. Returns how many members have just ended.
    fn leave(&self, index: usize, count: Option<P::Count>) -> usize {
        let mut state = lock(&self.state);
        let Some(member) = state.members.get_mut(index).and_then(Option::take) else { return 0 };
        state.vacant.push(index);
        state.just_ended.extend(count.map(|count| (member.seen_in_read, count)));
        let just_ended = state.just_ended.len();
        drop(state);
        self.put(member);
        just_ended
    }
}

/// Removes a leaving member even if the PMU panics while it reads the member's counts, which are then lost.
struct Leaving<'a, P: Pmu> {
    family: &'a Family<P>,
    index: usize,
}

impl<P: Pmu> Drop for Leaving<'_, P> {
    fn drop(&mut self) {
        self.family.leave(self.index, None);
    }
}

impl<C> Member<C> {
    /// The member's data, and its counts when it joined.
    fn view<'s>(&self, _section: &'s rcu::Guard) -> (CtxView<'s>, StdArc<C>) {
        let view = self.held.data();
        // SAFETY: the member holds a reference now, during the section, so its data is not freed before the section ends.
        (unsafe { view.prolonged() }, StdArc::clone(&self.base))
    }
}

impl<C: Count> Ended<C> {
    /// Adds a member that has ended. `seen` is the last read that saw it alive.
    fn fold(&mut self, seen: u64, count: &C) {
        if seen > self.read {
            let aside = std::mem::take(&mut self.aside);
            self.settled.add(&aside);
            self.read = seen;
        }
        let is_aside = seen != 0 && seen == self.read;
        let bank = if is_aside { &mut self.aside } else { &mut self.settled };
        bank.add(&Totals { tasks: 1, count: count.clone() });
    }

    /// The counts of ended members that `read`, the latest read, has not seen alive.
    fn total_beside(&self, read: u64) -> C {
        let mut total = self.settled.count.clone();
        if self.read != read {
            total.add(&self.aside.count);
        }
        total
    }
}

impl<C> State<C> {
    fn new() -> Self {
        Self {
            closed: false,
            members: Vec::new(),
            vacant: Vec::new(),
            just_ended: Vec::new(),
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

#[cfg(all(test, not(pertask_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_member_seen_by_a_read_is_not_counted_beside_it() {
        let mut ended = Ended::<u64>::default();
        ended.fold(0, &10);
        // Read 1 saw this one alive. It ends before the read adds up the ended members.
        ended.fold(1, &5);
        assert_eq!(ended.total_beside(1), 10);
        assert_eq!(ended.total_beside(2), 15);
    }

    #[test]
    fn a_member_seen_by_an_older_read_is_settled() {
        let mut ended = Ended::<u64>::default();
        ended.fold(2, &1);
        ended.fold(1, &10);
        assert_eq!(ended.total_beside(2), 10);
        assert_eq!(ended.total_beside(3), 11);
        ended.fold(3, &100);
        assert_eq!(ended.total_beside(3), 11);
        assert_eq!(ended.total_beside(4), 111);
    }
}
