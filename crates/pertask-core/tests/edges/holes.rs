//! Tasks that were born without data, where there was no memory for it.

use crate::common::{Turns, assert_live, assert_nothing_left, site, system_with};
use pertask_core::{Cpu, Inherit};

/// A task that found no memory at its fork has data once somebody attaches to it, and keeps it: no count falls.
#[test]
fn an_event_of_its_own_mends_a_task_born_without_data() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let global = turns.attach_global().unwrap();
    turns.cache().set_limit_bytes(Some(0));
    let mut task = cpu.fork(site(system, "born without"));
    turns.cache().set_limit_bytes(None);
    assert_eq!(turns.tasks_without_data(), 1);
    let own = turns.attach_task(&task.handle(), Inherit::No).unwrap();
    assert_eq!(turns.tasks_without_data(), 0, "it has data now");
    cpu.run(&mut task, || {});
    assert_eq!(global.read(), 1);
    drop(own);
    assert_eq!(global.read(), 1, "a global count fell");
    cpu.run(&mut task, || {});
    assert_eq!(global.read(), 2);
    drop((task, global, cpu));
    assert_nothing_left(turns);
}

#[test]
fn a_later_global_event_mends_what_the_first_could_not() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let first = turns.attach_global().unwrap();
    turns.cache().set_limit_bytes(Some(turns.cache().object_bytes()));
    let mut tasks = [0; 3].map(|_| cpu.fork(site(system, "task")));
    assert_eq!(turns.tasks_without_data(), 2);
    // Still no memory: the event is attached, and what is missing is still counted.
    drop(turns.attach_global().unwrap());
    assert_eq!(turns.tasks_without_data(), 2);
    turns.cache().set_limit_bytes(None);
    let second = turns.attach_global().unwrap();
    assert_eq!(turns.tasks_without_data(), 0);
    tasks.iter_mut().for_each(|task| cpu.run(task, || {}));
    assert_eq!((first.read(), second.read()), (3, 3));
    drop((tasks, first, second, cpu));
    assert_nothing_left(turns);
}

/// Who stays without data is counted for good.
#[test]
fn who_stayed_without_data_stays_counted() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let global = turns.attach_global().unwrap();
    turns.cache().set_limit_bytes(Some(0));
    let (ends, stays) = (cpu.fork(site(system, "ends")), cpu.fork(site(system, "stays")));
    turns.cache().set_limit_bytes(None);
    let handle = ends.handle();
    drop(ends);
    assert_eq!(turns.tasks_without_data(), 2);
    drop(handle);
    drop(global);
    // The next session finds no hole.
    let next = turns.attach_global().unwrap();
    assert_live(turns, 1);
    assert_eq!(turns.tasks_without_data(), 2);
    drop((stays, next, cpu));
    assert_nothing_left(turns);
}
