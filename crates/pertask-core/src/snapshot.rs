//! A snapshot: all counts of a PMU, over live and ended tasks, with each task counted once.

use crate::books::Books;
use crate::count::Count;
use crate::path::SpawnPath;
use crate::pmu::{Pmu, PmuHandle, Registered};
use crate::rcu;
use crate::tally::Totals;
use crate::task::Task;
use std::collections::BTreeMap;

impl<P: Pmu> PmuHandle<P> {
    /// Reads all counts: those of ended tasks, added up by spawn path, and those of each live task.
    ///
    /// The snapshot calls `live` for each live task that has data, in an RCU section like that of a hook. `live` may correct
    /// the count by what has not reached the data yet, before the count is added to the path's; [`Live::read`] reads the data
    /// again. A task that ends meanwhile is counted once, either as live or as ended.
    ///
    /// A snapshot walks all tasks; spawn and exit do not wait for it. A PMU takes one snapshot at a time, so snapshots on other
    /// threads wait.
    ///
    /// # Panics
    /// If called inside another snapshot, or inside a read of a global event, of the same PMU on the same thread; inside four
    /// snapshots of other PMUs; or during a task's exit, in [`Pmu::fold`] and what it calls.
    pub fn snapshot(self, mut live: impl FnMut(&mut Live<'_, P>)) -> Vec<PathCounts<P::Count>> {
        self.0.snapshot(&mut live)
    }
}

/// A live task in a snapshot.
pub struct Live<'a, P: Pmu> {
    /// The task.
    pub task: &'a Task,
    /// Its count, which goes into the snapshot.
    pub count: P::Count,
    pmu: &'a P,
    data: &'a P::Data,
}

impl<P: Pmu> Live<'_, P> {
    /// The PMU's data for the task.
    #[must_use]
    pub fn data(&self) -> &P::Data {
        self.data
    }

    /// Reads the task's data again, even if the task has ended meanwhile.
    #[must_use]
    pub fn read(&self) -> P::Count {
        self.pmu.read(self.data)
    }
}

/// The counts of all tasks of one spawn path, without their descendants.
#[derive(Clone, Debug)]
pub struct PathCounts<C> {
    /// The path of these tasks.
    ///
    /// Its ancestors have rows of their own, if they have counts.
    pub path: &'static SpawnPath,
    /// How many tasks with data have ended.
    pub exited: u64,
    /// How many tasks with data are alive.
    pub live: u64,
    /// The counts of both together.
    pub count: C,
}

impl<P: Pmu> Registered<P> {
    fn snapshot(&self, live: &mut dyn FnMut(&mut Live<'_, P>)) -> Vec<PathCounts<P::Count>> {
        let system = self.state.system;
        let is_ending = system.library().is_ending_here();
        assert!(
            !is_ending,
            "a PMU reads counts during a task's exit, and the read would wait for that exit"
        );
        let turn = self.turns.begin();
        let _depth = Depth::one_more();
        let mut by_path = ByPath::default();
        let _ = system.tasks().try_for_each_pinned(|task| {
            let section = rcu::enter();
            if let Some(mut seen) = self.see(task, turn.number(), section.token()) {
                live(&mut seen);
                by_path.add_live(task.path(), &seen.count);
            }
            Ok::<(), ()>(())
        });
        system.paths().for_each(|path| {
            let ended = system
                .library()
                .iter()
                .filter_map(|books| self.ended_on(books, path, turn.number()));
            ended.for_each(|ended| by_path.add_ended(path, &ended));
        });
        by_path.0.into_values().collect()
    }

    /// Marks a live task's counts as seen by `walk`, and reads them.
    fn see<'a>(
        &'a self,
        task: &'a Task,
        walk: u64,
        section: rcu::Token<'a>,
    ) -> Option<Live<'a, P>> {
        let view = task.slot(self.state.index).data(section)?;
        let data = self.own_payload(view)?;
        if view.refcount.read() == 0 || !view.see_in_walk(walk) {
            return None;
        }
        Some(Live { task, count: self.pmu.read(data), pmu: &self.pmu, data })
    }

    /// The counts of tasks of that path that ended with these books and that `walk` has not seen. `None` if there are none.
    fn ended_on(&self, books: &Books, path: &SpawnPath, walk: u64) -> Option<Totals<P::Count>> {
        // Inside the read, because an open window may be creating the tally right now: the read waits for that window, too.
        books.read(|| {
            let tally = self.ended.get(books.number())?.get(path)?;
            Some(tally.total_beside(&self.pmu, walk))
        })
    }
}

/// How deep snapshots are nested on this thread. Each may pin the same task.
struct Depth;

#[cfg(not(any(pertask_loom, pertask_shuttle)))]
impl Depth {
    fn one_more() -> Self {
        let depth = DEPTH.get() + 1;
        assert!(depth <= MAX_DEPTH, "more than {MAX_DEPTH} snapshots are nested, of one PMU each");
        DEPTH.set(depth);
        Self
    }
}

#[cfg(not(any(pertask_loom, pertask_shuttle)))]
impl Drop for Depth {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

#[cfg(any(pertask_loom, pertask_shuttle))]
impl Depth {
    fn one_more() -> Self {
        Self
    }
}

/// Fewer than the number of walks that can pin one entry.
#[cfg(not(any(pertask_loom, pertask_shuttle)))]
const MAX_DEPTH: u32 = 4;

#[cfg(not(any(pertask_loom, pertask_shuttle)))]
std::thread_local! {
    static DEPTH: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// A snapshot in progress: one row for each path with counts, by the path's number.
struct ByPath<C>(BTreeMap<u32, PathCounts<C>>);

impl<C> Default for ByPath<C> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<C: Count> ByPath<C> {
    fn add_live(&mut self, path: &'static SpawnPath, count: &C) {
        let row = self.row(path);
        row.live += 1;
        row.count.add(count);
    }

    fn add_ended(&mut self, path: &'static SpawnPath, ended: &Totals<C>) {
        if ended.tasks != 0 {
            let row = self.row(path);
            row.exited += ended.tasks;
            row.count.add(&ended.count);
        }
    }

    fn row(&mut self, path: &'static SpawnPath) -> &mut PathCounts<C> {
        let new = || PathCounts { path, exited: 0, live: 0, count: C::default() };
        self.0.entry(path.id()).or_insert_with(new)
    }
}
