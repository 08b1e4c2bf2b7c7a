//! The system and its model, side by side: what plays operations on both and compares them.
//!
//! `tests/model.rs` and the fuzzer's target `protocol` each have their own way to come by operations.

use crate::common::{Clock, Probe, assert_nothing_left, site, system_with};
use crate::reference::{CPUS, Model, ModelEvent, NO_LIMIT, PMUS, Refused, SITES};
use pertask_core::{
    Cpu, Error, Event, Inherit, OwnedTask, Pmu, PmuHandle, Site, SpawnPath, System, Task,
};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// One operation. Numbers pick one of what there is, whatever that is then.
#[derive(Clone, Debug)]
pub enum Op {
    /// A task without a parent.
    ForkRoot {
        site: usize,
    },
    /// A child of what runs on the CPU.
    ForkHere {
        cpu: usize,
        site: usize,
    },
    /// A child of any task, which may have ended.
    ForkFrom {
        parent: usize,
        site: usize,
    },
    /// Runs a task; the operations that follow happen inside.
    Run {
        cpu: usize,
        task: usize,
    },
    /// Ends the innermost run.
    End,
    SwitchIn {
        cpu: usize,
        task: usize,
    },
    SwitchOut {
        cpu: usize,
    },
    AttachTask {
        pmu: usize,
        task: usize,
        inherit: Inherit,
    },
    AttachGlobal {
        pmu: usize,
    },
    Detach {
        event: usize,
    },
    Reset {
        event: usize,
    },
    Exit {
        task: usize,
    },
    /// From here on the PMU may have that many objects.
    Limit {
        pmu: usize,
        objects: usize,
    },
    Tick {
        time: u64,
    },
}

/// The system and its model, side by side. A task has the same index in both.
pub struct Pair {
    system: &'static System,
    pmus: [PmuHandle<Probe>; PMUS],
    clock: Clock,
    sites: [&'static Site; SITES],
    cpus: Vec<Rc<Cpu>>,
    tasks: Vec<Arc<Task>>,
    idle: Vec<OwnedTask>,
    events: Vec<(usize, Event<Probe>, ModelEvent)>,
    model: Model,
}

impl Pair {
    /// Plays `ops` on a new system and a new model, and ends what is left. Returns the system, of which nothing is used any
    /// more.
    pub fn play_all(ops: &[Op]) -> &'static System {
        let mut pair = Self::new();
        let system = pair.system;
        let mut ops = ops.iter();
        while ops.len() != 0 {
            pair.play(&mut ops);
        }
        pair.end_all();
        system
    }

    fn new() -> Self {
        let clock = Clock::default();
        let (system, first) = system_with(Probe(clock.clone()));
        let second = system.register(Probe(clock.clone())).unwrap();
        Self {
            system,
            pmus: [first, second],
            clock,
            sites: ["a", "b", "c"].map(|name| site(system, name)),
            cpus: (0..CPUS).map(|_| Rc::new(Cpu::new(system))).collect(),
            tasks: Vec::new(),
            idle: Vec::new(),
            events: Vec::new(),
            model: Model::default(),
        }
    }

    /// Plays operations until the innermost run ends.
    fn play(&mut self, ops: &mut std::slice::Iter<'_, Op>) {
        while let Some(op) = ops.next() {
            match *op {
                Op::End => return,
                Op::Run { cpu, task } => self.run(cpu, task, ops),
                _ => self.apply(op),
            }
            self.compare();
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::End | Op::Run { .. } => unreachable!("played"),
            Op::ForkRoot { site } => self.fork_root(site),
            Op::ForkHere { cpu, site } => self.fork_here(cpu, site),
            Op::ForkFrom { parent, site } => self.fork_from(parent, site),
            Op::SwitchIn { cpu, task } => self.switch_in(cpu, task),
            Op::SwitchOut { cpu } => self.switch_out(cpu),
            Op::AttachTask { pmu, task, inherit } => self.attach_task(pmu, task, inherit),
            Op::AttachGlobal { pmu } => self.attach_global(pmu),
            Op::Detach { event } => self.detach(event),
            Op::Reset { event } => self.reset(event),
            Op::Exit { task } => self.exit(task),
            Op::Limit { pmu, objects } => self.limit(pmu, objects),
            Op::Tick { time } => {
                self.clock.advance(time);
                self.model.tick(time);
            }
        }
    }

    fn run(&mut self, cpu: usize, task: usize, ops: &mut std::slice::Iter<'_, Op>) {
        let Some(mut task) = self.take_idle(task) else { return };
        let index = index(&self.tasks, &task);
        let real = Rc::clone(&self.cpus[cpu]);
        self.model.begin(cpu, index, false);
        real.run(&mut task, || {
            self.compare();
            self.play(ops);
        });
        self.model.end(cpu, index);
        self.idle.push(task);
    }

    fn switch_in(&mut self, cpu: usize, task: usize) {
        let Some(task) = self.take_idle(task) else { return };
        self.model.begin(cpu, index(&self.tasks, &task), true);
        self.cpus[cpu].switch_in(task).unwrap();
    }

    fn switch_out(&mut self, cpu: usize) {
        let task = self.cpus[cpu].switch_out();
        assert_eq!(task.as_ref().map(|task| index(&self.tasks, task)), self.model.carried(cpu));
        if let Some(task) = task {
            self.model.end(cpu, index(&self.tasks, &task));
            self.idle.push(task);
        }
    }

    fn fork_root(&mut self, site: usize) {
        let task = self.system.fork(self.sites[site], None, self.tasks.len());
        self.forked(task, None, site);
    }

    fn fork_here(&mut self, cpu: usize, site: usize) {
        let task = self.cpus[cpu].fork(self.sites[site]);
        self.forked(task, self.model.current(cpu), site);
    }

    fn fork_from(&mut self, parent: usize, site: usize) {
        let Some(parent) = pick(parent, self.tasks.len()) else { return };
        let task = self.system.fork(self.sites[site], Some(&self.tasks[parent]), parent);
        self.forked(task, Some(parent), site);
    }

    fn forked(&mut self, task: OwnedTask, parent: Option<usize>, site: usize) {
        assert_eq!(task.parent(), parent.map(|parent| self.tasks[parent].id()));
        assert!(self.tasks.iter().all(|other| other.id() != task.id()));
        self.model.fork(parent, site);
        self.tasks.push(task.handle());
        self.idle.push(task);
    }

    fn exit(&mut self, task: usize) {
        let Some(task) = self.take_idle(task) else { return };
        self.model.exit(index(&self.tasks, &task));
        drop(task);
    }

    fn attach_task(&mut self, pmu: usize, task: usize, inherit: Inherit) {
        let Some(task) = pick(task, self.tasks.len()) else { return };
        let real = self.pmus[pmu].attach_task(&self.tasks[task], inherit);
        let model = self.model.attach_task(pmu, task, inherit);
        self.attached(pmu, real, model);
    }

    fn attach_global(&mut self, pmu: usize) {
        // Which of several tasks get data, where there is memory for some, is nowhere said.
        if self.model.lacks_more_than_there_is(pmu) {
            self.limit(pmu, NO_LIMIT);
        }
        let real = self.pmus[pmu].attach_global();
        let model = self.model.attach_global(pmu);
        self.attached(pmu, real, model);
    }

    fn attached(
        &mut self,
        pmu: usize,
        real: Result<Event<Probe>, Error>,
        model: Result<ModelEvent, Refused>,
    ) {
        match (real, model) {
            (Ok(real), Ok(model)) => self.events.push((pmu, real, model)),
            (Err(Error::TaskExited), Err(Refused::Exited)) => {}
            (Err(Error::CacheLimit { pmu: name, limit_bytes }), Err(Refused::Limit(objects))) => {
                assert_eq!(name, Probe::NAME);
                assert_eq!(limit_bytes, objects * self.pmus[pmu].cache().object_bytes());
            }
            (real, model) => panic!("{real:?}, but the model says {model:?}"),
        }
    }

    fn detach(&mut self, event: usize) {
        let Some(event) = pick(event, self.events.len()) else { return };
        let (pmu, real, model) = self.events.swap_remove(event);
        drop(real);
        self.model.detach(pmu, model);
    }

    fn reset(&mut self, event: usize) {
        let Some(event) = pick(event, self.events.len()) else { return };
        let (pmu, real, model) = &mut self.events[event];
        let expected = match model {
            ModelEvent::Family(_) => Err(Error::Inherited),
            ModelEvent::Task { .. } | ModelEvent::Global { .. } => Ok(()),
        };
        assert_eq!(real.reset(), expected);
        self.model.reset(*pmu, model);
    }

    fn limit(&mut self, pmu: usize, objects: usize) {
        let cache = self.pmus[pmu].cache();
        cache.set_limit_bytes(Some(objects * cache.object_bytes()));
        self.model.limit(pmu, objects);
    }

    fn compare(&self) {
        // What was released counts against the limit until it is freed, and the model frees at once.
        pertask_core::rcu::barrier().unwrap();
        self.compare_tasks();
        (0..PMUS).for_each(|pmu| self.compare_pmu(pmu));
        for (pmu, real, model) in &self.events {
            assert_eq!(real.read(), self.model.read(*pmu, model), "{real:?}");
            assert_eq!(real.lost(), self.model.lost(*pmu, model), "{real:?}");
        }
    }

    fn compare_tasks(&self) {
        assert_eq!(self.system.live_tasks(), self.model.live().count());
        for (task, real) in self.tasks.iter().enumerate() {
            assert_eq!(real.has_exited(), self.model.has_exited(task));
            assert_eq!(self.sites_of(real.path()), self.model.path(task));
        }
        for (cpu, real) in self.cpus.iter().enumerate() {
            let expected = self.model.current(cpu).map(|task| self.tasks[task].id());
            assert_eq!(real.record().current_id(), expected);
            assert_eq!(real.current().map(|task| task.id()), expected);
        }
    }

    fn compare_pmu(&self, pmu: usize) {
        let real = self.pmus[pmu];
        assert_eq!(real.cache().live(), self.model.objects(pmu));
        assert_eq!(real.tasks_without_data(), self.model.without_data(pmu));
        let mut living = BTreeMap::new();
        let rows = real.snapshot(|live| {
            let twice = living.insert(index(&self.tasks, live.task), live.count);
            assert_eq!(twice, None, "{:?} was seen twice", live.task);
        });
        assert_eq!(living, self.model.living(pmu));
        let by_path = rows.iter().map(|row| (self.sites_of(row.path), row));
        let by_path: BTreeMap<_, _> =
            by_path.map(|(path, row)| (path, (row.exited, row.live, row.count))).collect();
        assert_eq!(by_path.len(), rows.len(), "two rows of one path");
        assert_eq!(by_path, self.model.rows(pmu));
    }

    /// The model's numbers of a path's sites, the root's first.
    fn sites_of(&self, path: &'static SpawnPath) -> Vec<usize> {
        let upwards = std::iter::successors(Some(path), |path| path.parent());
        let number = |path: &SpawnPath| {
            self.sites.iter().position(|site| std::ptr::eq(*site, path.site())).unwrap()
        };
        let mut sites: Vec<_> = upwards.map(number).collect();
        sites.reverse();
        sites
    }

    /// CPUs end with what is left on them, then the idle tasks end, and the events outlive all.
    fn end_all(mut self) {
        while let Some(cpu) = self.cpus.pop() {
            drop(cpu);
            while let Some(task) = self.model.current(self.cpus.len()) {
                self.model.end(self.cpus.len(), task);
                self.model.exit(task);
            }
            self.compare();
        }
        while !self.idle.is_empty() {
            self.exit(0);
        }
        self.compare();
        while !self.events.is_empty() {
            self.detach(0);
        }
        self.compare();
        self.pmus.iter().for_each(|pmu| assert_nothing_left(*pmu));
    }

    fn take_idle(&mut self, task: usize) -> Option<OwnedTask> {
        pick(task, self.idle.len()).map(|task| self.idle.swap_remove(task))
    }
}

fn pick(any: usize, len: usize) -> Option<usize> {
    (len != 0).then(|| any % len)
}

/// The model's number of a task: tasks are numbered in the order in which they are made.
fn index(tasks: &[Arc<Task>], task: impl AsTask) -> usize {
    tasks.iter().position(|other| other.id() == task.task().id()).unwrap()
}

trait AsTask {
    fn task(&self) -> &Task;
}

impl AsTask for &Task {
    fn task(&self) -> &Task {
        self
    }
}

impl AsTask for &OwnedTask {
    fn task(&self) -> &Task {
        self
    }
}

impl AsTask for &Arc<Task> {
    fn task(&self) -> &Task {
        self
    }
}
