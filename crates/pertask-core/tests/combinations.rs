//! Every combination of {task, global, both} x {one event, many} x {plain, inherited} with a task that exits before,
//! during and after the attach, and before, during and after the detach.
//!
//! In each: *Exit wins* (an attach after the exit is refused), *Final counts survive* (what an event reads is the same
//! before and after the exit), and at the end no data and no task is left.

#![cfg(not(any(pertask_loom, pertask_shuttle)))]

mod common;

use common::{Turns, assert_live, assert_nothing_left, site, system_with};
use pertask_core::{Cpu, Error, Event, Inherit, OwnedTask, PmuHandle, Site, System, Task};
use std::sync::{Arc, Barrier};
use std::thread;

/// How often a race with another thread is run.
const ROUNDS: u64 = 60;

/// Runs of the task, and of its child, that are counted in each scene.
const OWN: u64 = 3;
const CHILDS: u64 = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    Task,
    Global,
    Both,
}

#[derive(Clone, Copy)]
struct Combination {
    on: On,
    events: usize,
    inherit: Inherit,
}

macro_rules! combinations {
    ($($name:ident: $on:ident, $events:literal, $inherit:ident;)*) => {$(
        mod $name {
            use super::*;

            const THIS: Combination =
                Combination { on: On::$on, events: $events, inherit: Inherit::$inherit };

            #[test]
            fn exit_before_attach() {
                THIS.exit_before_attach();
            }

            #[test]
            fn exit_during_attach() {
                (0..ROUNDS).for_each(|round| THIS.exit_during_attach(round));
            }

            #[test]
            fn exit_between_attach_and_detach() {
                THIS.exit_between_attach_and_detach();
            }

            #[test]
            fn exit_during_detach() {
                (0..ROUNDS).for_each(|round| THIS.exit_during_detach(round));
            }

            #[test]
            fn exit_after_detach() {
                THIS.exit_after_detach();
            }
        }
    )*};
}

combinations! {
    one_task_event: Task, 1, No;
    many_task_events: Task, 4, No;
    one_inherited_event: Task, 1, Children;
    many_inherited_events: Task, 4, Children;
    one_global_event: Global, 1, No;
    many_global_events: Global, 4, No;
    one_of_both: Both, 1, No;
    many_of_both: Both, 4, No;
    one_inherited_and_one_global: Both, 1, Children;
    many_inherited_and_many_global: Both, 4, Children;
}

impl Combination {
    fn exit_before_attach(self) {
        let scene = Scene::new();
        let task = scene.task();
        let handle = task.handle();
        drop(task);
        assert!(handle.has_exited());
        let attached = self.attach(scene.turns, &handle);
        self.assert_exit_won(&attached);
        attached.iter().for_each(|event| assert!(event.reads(0)));
        assert_live(scene.turns, 0);
        drop(attached);
        scene.over();
    }

    fn exit_during_attach(self, round: u64) {
        let scene = Scene::new();
        let mut task = scene.task();
        let handle = task.handle();
        let counted = round % (OWN + 1);
        let start = Barrier::new(2);
        let attached = thread::scope(|threads| {
            threads.spawn(|| {
                let cpu = Cpu::new(scene.system);
                start.wait();
                (0..counted).for_each(|_| cpu.run(&mut task, || {}));
                drop(task);
            });
            start.wait();
            self.attach(scene.turns, &handle)
        });
        // Each has counted some of the runs, and its count is final.
        for event in &attached {
            let count = event.count().unwrap_or(0);
            assert!(count <= counted);
            assert!(event.reads(count));
        }
        self.assert_exit_won(&self.attach(scene.turns, &handle));
        drop(attached);
        scene.over();
    }

    fn exit_between_attach_and_detach(self) {
        let scene = Scene::new();
        let mut task = scene.task();
        let handle = task.handle();
        let attached = self.attach(scene.turns, &handle);
        let child = scene.run_family(&mut task);
        self.assert_counted(&attached);
        drop(child);
        self.assert_counted(&attached);
        drop(task);
        self.assert_counted(&attached);
        self.assert_exit_won(&self.attach(scene.turns, &handle));
        drop(attached);
        scene.over();
    }

    fn exit_during_detach(self, round: u64) {
        let scene = Scene::new();
        let mut task = scene.task();
        let handle = task.handle();
        let mut attached = self.attach(scene.turns, &handle);
        if round % 2 == 1 {
            attached.reverse();
        }
        let child = scene.run_family(&mut task);
        let start = Barrier::new(2);
        thread::scope(|threads| {
            threads.spawn(|| {
                start.wait();
                drop(task);
                drop(child);
            });
            start.wait();
            while let Some(event) = attached.pop() {
                assert!(event.reads(self.expected(&event)), "{event:?}");
            }
        });
        scene.over();
    }

    fn exit_after_detach(self) {
        let scene = Scene::new();
        let mut task = scene.task();
        let handle = task.handle();
        let mut attached = self.attach(scene.turns, &handle);
        let child = scene.run_family(&mut task);
        // Those that stay go on counting.
        let mut more = 0;
        while attached.pop().is_some() {
            scene.cpu.run(&mut task, || {});
            more += 1;
            for event in &attached {
                assert!(event.reads(self.expected(event) + more), "{event:?}");
            }
        }
        // Nobody is attached, but nobody has ended either.
        assert_live(scene.turns, 0);
        scene.cpu.run(&mut task, || {});
        let late = scene.turns.attach_task(&handle, Inherit::No).unwrap();
        assert_eq!(late.read(), 0);
        drop((late, task, child));
        scene.over();
    }

    /// Task events and global ones in turn.
    fn attach(self, turns: PmuHandle<Turns>, task: &Arc<Task>) -> Vec<Attached> {
        let mut attached = Vec::new();
        for _ in 0..self.events {
            if self.on != On::Global {
                attached.push(Attached::Task(turns.attach_task(task, self.inherit)));
            }
            if self.on != On::Task {
                attached.push(Attached::Global(turns.attach_global().unwrap()));
            }
        }
        attached
    }

    fn assert_exit_won(self, attached: &[Attached]) {
        for event in attached {
            if let Attached::Task(event) = event {
                assert_eq!(event.as_ref().err(), Some(&Error::TaskExited));
            }
        }
    }

    fn assert_counted(self, attached: &[Attached]) {
        attached.iter().for_each(|event| assert!(event.reads(self.expected(event)), "{event:?}"));
    }

    /// What an event reads after [`Scene::run_family`].
    fn expected(self, event: &Attached) -> u64 {
        match (event, self.inherit) {
            (Attached::Task(_), Inherit::No) => OWN,
            (Attached::Task(_), Inherit::Children) | (Attached::Global(_), _) => OWN + CHILDS,
        }
    }
}

#[derive(Debug)]
enum Attached {
    Task(Result<Event<Turns>, Error>),
    Global(Event<Turns>),
}

impl Attached {
    fn count(&self) -> Option<u64> {
        match self {
            Self::Task(event) => event.as_ref().ok().map(Event::read),
            Self::Global(event) => Some(event.read()),
        }
    }

    /// Whether it reads the one count; so does an event that was refused.
    fn reads(&self, expected: u64) -> bool {
        self.count().is_none_or(|count| count == expected)
    }
}

/// A system with one PMU and one CPU.
struct Scene {
    system: &'static System,
    turns: PmuHandle<Turns>,
    cpu: Cpu,
    site: &'static Site,
}

impl Scene {
    fn new() -> Self {
        let (system, turns) = system_with(Turns);
        Self { system, turns, cpu: Cpu::new(system), site: site(system, "scene") }
    }

    /// A task that has run before anybody was attached.
    fn task(&self) -> OwnedTask {
        let mut task = self.cpu.fork(self.site);
        self.cpu.run(&mut task, || {});
        task
    }

    /// `OWN` runs of the task, which in one of them makes a child that has `CHILDS` runs.
    fn run_family(&self, task: &mut OwnedTask) -> OwnedTask {
        let mut child = self.cpu.run(task, || self.cpu.fork(self.site));
        (1..OWN).for_each(|_| self.cpu.run(task, || {}));
        (0..CHILDS).for_each(|_| self.cpu.run(&mut child, || {}));
        child
    }

    fn over(self) {
        drop(self.cpu);
        assert_nothing_left(self.turns);
    }
}
