//! The ends of the scale: PMUs without data, more PMUs and sites than there is room for, the second global event, and
//! PMUs that are registered late.

#![cfg(not(any(pertask_loom, pertask_shuttle)))]

mod common;

use common::{
    CpuWatch, Hollow, Turns, assert_live, assert_nothing_left, hook_calls, site, system_with,
};
use pertask_core::{Cpu, Error, Inherit, MAX_PMUS, MAX_SITES, PmuHandle, System};
use std::panic::Location;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

#[test]
fn pmu_without_data_attaches_without_data() {
    let (system, hollow) = system_with(Hollow);
    let cpu = Cpu::new(system);
    let mut task = cpu.fork(site(system, "task"));
    // Nothing is allocated, so nothing can be refused.
    hollow.cache().set_limit_bytes(Some(0));
    let handle = task.handle();
    let mut events = [
        hollow.attach_task(&handle, Inherit::No).unwrap(),
        hollow.attach_task(&handle, Inherit::Children).unwrap(),
        hollow.attach_global().unwrap(),
    ];
    let child = cpu.run(&mut task, || cpu.fork(site(system, "child")));
    let with_data = &hollow.cpu_data(cpu.record()).unwrap().with_data;
    assert_eq!((hook_calls(hollow), with_data.load(SeqCst)), (2, 0));
    assert_eq!((hollow.cache().live(), hollow.tasks_without_data()), (0, 0));
    assert!(hollow.snapshot(|_| panic!("no task has data")).is_empty());
    for event in &mut events {
        assert_eq!((event.reset(), event.lost()), (Ok(()), 0));
        let () = event.read();
    }
    drop(events);
    cpu.run(&mut task, || {});
    assert_eq!(hook_calls(hollow), 2);
    drop((task, child, cpu));
    assert_nothing_left(hollow);
}

#[test]
fn there_is_room_for_max_pmus() {
    let system = System::leak();
    let cpu = Cpu::new(system);
    let turns: Vec<_> = (0..MAX_PMUS).map(|_| system.register(Turns).unwrap()).collect();
    assert_eq!(system.register(Turns).err(), Some(Error::TooManyPmus));
    assert_eq!(system.register(Hollow).err(), Some(Error::TooManyPmus));
    // All of them work, the last one too.
    let events: Vec<_> = turns.iter().map(|turns| turns.attach_global().unwrap()).collect();
    let mut task = cpu.fork(site(system, "task"));
    cpu.run(&mut task, || {});
    assert!(events.iter().all(|event| event.read() == 1));
    drop((events, task, cpu));
    turns.into_iter().for_each(assert_nothing_left);
}

#[test]
fn sites_beyond_the_limit_share_one_and_are_counted() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let place = Location::caller();
    let event = turns.attach_global().unwrap();
    // One is taken by "(other)" itself.
    for number in 1..MAX_SITES {
        assert!(!cpu.site(Some(&number.to_string()), place).is_other());
    }
    assert_eq!(system.tasks_without_site(), 0);
    let shared = ["late", "later"].map(|name| cpu.site(Some(name), place));
    assert!(shared.iter().all(|site| site.is_other() && site.name() == Some("(other)")));
    assert_eq!(system.tasks_without_site(), 2);
    // Asked again, counted again: a CPU does not remember it.
    assert!(cpu.site(Some("late"), place).is_other());
    assert_eq!(system.tasks_without_site(), 3);
    // What there was is still found.
    assert_eq!(cpu.site(Some("17"), place).name(), Some("17"));
    for site in shared {
        let mut task = cpu.fork(site);
        cpu.run(&mut task, || {});
    }
    let rows = turns.snapshot(|_| {});
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].path.site().id(), rows[0].exited, rows[0].count), (0, 2, 2));
    drop((event, cpu));
    assert_nothing_left(turns);
}

#[test]
fn sites_are_told_apart_by_name_and_place() {
    let (system, _) = system_with(Turns);
    let cpu = Cpu::new(system);
    let (here, there) = (Location::caller(), place());
    let sites = [(None, here), (Some("a"), here), (Some("b"), here), (Some("a"), there)]
        .map(|(name, place)| cpu.site(name, place).id());
    assert_eq!(sites, [1, 2, 3, 4]);
    // The system's and another CPU's are the same.
    assert_eq!(system.site(Some("a"), there).id(), 4);
    assert_eq!(Cpu::new(system).site(Some("b"), here).id(), 3);
}

fn place() -> &'static Location<'static> {
    Location::caller()
}

#[test]
fn second_global_event_takes_a_reference_and_no_data() {
    let (system, turns) = system_with(Turns);
    let tasks: Vec<_> = (0..5).map(|hint| system.fork(site(system, "task"), None, hint)).collect();
    let first = turns.attach_global().unwrap();
    assert_live(turns, 5);
    turns.cache().set_limit_bytes(Some(0));
    let second = turns.attach_global().unwrap();
    assert_live(turns, 5);
    drop(first);
    assert_live(turns, 5);
    // The data is the event's that stays, whichever came first.
    drop(second);
    assert_live(turns, 0);
    drop(tasks);
    assert_nothing_left(turns);
}

#[test]
fn second_global_event_counts_from_its_reset() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let mut task = cpu.fork(site(system, "task"));
    let first = turns.attach_global().unwrap();
    cpu.run(&mut task, || {});
    let mut second = turns.attach_global().unwrap();
    assert_eq!(second.read(), 1);
    second.reset().unwrap();
    cpu.run(&mut task, || {});
    assert_eq!((first.read(), second.read()), (2, 1));
    drop(task);
    assert_eq!((first.read(), second.read()), (2, 1));
}

/// More than one chunk of what a read looks at under one lock.
#[test]
fn inherited_event_counts_a_large_family() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let mut root = cpu.fork(site(system, "family"));
    let event = turns.attach_task(&root.handle(), Inherit::Children).unwrap();
    let fork = || cpu.fork(site(system, "family"));
    let mut children: Vec<_> = cpu.run(&mut root, || (0..200).map(|_| fork()).collect());
    children.iter_mut().for_each(|child| cpu.run(child, || {}));
    assert_eq!(event.read(), 201);
    // Its places have holes, and are filled again.
    children.retain(|child| child.id().get() % 3 == 0);
    assert_eq!(event.read(), 201);
    children.extend(cpu.run(&mut root, || (0..100).map(|_| fork()).collect::<Vec<_>>()));
    children.iter_mut().for_each(|child| cpu.run(child, || {}));
    assert_eq!(event.read(), 202 + children.len() as u64);
    drop((children, root, event, cpu));
    assert_nothing_left(turns);
}

#[test]
fn inherited_event_is_not_reset() {
    let (system, turns) = system_with(Turns);
    let task = system.fork(site(system, "task"), None, 0);
    let mut event = turns.attach_task(&task.handle(), Inherit::Children).unwrap();
    assert_eq!(event.reset(), Err(Error::Inherited));
}

#[test]
fn pmu_registered_late_measures_what_runs_already() {
    let system = System::leak();
    let cpu = Cpu::new(system);
    let mut task = cpu.fork(site(system, "task"));
    let (turns, event) = cpu.run(&mut task, || {
        let turns = system.register(Turns).unwrap();
        (turns, turns.attach_global().unwrap())
    });
    cpu.run(&mut task, || {});
    assert_eq!(event.read(), 1);
    drop((event, task, cpu));
    assert_nothing_left(turns);
}

#[test]
fn pmu_is_told_of_cpus_that_come_and_go() {
    let (system, watch) = system_with(CpuWatch);
    let cpu = Cpu::new(system);
    assert_eq!(online(watch), [1]);
    thread::scope(|scope| {
        let cpu = || drop((Cpu::new(system), assert_eq!(online(watch), [1, 1])));
        scope.spawn(cpu);
    });
    assert_eq!(online(watch), [1, 0]);
    drop(cpu);
    assert_eq!(online(watch), [0, 0]);
    // The next one takes the place of the first.
    let cpu = Cpu::new(system);
    assert_eq!(online(watch), [1, 0]);
    drop(cpu);
}

/// For each CPU, how many times it is online.
fn online(watch: PmuHandle<CpuWatch>) -> Vec<i64> {
    let mut online = Vec::new();
    watch.system().for_each_cpu(|cpu| {
        online.push(watch.cpu_data(cpu).unwrap().0.load(SeqCst).cast_signed());
    });
    online
}
