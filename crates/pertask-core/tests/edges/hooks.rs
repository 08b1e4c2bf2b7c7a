//! Hooks that call the core.

use crate::common::{Turns, assert_live, site, system_with};
use crate::scene::{Calls, Hostile, Scene, Sum, in_hook, panics};
use pertask_core::{Cpu, Error, Inherit, PmuHandle, rcu};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

/// Calls `act` in the hook of each side of a switch from one task to another, with a scene of its own.
fn in_each_hook(act: impl Fn(&Cpu, PmuHandle<Hostile>) + Clone + 'static) {
    for side in 0..4 {
        let scene = Scene::new();
        let events = (scene.hostile.attach_global().unwrap(), scene.turns.attach_global().unwrap());
        let (mut outer, mut inner) = (scene.fork("outer"), scene.fork("inner"));
        let (called, is_called) = (Rc::new(Cell::new(false)), Cell::new(false));
        let arm = || {
            let (act, cpu, hostile) = (act.clone(), Rc::clone(&scene.cpu), scene.hostile);
            let called = Rc::clone(&called);
            in_hook(move || {
                act(&cpu, hostile);
                called.set(true);
            });
        };
        // Coming to an idle CPU; coming over another task; giving back; leaving.
        if side == 0 {
            arm();
        }
        scene.cpu.run(&mut outer, || {
            if side == 1 {
                arm();
            }
            scene.cpu.run(&mut inner, || {
                if side == 2 {
                    arm();
                }
            });
            if side == 3 {
                arm();
            }
        });
        is_called.set(called.get());
        assert!(is_called.get(), "the hook of side {side} was not called");
        assert!(scene.cpu.current().is_none());
        drop((outer, inner, events));
        scene.assert_nothing_left();
    }
}

#[test]
fn a_hook_that_runs_a_task_runs_it_unseen() {
    in_each_hook(|cpu, hostile| {
        let now = cpu.record().current_id();
        let mut other = cpu.fork(site(hostile.system(), "in a hook"));
        let seen = cpu.run(&mut other, || cpu.record().current_id());
        assert_eq!(seen, now);
        assert_eq!(hostile.with_data(&other, |turns| turns.load(SeqCst)), Some(0));
        cpu.run_aside(&mut other, || ());
        cpu.exit(other);
    });
}

#[test]
fn a_hook_that_switches_is_refused() {
    in_each_hook(|cpu, hostile| {
        assert!(cpu.switch_out().is_none());
        let other = cpu.fork(site(hostile.system(), "in a hook"));
        drop(cpu.switch_in(other).expect_err("refused"));
        assert!(cpu.switch_out().is_none());
    });
}

#[test]
fn a_hook_may_make_and_end_tasks_and_look_at_them() {
    in_each_hook(|cpu, hostile| {
        let mut task = cpu.fork(site(hostile.system(), "in a hook"));
        task.set_tag(7);
        cpu.set_tag(cpu.tag());
        hostile.system().for_each_task(|task| assert!(!task.has_exited()));
        assert!(hostile.system().find_task(task.id()).is_some());
        hostile
            .system()
            .for_each_cpu(|cpu| assert!(cpu.index() < 8 && cpu.current_id() != Some(task.id())));
        drop(cpu.current());
        assert_eq!(hostile.with_data(&task, |_| ()), Some(()));
        cpu.run(&mut task, || {});
        drop(task);
    });
}

#[test]
fn a_hook_may_attach_to_a_task_and_not_to_all() {
    in_each_hook(|cpu, hostile| {
        let task = cpu.fork(site(hostile.system(), "in a hook"));
        for inherit in [Inherit::No, Inherit::Children] {
            let event = hostile.attach_task(&task.handle(), inherit).unwrap();
            assert_eq!(event.read(), Sum(0));
        }
        // There is one already: this takes a reference.
        drop(hostile.attach_global().unwrap());
        let (system, other) = system_with(Turns);
        assert_eq!(other.attach_global().err(), Some(Error::InsideHook));
        assert_eq!(rcu::barrier(), Err(Error::InsideHook));
        assert_eq!(other.unregister(), Err(Error::InsideHook));
        let cell = rcu::RcuCell::default();
        assert!(cell.replace(Some(Box::new(1))).is_ok_and(|old| old.is_none()));
        assert_eq!(cell.replace(None), Err(Error::InsideHook));
        drop(Cpu::new(system));
        drop(hostile.snapshot(|_| {}));
    });
}

#[test]
fn a_hook_may_register_a_pmu_and_let_it_go_later() {
    in_each_hook(|_, hostile| {
        let late = hostile.system().register(Calls::default()).unwrap();
        assert_eq!(late.pmu().get(), [1, 0]);
    });
}

/// The last global event goes inside a hook: no wait for that hook, and no data is left.
#[test]
fn the_last_global_event_may_go_in_a_hook() {
    let scene = Scene::new();
    let own = scene.turns.attach_global().unwrap();
    let mut task = scene.fork("runs");
    let event = scene.hostile.attach_global().unwrap();
    let bystanders: Vec<_> = (0..3).map(|_| scene.fork("bystander")).collect();
    in_hook(move || drop(event));
    scene.cpu.run(&mut task, || {});
    assert_live(scene.hostile, 0);
    // Another may come, and finds all tasks.
    let event = scene.hostile.attach_global().unwrap();
    assert_live(scene.hostile, 4);
    drop((event, own, task, bystanders));
    scene.assert_nothing_left();
}

/// A run of a coroutine's ends inside a hook, and its task with it, while the hooks of a switch from that task are called.
#[cfg(not(miri))]
#[test]
fn a_run_that_ends_in_a_hook_leaves_nothing_freed_in_the_chain() {
    use corosensei::{Coroutine, CoroutineResult};
    // Below the switch: the task that is switched out, and the one that is given back to.
    for deep in [false, true] {
        let scene = Scene::new();
        let events = (scene.hostile.attach_global().unwrap(), scene.turns.attach_global().unwrap());
        let (cpu, place) = (Rc::clone(&scene.cpu), site(scene.system, "coroutine"));
        let mut coroutine = Coroutine::<(), (), ()>::new(move |yielder, ()| {
            let mut task = cpu.fork(place);
            cpu.run(&mut task, || yielder.suspend(()));
        });
        assert!(matches!(coroutine.resume(()), CoroutineResult::Yield(())));
        let mut over = scene.fork("over");
        let resume = move || assert!(matches!(coroutine.resume(()), CoroutineResult::Return(())));
        if deep {
            scene.cpu.run(&mut over, || in_hook(resume));
        } else {
            in_hook(resume);
            scene.cpu.run(&mut over, || {});
        }
        assert!(scene.cpu.current().is_none());
        assert!(scene.cpu.record().disorders() > 0);
        drop((over, events.0));
        // The PMU that checks its hooks has been told of a task that had ended.
        drop(events.1);
        assert_eq!(scene.system.live_tasks(), 0);
        assert_live(scene.hostile, 0);
        assert_live(scene.turns, 0);
    }
}

/// Code of a PMU's reads the same counts again: refused by a panic, where it would wait for itself.
#[test]
fn a_read_inside_a_read_is_refused() {
    let scene = Scene::new();
    let event = scene.hostile.attach_global().unwrap();
    let mut task = scene.fork("runs");
    let family = scene.hostile.attach_task(&task.handle(), Inherit::Children).unwrap();
    scene.cpu.run(&mut task, || {});
    let mut refused = 0;
    scene.hostile.snapshot(|_| {
        refused += usize::from(panics(|| scene.hostile.snapshot(|_| {})));
        refused += usize::from(panics(|| event.read()));
        // This one is another's.
        assert_eq!(family.read(), Sum(1));
    });
    assert_eq!(refused, 2);
    assert_eq!(event.read(), Sum(1));
    drop((family, event, task));
    scene.assert_nothing_left();
}
