//! Runs that end in another order than they began.

use crate::common::{Turns, site};
use crate::scene::{Scene, Sum};
use pertask_core::{Cpu, System};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

/// A coroutine that is suspended in a run, and goes on and ends inside another: both tasks' turns are counted, and the other
/// goes on.
#[test]
fn runs_end_in_another_order_than_they_began() {
    use corosensei::{Coroutine, CoroutineResult};
    for attached in [false, true] {
        let scene = Scene::new();
        let events = attached.then(|| {
            (scene.hostile.attach_global().unwrap(), scene.turns.attach_global().unwrap())
        });
        let (cpu, place) = (Rc::clone(&scene.cpu), site(scene.system, "coroutine"));
        let ended = Rc::new(Cell::new(false));
        let mut coroutine = Coroutine::<(), (), ()>::new({
            let ended = Rc::clone(&ended);
            move |yielder, ()| {
                let mut task = cpu.fork(place);
                cpu.run(&mut task, || yielder.suspend(()));
                drop(task);
                ended.set(true);
            }
        });
        assert!(matches!(coroutine.resume(()), CoroutineResult::Yield(())));
        let mut other = scene.fork("other");
        scene.cpu.run(&mut other, || {
            assert!(matches!(coroutine.resume(()), CoroutineResult::Return(())));
            assert!(ended.get());
            assert_eq!(scene.cpu.record().current_id(), scene.cpu.current().map(|it| it.id()));
            assert_eq!(scene.cpu.current().unwrap().site().name(), Some("other"));
        });
        assert!(scene.cpu.current().is_none());
        assert_eq!(scene.cpu.record().disorders(), 1);
        if let Some((hostile, turns)) = &events {
            assert_eq!((hostile.read(), turns.read()), (Sum(2), 2));
        }
        drop((other, events, coroutine));
        scene.assert_nothing_left();
    }
}

/// Many coroutines, each suspended in a run of its own, ended in any order; with a task carried in between.
#[test]
fn runs_of_many_coroutines_end_in_any_order() {
    use corosensei::{Coroutine, CoroutineResult};
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0], [0, 2, 1], [2, 0, 1]] {
        let scene = Scene::new();
        let events = (scene.hostile.attach_global().unwrap(), scene.turns.attach_global().unwrap());
        let mut coroutines = [(); 3].map(|()| {
            let (cpu, place) = (Rc::clone(&scene.cpu), site(scene.system, "coroutine"));
            let mut coroutine = Coroutine::<(), (), ()>::new(move |yielder, ()| {
                let mut task = cpu.fork(place);
                cpu.run(&mut task, || yielder.suspend(()));
            });
            assert!(matches!(coroutine.resume(()), CoroutineResult::Yield(())));
            coroutine
        });
        scene.cpu.switch_in(scene.fork("carried")).unwrap();
        for at in order {
            assert!(matches!(coroutines[at].resume(()), CoroutineResult::Return(())));
        }
        // What was switched in over the last run, in its turn, may have ended with it.
        drop(scene.cpu.switch_out());
        assert!(scene.cpu.current().is_none());
        assert_eq!(events.1.read(), 4);
        drop((events, coroutines));
        scene.assert_nothing_left();
    }
}

/// A coroutine that is suspended in a run is dropped, which unwinds it, when the thread's CPU has gone.
#[test]
fn a_thread_may_end_with_a_run_suspended_on_it() {
    use corosensei::{Coroutine, CoroutineResult};
    thread_local! {
        // Made before the CPU, so destroyed after it.
        static SUSPENDED: RefCell<Option<Coroutine<(), (), ()>>> = const { RefCell::new(None) };
    }
    let turns = System::global().register(Turns).unwrap();
    let event = turns.attach_global().unwrap();
    let (before, record) = (System::global().live_tasks(), Arc::new(AtomicUsize::new(0)));
    let at = Arc::clone(&record);
    let thread = thread::spawn(move || {
        SUSPENDED.with(|_| ());
        let mut coroutine = Coroutine::new(|yielder, ()| {
            let mut task = Cpu::with(|cpu| cpu.fork(site(System::global(), "suspended")));
            Cpu::with(|cpu| cpu.run(&mut task, || yielder.suspend(())));
        });
        assert!(matches!(coroutine.resume(()), CoroutineResult::Yield(())));
        at.store(Cpu::with(|cpu| cpu.record().index() as usize), SeqCst);
        SUSPENDED.set(Some(coroutine));
    });
    thread.join().unwrap();
    assert_eq!(System::global().live_tasks(), before, "the task has ended");
    let mut disorders = 0;
    System::global().for_each_cpu(|cpu| {
        if cpu.index() as usize == record.load(SeqCst) {
            disorders = cpu.disorders();
            assert_eq!(cpu.thread(), None);
        }
    });
    assert!(disorders > 0);
    // The next thread's CPU is sound.
    let next = thread::spawn(move || {
        let mut task = Cpu::with(|cpu| cpu.fork(site(System::global(), "next")));
        Cpu::with(|cpu| cpu.run(&mut task, || {}));
    });
    next.join().unwrap();
    drop(event);
    turns.unregister().unwrap();
}
