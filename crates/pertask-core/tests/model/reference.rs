//! The dull model: numbers in vectors. It knows no slot, no mark and no grace period; what an operation does is written
//! down as the documentation says it.

use crate::common::{Counts, by_edge};
use pertask_core::{Count, Edge, Inherit};
use std::collections::BTreeMap;

pub const PMUS: usize = 2;
pub const CPUS: usize = 3;
pub const SITES: usize = 3;

/// Nothing is asked to hold more than this many objects.
pub const NO_LIMIT: usize = 1000;

/// What a system should be. Tasks have numbers, in the order in which they are made.
#[derive(Default)]
pub struct Model {
    clock: u64,
    tasks: Vec<ModelTask>,
    pmus: [ModelPmu; PMUS],
    cpus: [ModelCpu; CPUS],
}

struct ModelTask {
    /// Its site, behind those of the tasks it descends from, up to where the same site stood first.
    path: Vec<usize>,
    exited: bool,
    carried: bool,
    /// Its data of each PMU, by number.
    data: [Option<usize>; PMUS],
    /// Whether it should have data of each PMU, and was born without for want of memory.
    lacks: [bool; PMUS],
    /// The families that its children join: PMU and number.
    families: Vec<(usize, usize)>,
}

struct ModelPmu {
    events: usize,
    globals: usize,
    limit: usize,
    without_data: u64,
    data: Vec<ModelData>,
    families: Vec<ModelFamily>,
    /// Tasks and counts of what has ended, by path.
    ended: BTreeMap<Vec<usize>, (u64, Counts)>,
}

#[derive(Default)]
struct ModelData {
    holders: usize,
    global: bool,
    counts: Counts,
}

#[derive(Default)]
struct ModelFamily {
    closed: bool,
    /// By task: its data, and what that counted before.
    members: BTreeMap<usize, (usize, Counts)>,
    ended: Counts,
    lost: u64,
}

#[derive(Default)]
struct ModelCpu {
    stack: Vec<usize>,
    /// Since when each PMU has known that the current task runs.
    since: [Option<u64>; PMUS],
}

/// An attached event.
#[derive(Debug)]
pub enum ModelEvent {
    Task { task: usize, data: usize, base: Counts },
    Family(usize),
    Global { base: Counts },
}

/// Why an attach is refused.
#[derive(Debug)]
pub enum Refused {
    Exited,
    /// With the limit in force, in objects.
    Limit(usize),
}

impl Model {
    pub fn tick(&mut self, time: u64) {
        self.clock += time;
    }

    pub fn limit(&mut self, pmu: usize, objects: usize) {
        self.pmus[pmu].limit = objects;
    }

    pub fn objects(&self, pmu: usize) -> usize {
        self.pmus[pmu].objects()
    }

    pub fn without_data(&self, pmu: usize) -> u64 {
        self.pmus[pmu].without_data
    }

    /// Whether more tasks lack data than could be given some.
    pub fn lacks_more_than_there_is(&self, pmu: usize) -> bool {
        let lack = self.live().filter(|task| self.tasks[*task].lacks[pmu]).count();
        lack != 0 && self.pmus[pmu].objects() + lack > self.pmus[pmu].limit
    }

    pub fn has_exited(&self, task: usize) -> bool {
        self.tasks[task].exited
    }

    pub fn path(&self, task: usize) -> &[usize] {
        &self.tasks[task].path
    }

    pub fn live(&self) -> impl Iterator<Item = usize> {
        (0..self.tasks.len()).filter(|task| !self.tasks[*task].exited)
    }

    pub fn current(&self, cpu: usize) -> Option<usize> {
        self.cpus[cpu].stack.last().copied()
    }

    pub fn carried(&self, cpu: usize) -> Option<usize> {
        self.current(cpu).filter(|task| self.tasks[*task].carried)
    }

    pub fn begin(&mut self, cpu: usize, task: usize, carried: bool) {
        self.tasks[task].carried = carried;
        self.switch(cpu, Edge::Nested, Some(task), Edge::Turn);
        self.cpus[cpu].stack.push(task);
    }

    /// What was switched in over the task and left there ends first.
    pub fn end(&mut self, cpu: usize, task: usize) {
        while let Some(left_behind) = self.current(cpu).filter(|top| *top != task) {
            self.end(cpu, left_behind);
            self.exit(left_behind);
        }
        let below = self.cpus[cpu].stack.iter().rev().nth(1).copied();
        self.switch(cpu, Edge::Turn, below, Edge::Nested);
        self.cpus[cpu].stack.pop();
    }

    fn switch(&mut self, cpu: usize, leaves: Edge, incoming: Option<usize>, comes: Edge) {
        let outgoing = self.current(cpu);
        for pmu in 0..PMUS {
            let active = self.pmus[pmu].events != 0;
            let since = self.cpus[cpu].since[pmu].take();
            if let Some(task) = outgoing.filter(|_| active || since.is_some()) {
                let time = since.map_or(0, |since| self.clock - since);
                self.count(pmu, task, |counts| {
                    counts.left[by_edge(leaves)] += 1;
                    counts.time += time;
                });
            }
            if let Some(task) = incoming.filter(|_| active) {
                self.cpus[cpu].since[pmu] = Some(self.clock);
                self.count(pmu, task, |counts| counts.came[by_edge(comes)] += 1);
            }
        }
    }

    fn count(&mut self, pmu: usize, task: usize, change: impl FnOnce(&mut Counts)) {
        if let Some(data) = self.tasks[task].data[pmu] {
            change(&mut self.pmus[pmu].data[data].counts);
        }
    }

    pub fn fork(&mut self, parent: Option<usize>, site: usize) {
        let child = self.tasks.len();
        let (data, lacks, families) = ([None; PMUS], [false; PMUS], Vec::new());
        let mut path = parent.map_or(Vec::new(), |parent| self.tasks[parent].path.clone());
        match path.iter().position(|above| *above == site) {
            Some(first) => path.truncate(first + 1),
            None => path.push(site),
        }
        self.tasks.push(ModelTask { path, exited: false, carried: false, data, lacks, families });
        for pmu in 0..PMUS {
            if self.pmus[pmu].globals != 0 && self.take(pmu, child, true).is_err() {
                self.pmus[pmu].without_data += 1;
                self.tasks[child].lacks[pmu] = true;
            }
        }
        let inherited = parent.map_or(Vec::new(), |parent| self.tasks[parent].families.clone());
        for (pmu, family) in inherited {
            if !self.pmus[pmu].families[family].closed && self.join(pmu, family, child).is_err() {
                self.pmus[pmu].families[family].lost += 1;
            }
        }
    }

    pub fn exit(&mut self, task: usize) {
        let path = self.tasks[task].path.clone();
        for pmu in 0..PMUS {
            let Some(data) = self.tasks[task].data[pmu] else { continue };
            let counts = self.pmus[pmu].data[data].counts;
            let ended = self.pmus[pmu].ended.entry(path.clone()).or_default();
            ended.0 += 1;
            ended.1.add(&counts);
            self.release_global(pmu, task);
        }
        for (pmu, family) in std::mem::take(&mut self.tasks[task].families) {
            self.leave(pmu, family, task);
        }
        self.tasks[task].data = [None; PMUS];
        self.tasks[task].exited = true;
    }

    pub fn attach_task(
        &mut self,
        pmu: usize,
        task: usize,
        inherit: Inherit,
    ) -> Result<ModelEvent, Refused> {
        let event = match inherit {
            Inherit::No => {
                let data = self.take(pmu, task, false)?;
                ModelEvent::Task { task, data, base: self.pmus[pmu].data[data].counts }
            }
            Inherit::Children => {
                let family = self.pmus[pmu].families.len();
                self.pmus[pmu].families.push(ModelFamily::default());
                self.join(pmu, family, task)?;
                ModelEvent::Family(family)
            }
        };
        self.pmus[pmu].events += 1;
        Ok(event)
    }

    pub fn attach_global(&mut self, pmu: usize) -> Result<ModelEvent, Refused> {
        if self.pmus[pmu].globals == 0 {
            let lacking = self.live().filter(|task| self.tasks[*task].data[pmu].is_none()).count();
            if lacking != 0 && self.pmus[pmu].objects() + lacking > self.pmus[pmu].limit {
                return Err(Refused::Limit(self.pmus[pmu].limit));
            }
            for task in self.live().collect::<Vec<_>>() {
                self.take(pmu, task, true)?;
            }
        } else {
            // Those that lack data get it, as far as there is memory.
            for task in self.live().filter(|task| self.tasks[*task].lacks[pmu]).collect::<Vec<_>>()
            {
                let _ = self.take(pmu, task, true);
            }
        }
        self.pmus[pmu].globals += 1;
        self.pmus[pmu].events += 1;
        Ok(ModelEvent::Global { base: Counts::default() })
    }

    pub fn detach(&mut self, pmu: usize, event: ModelEvent) {
        match event {
            ModelEvent::Task { task, data, .. } => self.release(pmu, task, data),
            ModelEvent::Family(family) => {
                self.pmus[pmu].families[family].closed = true;
                let members = std::mem::take(&mut self.pmus[pmu].families[family].members);
                members.iter().for_each(|(task, (data, _))| self.release(pmu, *task, *data));
            }
            ModelEvent::Global { .. } => {
                self.pmus[pmu].globals -= 1;
                if self.pmus[pmu].globals == 0 {
                    let live: Vec<_> = self.live().collect();
                    for task in live {
                        self.release_global(pmu, task);
                        self.tasks[task].lacks[pmu] = false;
                    }
                }
            }
        }
        self.pmus[pmu].events -= 1;
    }

    pub fn reset(&self, pmu: usize, event: &mut ModelEvent) {
        match event {
            ModelEvent::Task { data, base, .. } => *base = self.pmus[pmu].data[*data].counts,
            ModelEvent::Global { base } => *base = self.sum(pmu),
            ModelEvent::Family(_) => {}
        }
    }

    pub fn read(&self, pmu: usize, event: &ModelEvent) -> Counts {
        match event {
            ModelEvent::Task { data, base, .. } => self.pmus[pmu].data[*data].counts.since(base),
            ModelEvent::Global { base } => self.sum(pmu).since(base),
            ModelEvent::Family(family) => {
                let family = &self.pmus[pmu].families[*family];
                let mut sum = family.ended;
                for (data, base) in family.members.values() {
                    sum.add(&self.pmus[pmu].data[*data].counts.since(base));
                }
                sum
            }
        }
    }

    pub fn lost(&self, pmu: usize, event: &ModelEvent) -> u64 {
        match event {
            ModelEvent::Family(family) => self.pmus[pmu].families[*family].lost,
            ModelEvent::Task { .. } | ModelEvent::Global { .. } => 0,
        }
    }

    /// The counts of the living, by task.
    pub fn living(&self, pmu: usize) -> BTreeMap<usize, Counts> {
        let with_data = self.live().filter_map(|task| Some((task, self.tasks[task].data[pmu]?)));
        with_data.map(|(task, data)| (task, self.pmus[pmu].data[data].counts)).collect()
    }

    /// Ended, living and counts of each path that has any.
    pub fn rows(&self, pmu: usize) -> BTreeMap<Vec<usize>, (u64, u64, Counts)> {
        let ended = self.pmus[pmu].ended.iter();
        let mut rows: BTreeMap<_, _> =
            ended.map(|(path, (exited, counts))| (path.clone(), (*exited, 0, *counts))).collect();
        for (task, count) in self.living(pmu) {
            let row = rows.entry(self.tasks[task].path.clone()).or_default();
            row.1 += 1;
            row.2.add(&count);
        }
        rows
    }

    fn sum(&self, pmu: usize) -> Counts {
        let mut sum = Counts::default();
        self.rows(pmu).values().for_each(|(_, _, counts)| sum.add(counts));
        sum
    }

    /// One more holder of the task's data, which is made if there is none.
    fn take(&mut self, pmu: usize, task: usize, global: bool) -> Result<usize, Refused> {
        if self.tasks[task].exited {
            return Err(Refused::Exited);
        }
        let data = match self.tasks[task].data[pmu] {
            Some(data) => data,
            None => self.pmus[pmu].new_data()?,
        };
        self.tasks[task].data[pmu] = Some(data);
        let is_mended = std::mem::take(&mut self.tasks[task].lacks[pmu]);
        self.pmus[pmu].without_data -= u64::from(is_mended);
        // Whoever mends it lets the global event share.
        let shares = is_mended && !global;
        self.pmus[pmu].data[data].holders += 1 + usize::from(shares);
        self.pmus[pmu].data[data].global |= global || shares;
        Ok(data)
    }

    /// One holder less. Without holders there is no data.
    fn release(&mut self, pmu: usize, task: usize, data: usize) {
        self.pmus[pmu].data[data].holders -= 1;
        if self.pmus[pmu].data[data].holders == 0 {
            self.tasks[task].data[pmu] = None;
        }
    }

    fn release_global(&mut self, pmu: usize, task: usize) {
        let Some(data) = self.tasks[task].data[pmu] else { return };
        if std::mem::take(&mut self.pmus[pmu].data[data].global) {
            self.release(pmu, task, data);
        }
    }

    fn join(&mut self, pmu: usize, family: usize, task: usize) -> Result<(), Refused> {
        let data = self.take(pmu, task, false)?;
        let base = self.pmus[pmu].data[data].counts;
        self.pmus[pmu].families[family].members.insert(task, (data, base));
        self.tasks[task].families.push((pmu, family));
        Ok(())
    }

    fn leave(&mut self, pmu: usize, family: usize, task: usize) {
        let Some((data, base)) = self.pmus[pmu].families[family].members.remove(&task) else {
            return;
        };
        let counts = self.pmus[pmu].data[data].counts.since(&base);
        self.pmus[pmu].families[family].ended.add(&counts);
        self.release(pmu, task, data);
    }
}

impl Default for ModelPmu {
    fn default() -> Self {
        Self {
            events: 0,
            globals: 0,
            limit: NO_LIMIT,
            without_data: 0,
            data: Vec::new(),
            families: Vec::new(),
            ended: Default::default(),
        }
    }
}

impl ModelPmu {
    fn objects(&self) -> usize {
        self.data.iter().filter(|data| data.holders != 0).count()
    }

    /// Data without holders, which is as good as none until it is held.
    fn new_data(&mut self) -> Result<usize, Refused> {
        if self.objects() + 1 > self.limit {
            return Err(Refused::Limit(self.limit));
        }
        self.data.push(ModelData::default());
        Ok(self.data.len() - 1)
    }
}
