//! The dull bookkeeping beside the machine: who holds what, and how often each task had its turn.
//!
//! It knows no slot, no count of references and no grace period. One thing it cannot know: which tasks a global attach
//! that has stopped in its walk has come to. That it learns by looking, see [`Mark::Unknown`].

use crate::baton::Point;
use pertask::Inherit;
use pertask::core::{Edge, Task, TaskId};
use std::sync::Arc;

pub const PMUS: usize = 2;
pub const CPUS: usize = 3;

#[derive(Default)]
pub struct Ledger {
    pub tasks: Vec<TaskEntry>,
    pub pmus: [PmuEntry; PMUS],
    pub cpus: [CpuEntry; CPUS],
}

/// A task. They are numbered in the order in which their forks have returned.
pub struct TaskEntry {
    pub id: TaskId,
    /// Whether somebody has kept a handle, with which the task is known when it has ended.
    pub handle: Option<Arc<Task>>,
    pub state: State,
    pub last_cpu: Option<usize>,
    pub held: [Held; PMUS],
    /// The families that its children join: PMU and number.
    pub families: Vec<(usize, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    Blocked,
    Running,
    /// Its exit has begun.
    Exiting,
    Exited,
}

/// What a task has of one PMU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// By number.
    pub data: Option<usize>,
    pub mark: Mark,
    /// Whether it is one of those without data that the PMU has counted.
    pub counted: bool,
}

/// Whether the global event holds a reference to a task's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    #[default]
    No,
    Yes,
    /// A walk is under way that comes to the task or has been there.
    Unknown,
}

#[derive(Default)]
pub struct PmuEntry {
    /// Events for which switches call hooks: those that are being attached or detached included.
    pub events: usize,
    pub global: Global,
    /// No more data may be allocated.
    pub is_limited: bool,
    pub without_data: u64,
    /// Tasks that were without data until they ended, or until the last global event went.
    pub stayed_without: u64,
    pub data: Vec<Data>,
    pub families: Vec<Family>,
    /// The turns of tasks that have ended, and how many of these had data.
    pub ended: (u64, u64),
    /// Turns that went with the data of tasks that live.
    pub vanished: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Global {
    #[default]
    Off,
    Attaching,
    On(usize),
    /// Detaching, or undoing an attach that was refused: forks see it no more.
    Leaving,
}

/// One data object.
#[derive(Clone, Copy, Debug, Default)]
pub struct Data {
    /// References of events, without the global one's.
    pub events: usize,
    pub turns: u64,
}

#[derive(Default)]
pub struct Family {
    pub is_closed: bool,
    /// Task, data, and its turns when the task joined.
    pub members: Vec<(usize, usize, u64)>,
    pub ended: u64,
    pub lost: u64,
}

#[derive(Default)]
pub struct CpuEntry {
    /// What runs, the innermost last.
    pub stack: Vec<Frame>,
    /// By PMU, the task whose `sched_in` has not been answered.
    pub inside: [Option<usize>; PMUS],
}

#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub task: usize,
    /// A run, and not given to `switch_in`.
    pub is_run: bool,
}

/// An attached event.
#[derive(Clone, Copy, Debug)]
pub enum Use {
    Task { task: usize, data: usize, base: u64 },
    Family(usize),
    Global { base: u64 },
}

/// A switch, of which the hooks of the PMUs before `next` have been called.
#[derive(Clone, Copy, Debug)]
pub struct Switch {
    pub incoming: Option<(usize, Edge)>,
    pub next: usize,
    /// The PMUs that had events when it began, once that is known. Those that come or go meanwhile change nothing.
    active: Option<[bool; PMUS]>,
}

impl Switch {
    pub fn to(incoming: Option<(usize, Edge)>) -> Self {
        Self { incoming, next: 0, active: None }
    }

    /// Whether it has called a hook.
    pub fn has_begun(&self) -> bool {
        self.active.is_some()
    }
}

impl Global {
    /// Whether forks give their child data.
    pub fn is_seen_by_forks(self) -> bool {
        matches!(self, Self::Attaching | Self::On(_))
    }
}

impl Ledger {
    pub fn live(&self) -> impl Iterator<Item = usize> {
        (0..self.tasks.len()).filter(|task| self.tasks[*task].state != State::Exited)
    }

    pub fn in_state(&self, state: State) -> Vec<usize> {
        (0..self.tasks.len()).filter(|task| self.tasks[*task].state == state).collect()
    }

    pub fn current(&self, cpu: usize) -> Option<usize> {
        self.cpus[cpu].stack.last().map(|frame| frame.task)
    }

    /// The task under the current one.
    pub fn outer(&self, cpu: usize) -> Option<usize> {
        self.cpus[cpu].stack.iter().rev().nth(1).map(|frame| frame.task)
    }

    /// The hooks' side of a switch, up to `point` or to its end.
    pub fn switch(&mut self, cpu: usize, switch: &mut Switch, point: Option<Point>) {
        let next = match point {
            None => PMUS,
            Some(Point::SchedIn(pmu)) => pmu + 1,
            Some(Point::SchedOut(_)) => 0,
            Some(other) => unreachable!("{other:?} is not in a switch"),
        };
        // Nobody else has done anything between its beginning and its first stop.
        let now = std::array::from_fn(|pmu| self.pmus[pmu].events != 0);
        let active = *switch.active.get_or_insert(now);
        if switch.next == 0 {
            self.cpus[cpu].inside = [None; PMUS];
        }
        if let Some((task, edge)) = switch.incoming {
            for pmu in (switch.next..next).filter(|&pmu| active[pmu]) {
                self.cpus[cpu].inside[pmu] = Some(task);
                self.sched_in(pmu, task, edge);
            }
        }
        switch.next = next;
    }

    fn sched_in(&mut self, pmu: usize, task: usize, edge: Edge) {
        if let (Some(data), Edge::Turn) = (self.tasks[task].held[pmu].data, edge) {
            self.pmus[pmu].data[data].turns += 1;
        }
    }

    /// Adds a task. Data that the global event gives it is marked by the caller.
    pub fn fork(&mut self, id: TaskId, handle: Option<Arc<Task>>) -> usize {
        self.tasks.push(TaskEntry {
            id,
            handle,
            state: State::Ready,
            last_cpu: None,
            held: [Held::default(); PMUS],
            families: Vec::new(),
        });
        self.tasks.len() - 1
    }

    /// One more reference for an event, to data that is made if there is none.
    ///
    /// Where a task was born without data, the global event shares what it is given.
    pub fn take(&mut self, pmu: usize, task: usize) -> usize {
        let data = self.data_of(pmu, task);
        let is_mended = std::mem::take(&mut self.tasks[task].held[pmu].counted);
        if is_mended && self.pmus[pmu].global.is_seen_by_forks() {
            self.tasks[task].held[pmu].mark = Mark::Yes;
        }
        self.pmus[pmu].data[data].events += 1;
        data
    }

    pub fn mark(&mut self, pmu: usize, task: usize) {
        self.data_of(pmu, task);
        self.tasks[task].held[pmu].mark = Mark::Yes;
    }

    pub fn unmark(&mut self, pmu: usize, task: usize) {
        self.tasks[task].held[pmu].mark = Mark::No;
        self.release_if_unheld(pmu, task);
    }

    fn data_of(&mut self, pmu: usize, task: usize) -> usize {
        let all = &mut self.pmus[pmu].data;
        *self.tasks[task].held[pmu].data.get_or_insert_with(|| {
            all.push(Data::default());
            all.len() - 1
        })
    }

    /// Gives back an event's reference.
    pub fn put(&mut self, pmu: usize, task: usize, data: usize) {
        self.pmus[pmu].data[data].events -= 1;
        if self.tasks[task].held[pmu].data == Some(data) {
            self.release_if_unheld(pmu, task);
        }
    }

    fn release_if_unheld(&mut self, pmu: usize, task: usize) {
        let Held { data: Some(data), mark: Mark::No, .. } = self.tasks[task].held[pmu] else {
            return;
        };
        if self.pmus[pmu].data[data].events == 0 {
            self.tasks[task].held[pmu].data = None;
            self.pmus[pmu].vanished += self.pmus[pmu].data[data].turns;
        }
    }

    /// Learns from whether a task has data where the walk has come.
    pub fn learn(&mut self, pmu: usize, task: usize, has_data: bool) {
        if has_data {
            self.tasks[task].held[pmu].counted = false;
        }
        let Held { data, mark, .. } = self.tasks[task].held[pmu];
        let events = data.map_or(0, |data| self.pmus[pmu].data[data].events);
        if mark != Mark::Unknown || events != 0 {
            return;
        }
        if has_data {
            self.mark(pmu, task);
        } else if data.is_some() {
            self.unmark(pmu, task);
            self.tasks[task].held[pmu].mark = Mark::Unknown;
        }
    }

    /// The walk of an attach begins.
    pub fn begin_attach_global(&mut self, pmu: usize) {
        self.pmus[pmu].global = Global::Attaching;
        for task in self.live().collect::<Vec<_>>() {
            self.tasks[task].held[pmu].mark = Mark::Unknown;
            self.tasks[task].held[pmu].counted = false;
        }
    }

    /// Another global event comes, and gives data to those that were born without, as far as there is memory: who they are.
    pub fn begin_mending(&mut self, pmu: usize) -> Vec<usize> {
        if let Global::On(users) = &mut self.pmus[pmu].global {
            *users += 1;
        }
        let counted = |task: &usize| self.tasks[*task].held[pmu].counted;
        let without: Vec<_> = self.live().filter(counted).collect();
        without.iter().for_each(|task| self.tasks[*task].held[pmu].mark = Mark::Unknown);
        without
    }

    /// It has come to the task, and has given it data or found no memory.
    pub fn end_mending(&mut self, pmu: usize, task: usize, has_data: bool) {
        let held = &mut self.tasks[task].held[pmu];
        if has_data {
            held.counted = false;
            self.mark(pmu, task);
        } else {
            held.mark = Mark::No;
        }
    }

    /// It has been everywhere. Who was counted at fork, after it had begun, may have been missed.
    pub fn end_attach_global(&mut self, pmu: usize) {
        self.pmus[pmu].global = Global::On(1);
        for task in self.live().collect::<Vec<_>>() {
            let Held { mark, counted, .. } = self.tasks[task].held[pmu];
            if mark == Mark::Unknown && !counted {
                self.mark(pmu, task);
            }
        }
    }

    /// The walk that takes all marks back has ended.
    pub fn end_detach_global(&mut self, pmu: usize) {
        self.pmus[pmu].global = Global::Off;
        for task in self.live().collect::<Vec<_>>() {
            let counted = std::mem::take(&mut self.tasks[task].held[pmu].counted);
            self.pmus[pmu].stayed_without += u64::from(counted);
            self.unmark(pmu, task);
        }
    }

    /// A task's end, in one step for whoever reads counts: it is out of the table, its slots are closed, and its data is among
    /// that of the ended.
    pub fn leave(&mut self, task: usize) {
        self.tasks[task].state = State::Exited;
        for pmu in 0..PMUS {
            let Held { data, counted, .. } = std::mem::take(&mut self.tasks[task].held[pmu]);
            self.pmus[pmu].stayed_without += u64::from(counted);
            if let Some(data) = data {
                self.pmus[pmu].ended.0 += self.pmus[pmu].data[data].turns;
                self.pmus[pmu].ended.1 += 1;
            }
        }
    }

    /// The rest of an exit. Until then the families read what they have of it where it is.
    pub fn leave_families(&mut self, task: usize) {
        for (pmu, family) in std::mem::take(&mut self.tasks[task].families) {
            let family = &mut self.pmus[pmu].families[family];
            let Some(place) = family.members.iter().position(|member| member.0 == task) else {
                continue;
            };
            let (_, data, base) = family.members.swap_remove(place);
            family.ended += self.pmus[pmu].data[data].turns - base;
            self.pmus[pmu].data[data].events -= 1;
        }
    }

    /// A family of one. A task that has ended meanwhile passes it on to nobody.
    pub fn begin_family(&mut self, pmu: usize, task: usize, data: usize) -> usize {
        let family = self.pmus[pmu].families.len();
        let base = self.pmus[pmu].data[data].turns;
        let members = vec![(task, data, base)];
        self.pmus[pmu].families.push(Family { members, ..Family::default() });
        if self.tasks[task].state != State::Exited {
            self.tasks[task].families.push((pmu, family));
        }
        family
    }

    pub fn join(&mut self, pmu: usize, family: usize, child: usize) {
        let data = self.take(pmu, child);
        let base = self.pmus[pmu].data[data].turns;
        self.pmus[pmu].families[family].members.push((child, data, base));
        self.tasks[child].families.push((pmu, family));
    }

    pub fn close(&mut self, pmu: usize, family: usize) {
        self.pmus[pmu].families[family].is_closed = true;
        let members = std::mem::take(&mut self.pmus[pmu].families[family].members);
        members.into_iter().for_each(|(task, data, _)| self.put(pmu, task, data));
    }

    pub fn attached(&mut self, pmu: usize, task: usize, data: usize, inherit: Inherit) -> Use {
        match inherit {
            Inherit::No => Use::Task { task, data, base: self.pmus[pmu].data[data].turns },
            Inherit::Children => Use::Family(self.begin_family(pmu, task, data)),
        }
    }

    /// What an event should read.
    pub fn read(&self, pmu: usize, of: &Use) -> u64 {
        match *of {
            Use::Task { data, base, .. } => self.pmus[pmu].data[data].turns - base,
            Use::Family(family) => {
                let family = &self.pmus[pmu].families[family];
                let turns =
                    |&(_, data, base): &(usize, usize, u64)| self.pmus[pmu].data[data].turns - base;
                family.ended + family.members.iter().map(turns).sum::<u64>()
            }
            Use::Global { base } => self.total(pmu).saturating_sub(base),
        }
    }

    /// All turns that are kept, of the living and the ended.
    pub fn total(&self, pmu: usize) -> u64 {
        let of_living = self.with_data(pmu).map(|(_, data)| self.pmus[pmu].data[data].turns);
        of_living.sum::<u64>() + self.pmus[pmu].ended.0
    }

    /// The tasks that should have data, and which.
    pub fn with_data(&self, pmu: usize) -> impl Iterator<Item = (usize, usize)> {
        self.live().filter_map(move |task| Some((task, self.tasks[task].held[pmu].data?)))
    }

    /// How many data objects there should be.
    pub fn objects(&self, pmu: usize) -> usize {
        let all = &self.pmus[pmu].data;
        let of_events = all.iter().filter(|data| data.events != 0).count();
        of_events + self.with_data(pmu).filter(|(_, data)| all[*data].events == 0).count()
    }
}
