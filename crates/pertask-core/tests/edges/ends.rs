//! Threads that end in a section, and that run tasks when they end.

use crate::common::{Turns, assert_live, site, system_with};
use crate::scene::Calls;
use pertask_core::{Cpu, Error, Inherit, PmuHandle, System, Task, rcu};
use std::cell::Cell;
use std::sync::{Arc, mpsc};
use std::thread;

/// On a thread that is ending, what is inside a section is refused what would wait for it.
#[test]
fn an_ending_thread_knows_that_it_is_in_a_section() {
    type Last = (PmuHandle<Turns>, Arc<Task>, mpsc::Sender<Vec<Option<Error>>>);
    struct AtTheEnd(Cell<Option<Last>>);
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            let Some((turns, task, told)) = self.0.take() else { return };
            let refused = turns.with_data(&task, |_| {
                let inner = turns.with_data(&task, |_| turns.attach_global().err()).flatten();
                vec![inner, turns.attach_global().err(), rcu::barrier().err()]
            });
            // Outside, it is not.
            let outside = turns.attach_global().err();
            told.send(refused.into_iter().flatten().chain([outside]).collect()).unwrap();
        }
    }
    thread_local! {
        // Made before the thread's first section, so destroyed after what is RCU's.
        static LAST: AtTheEnd = const { AtTheEnd(Cell::new(None)) };
    }
    let (system, turns) = system_with(Turns);
    let task = system.fork(site(system, "task"), None, 0);
    let event = turns.attach_task(&task.handle(), Inherit::No).unwrap();
    let (told, is_told) = mpsc::channel();
    let handle = task.handle();
    let thread = thread::spawn(move || {
        LAST.with(|last| last.0.set(Some((turns, Arc::clone(&handle), told))));
        turns.with_data(&handle, |_| ());
    });
    thread.join().unwrap();
    let inside = Some(Error::InsideHook);
    assert_eq!(is_told.recv().unwrap(), [inside, inside, inside, None]);
    drop((event, task));
    assert_live(turns, 0);
}

/// A task may be made, run and ended by the destructors of a thread that has given its CPU back.
#[test]
fn an_ending_thread_runs_tasks() {
    struct AtTheEnd;
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            let mut task = Cpu::with(|cpu| cpu.fork(site(System::global(), "late")));
            let ran = Cpu::with(|cpu| cpu.run(&mut task, || cpu.record().current_id()));
            assert_eq!(ran, Some(task.id()));
        }
    }
    thread_local! {
        static LAST: AtTheEnd = const { AtTheEnd };
    }
    let calls = System::global().register(Calls::default()).unwrap();
    let [came, went] = calls.pmu().get();
    thread::spawn(|| {
        LAST.with(|_| ());
        Cpu::with(|_| ());
    })
    .join()
    .unwrap();
    // It was a CPU, and for its last moments another; both have gone. (Other tests' threads come and go, too.)
    let [came, went] = [calls.pmu().get()[0] - came, calls.pmu().get()[1] - went];
    assert!(came >= 2 && went >= 1, "came {came} times, went {went} times");
    calls.unregister().unwrap();
}
