//! What should not be done, and is harmless: things of one system used with another, tasks and events forgotten,
//! attaches from inside a hook's section.

#![cfg(not(any(pertask_loom, pertask_shuttle)))]

mod common;

use common::{Hollow, Turns, assert_live, assert_nothing_left, site, system_with};
use pertask_core::{Cpu, Edge, Error, Inherit, Pmu, PmuHandle, Switch, Target, rcu};
use std::mem::forget;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

#[test]
fn task_of_another_system_runs_unseen() {
    let (here, turns) = system_with(Turns);
    let (there, others) = system_with(Turns);
    let cpu = Cpu::new(here);
    let mut stranger = there.fork(site(there, "stranger"), None, 0);
    let events = [turns.attach_global().unwrap(), others.attach_global().unwrap()];
    let seen = cpu.run(&mut stranger, || cpu.record().current_id());
    assert_eq!(seen, None);
    let stranger = cpu.switch_in(stranger).unwrap_err();
    assert!(cpu.switch_out().is_none());
    assert!(!stranger.has_exited());
    assert_eq!(events.each_ref().map(|event| event.read()), [0, 0]);
    drop((stranger, events, cpu));
    assert_nothing_left(turns);
    assert_nothing_left(others);
}

#[test]
fn task_of_another_system_nested_in_a_run() {
    let (here, turns) = system_with(Turns);
    let (there, others) = system_with(Turns);
    let (cpu, other_cpu) = (Cpu::new(here), Cpu::new(there));
    let mut task = cpu.fork(site(here, "task"));
    let mut stranger = other_cpu.fork(site(there, "stranger"));
    let events = [turns.attach_global().unwrap(), others.attach_global().unwrap()];
    cpu.run(&mut task, || {
        let id = cpu.record().current_id();
        cpu.run(&mut stranger, || assert_eq!(cpu.record().current_id(), id));
        // Each on its own CPU is no misuse.
        other_cpu.run(&mut stranger, || assert_eq!(cpu.record().current_id(), id));
    });
    assert_eq!(events.each_ref().map(|event| event.read()), [1, 1]);
    drop((events, task, stranger, cpu, other_cpu));
    assert_nothing_left(turns);
    assert_nothing_left(others);
}

#[test]
fn site_of_another_system_stands_for_its_like_here() {
    let (here, turns) = system_with(Turns);
    // The other system has more PMUs, of other types: its sites' tallies are not ours.
    let (there, _) = system_with(Hollow);
    let others = there.register(Turns).unwrap();
    let foreign = site(there, "foreign");
    let cpu = Cpu::new(here);
    let event = turns.attach_global().unwrap();
    let mut task = cpu.fork(foreign);
    assert!(!std::ptr::eq(task.site(), foreign));
    assert_eq!(task.site().name(), Some("foreign"));
    assert_eq!(task.site().location(), foreign.location());
    cpu.run(&mut task, || {});
    drop(task);
    let rows = turns.snapshot(|_| {});
    assert_eq!(
        (rows[0].path.site().name(), rows[0].exited, rows[0].count),
        (Some("foreign"), 1, 1)
    );
    assert!(others.snapshot(|_| {}).is_empty());
    drop((event, cpu));
    assert_nothing_left(turns);
}

#[test]
fn other_of_another_system_is_no_other_here() {
    let (here, _) = system_with(Turns);
    let (there, _) = system_with(Turns);
    let other = (0..pertask_core::MAX_SITES)
        .map(|number| site(there, &number.to_string()))
        .find(|site| site.is_other())
        .unwrap();
    let task = here.fork(other, None, 0);
    assert!(!task.site().is_other());
    assert_eq!(here.tasks_without_site(), 0);
}

#[test]
fn event_for_a_task_of_another_system_is_refused() {
    let (_, turns) = system_with(Turns);
    let (there, _) = system_with(Hollow);
    let stranger = there.fork(site(there, "stranger"), None, 0);
    for inherit in [Inherit::No, Inherit::Children] {
        let handle = stranger.handle();
        assert_eq!(turns.attach_task(&handle, inherit).err(), Some(Error::OtherSystem));
        let target = Target::Task(&handle, inherit);
        assert_eq!(turns.attach(target).err(), Some(Error::OtherSystem));
    }
    assert_live(turns, 0);
}

#[test]
fn parent_and_cpu_of_another_system_are_none() {
    let (here, turns) = system_with(Turns);
    let (there, _) = system_with(Hollow);
    let stranger = there.fork(site(there, "stranger"), None, 0);
    let task = here.fork(site(here, "task"), Some(&stranger), 0);
    assert_eq!(task.parent(), None);
    let cpu = Cpu::new(there);
    assert!(turns.cpu_data(cpu.record()).is_none());
}

#[test]
fn forgotten_task_stays_in_the_table() {
    let (system, turns) = system_with(Turns);
    let task = system.fork(site(system, "forgotten"), None, 0);
    let handle = task.handle();
    let event = turns.attach_task(&handle, Inherit::Children).unwrap();
    forget(task);
    assert!(!handle.has_exited());
    assert!(system.find_task(handle.id()).is_some());
    let whole = turns.attach_global().unwrap();
    assert_live(turns, 1);
    drop((event, whole));
    assert_live(turns, 0);
    assert_eq!(system.live_tasks(), 1);
}

#[test]
fn task_forgotten_while_it_is_carried() {
    let (system, turns) = system_with(Turns);
    let event = turns.attach_global().unwrap();
    let cpu = Cpu::new(system);
    cpu.switch_in(cpu.fork(site(system, "carried"))).unwrap();
    let id = cpu.record().current_id();
    assert_eq!(system.live_tasks(), 1);
    forget(cpu);
    // The task runs for ever, as far as anybody can see.
    assert!(system.find_task(id.unwrap()).is_some());
    assert_eq!(event.read(), 1);
}

#[test]
fn forgotten_task_event_leaks_its_data_and_nothing_else() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let mut task = cpu.fork(site(system, "task"));
    forget(turns.attach_task(&task.handle(), Inherit::No).unwrap());
    let second = turns.attach_task(&task.handle(), Inherit::No).unwrap();
    cpu.run(&mut task, || {});
    assert_eq!(second.read(), 1);
    drop((second, task));
    assert_live(turns, 1);
    // The next task is not concerned.
    let mut task = cpu.fork(site(system, "task"));
    let event = turns.attach_task(&task.handle(), Inherit::No).unwrap();
    cpu.run(&mut task, || {});
    assert_eq!(event.read(), 1);
    drop((event, task));
    assert_live(turns, 1);
}

#[test]
fn forgotten_global_event_stays_attached() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    forget(turns.attach_global().unwrap());
    let mut task = cpu.fork(site(system, "task"));
    let event = turns.attach_global().unwrap();
    cpu.run(&mut task, || {});
    assert_eq!(event.read(), 1);
    drop(event);
    assert_live(turns, 1);
    // Its tasks end as they would.
    drop(task);
    assert_live(turns, 0);
}

#[test]
fn forgotten_inherited_event_goes_on_and_lets_its_tasks_go() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let mut task = cpu.fork(site(system, "task"));
    forget(turns.attach_task(&task.handle(), Inherit::Children).unwrap());
    let child = cpu.run(&mut task, || cpu.fork(site(system, "child")));
    assert_live(turns, 2);
    drop((task, child));
    assert_live(turns, 0);
}

/// A PMU whose hook does what a hook must not do, and writes down how it went.
struct Unruly(OnceLock<PmuHandle<Unruly>>);

#[derive(Default)]
struct Refusals {
    attach: AtomicU64,
    barrier: AtomicU64,
}

impl Pmu for Unruly {
    const NAME: &'static str = "unruly";
    type Data = AtomicU64;
    type CpuData = Refusals;
    type Count = ();

    fn sched_in(&self, switch: Switch<'_, Self>) {
        let Some(myself) = self.0.get() else { return };
        if switch.edge == Edge::Turn && myself.attach_global().is_err_and(is_inside_hook) {
            switch.cpu_data.attach.fetch_add(1, SeqCst);
        }
        if rcu::barrier().is_err_and(is_inside_hook) {
            switch.cpu_data.barrier.fetch_add(1, SeqCst);
        }
    }

    fn sched_out(&self, _: Switch<'_, Self>) {}

    fn read(&self, _: &AtomicU64) {}
}

fn is_inside_hook(error: Error) -> bool {
    error == Error::InsideHook
}

#[test]
fn global_attach_and_barrier_in_a_hook_are_refused() {
    let (system, unruly) = system_with(Unruly(OnceLock::new()));
    let cpu = Cpu::new(system);
    let mut task = cpu.fork(site(system, "task"));
    let event = unruly.attach_task(&task.handle(), Inherit::No).unwrap();
    let _ = unruly.pmu().0.set(unruly);
    cpu.run(&mut task, || {});
    let refusals = unruly.cpu_data(cpu.record()).unwrap();
    assert_eq!((refusals.attach.load(SeqCst), refusals.barrier.load(SeqCst)), (1, 1));
    drop((event, task));
    assert_live(unruly, 0);
}
