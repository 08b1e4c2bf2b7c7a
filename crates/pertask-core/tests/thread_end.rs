//! The end of a thread, where destructors of thread-locals use the core before and after it has given up what it keeps for
//! the thread: all goes on as anywhere else, and no other thread notices.

#![cfg(not(any(pertask_loom, pertask_shuttle)))]

mod common;

use common::{Hollow, Turns, alone, assert_live, assert_nothing_left, site, system_with};
use pertask_core::rcu::{self, RcuCell};
use pertask_core::{Cpu, Error, Inherit, OwnedTask, Pmu, PmuHandle, Switch, System};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;

/// Threads that come and go, one after the other; and threads that come all at once.
const THREADS: usize = if cfg!(miri) { 10 } else { 50 };

/// When a destructor runs: those of a thread's thread-locals run in the opposite order of their first uses.
#[derive(Clone, Copy, Debug)]
enum When {
    /// Before the core gives up what it keeps for the thread.
    Early,
    /// Afterwards.
    Late,
}

const BOTH: [When; 2] = [When::Early, When::Late];

thread_local! {
    static AT_END: AtEnd = const { AtEnd(RefCell::new(None)) };
}

/// Calls a closure when the thread ends.
struct AtEnd(RefCell<Option<Box<dyn FnOnce()>>>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        if let Some(last) = self.0.take() {
            last();
        }
    }
}

/// Does `last` as the last thing of a thread that has used the core. Returns when the thread has ended.
fn at_the_end<R: Send + 'static>(when: When, last: impl FnOnce() -> R + Send + 'static) -> R {
    let (tell, told) = channel();
    // A panic in a destructor of a thread-local aborts the program.
    let last = move || tell.send(catch_unwind(AssertUnwindSafe(last))).unwrap();
    let set = move || AT_END.with(|at_end| *at_end.0.borrow_mut() = Some(Box::new(last)));
    let use_the_core = || {
        assert_eq!(RcuCell::<u32>::default().with(|value| value.copied()), None);
    };
    let thread = thread::spawn(move || match when {
        When::Early => {
            use_the_core();
            set();
        }
        When::Late => {
            set();
            use_the_core();
        }
    });
    thread.join().unwrap();
    told.recv().unwrap().unwrap_or_else(|panic| resume_unwind(panic))
}

fn fork(system: &'static System) -> OwnedTask {
    system.fork(site(system, "forked"), None, 0)
}

#[test]
fn looks_at_data_in_a_section_and_in_one_inside_it() {
    let _alone = alone();
    for when in BOTH {
        let (system, turns) = system_with(Turns);
        let task = fork(system);
        let event = turns.attach_task(task.handle_ref(), Inherit::No).unwrap();
        let cell = RcuCell::default();
        cell.replace(Some(Box::new(5))).unwrap();
        let handle = task.handle();
        let sum = at_the_end(when, move || {
            turns.with_data(&handle, |outer| {
                let value = cell.with(|value| value.copied()).unwrap();
                turns.with_data(&handle, |inner| inner.fetch_add(value, SeqCst));
                // What was inside has not ended what is outside.
                outer.fetch_add(1, SeqCst);
                outer.load(SeqCst)
            })
        });
        assert_eq!((sum, event.read()), (Some(6), 6), "{when:?}");
        drop((event, task));
        assert_nothing_left(turns);
    }
}

#[test]
fn attaches_and_drops_events() {
    let _alone = alone();
    for when in BOTH {
        let (system, turns) = system_with(Turns);
        let task = fork(system);
        let dropped = [
            turns.attach_task(task.handle_ref(), Inherit::No),
            turns.attach_task(task.handle_ref(), Inherit::Children),
            turns.attach_global(),
        ];
        let handle = task.handle();
        let attached = at_the_end(when, move || {
            dropped.into_iter().for_each(|event| drop(event.unwrap()));
            // There is no data any more: it is made anew.
            let attach = |inherit| turns.attach_task(&handle, inherit).unwrap();
            let events = [Inherit::No, Inherit::Children].map(attach);
            (events, turns.attach_global().unwrap(), rcu::barrier())
        });
        let (events, global, barrier) = attached;
        assert_eq!(barrier, Ok(()));
        assert_live(turns, 1);
        let (cpu, mut task) = (Cpu::new(system), task);
        cpu.run(&mut task, || {});
        assert_eq!((events.each_ref().map(|event| event.read()), global.read()), ([1, 1], 1));
        drop((events, global));
        assert_live(turns, 0);
        drop((task, cpu));
        assert_nothing_left(turns);
    }
}

/// A PMU whose hooks look into a cell: sections inside the switch's.
struct Looks(RcuCell<u64>);

impl Pmu for Looks {
    const NAME: &'static str = "looks";
    type Data = AtomicU64;
    type CpuData = ();
    type Count = u64;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        let amount = self.0.with(|amount| amount.copied().unwrap_or_default());
        if let Some(data) = switch.data {
            data.fetch_add(amount, SeqCst);
        }
    }

    fn sched_out(&self, switch: Switch<'_, Self>) {
        self.sched_in(switch);
    }

    fn read(&self, data: &AtomicU64) -> u64 {
        data.load(SeqCst)
    }
}

#[test]
fn makes_runs_and_ends_tasks() {
    let _alone = alone();
    for when in BOTH {
        let (system, looks) = system_with(Looks(RcuCell::default()));
        looks.pmu().0.replace(Some(Box::new(10))).unwrap();
        let mut task = fork(system);
        let event = looks.attach_task(task.handle_ref(), Inherit::Children).unwrap();
        let task = at_the_end(when, move || {
            let cpu = Cpu::new(system);
            let mut child = cpu.run(&mut task, || cpu.fork(site(system, "child")));
            cpu.run(&mut child, || {});
            cpu.switch_in(child).unwrap();
            // The child is in, and ends with the CPU.
            drop(cpu);
            task
        });
        assert_eq!(event.read(), 60, "{when:?}");
        assert_eq!(system.live_tasks(), 1);
        drop((event, task));
        assert_live(looks, 0);
    }
}

/// What would wait for this thread's own section is refused.
#[test]
fn what_waits_for_sections_is_refused_in_its_own() {
    let _alone = alone();
    for when in BOTH {
        let (system, turns) = system_with(Turns);
        let task = fork(system);
        let event = turns.attach_task(task.handle_ref(), Inherit::No).unwrap();
        let handle = task.handle();
        let refused = at_the_end(when, move || {
            let wait = |_: &_| [turns.attach_global().err(), rcu::barrier().err()];
            (turns.with_data(&handle, wait), turns.attach_global().err(), rcu::barrier().err())
        });
        let inside = Some([Some(Error::InsideHook); 2]);
        assert_eq!(refused, (inside, None, None), "{when:?}");
        drop((event, task));
        assert_nothing_left(turns);
    }
}

/// A section on a thread that is ending is that thread's, and of no other, however many come meanwhile.
#[test]
fn others_are_not_taken_for_being_in_its_sections() {
    let _alone = alone();
    // Each time more threads than there have ever been at once, so that every record which is free is claimed by one.
    for (when, others) in [(When::Late, THREADS), (When::Early, 2 * THREADS)] {
        let (system, turns) = system_with(Turns);
        let task = fork(system);
        let event = turns.attach_task(task.handle_ref(), Inherit::No).unwrap();
        let others: Vec<_> = (0..others).map(|_| system_with(Hollow).1).collect();
        let handle = task.handle();
        let refused = at_the_end(when, move || {
            // Not the second section, either.
            turns.with_data(&handle, |_| ());
            turns.with_data(&handle, |_| all_attach(others))
        });
        assert_eq!(refused, Some(vec![]), "{when:?}");
        drop((event, task));
        assert_nothing_left(turns);
    }
}

/// So many threads at once attach globally, each one PMU, which keeps no data: that waits for nobody, and is refused to a thread
/// that is in a section, and to no other. Returns the refusals.
fn all_attach(pmus: Vec<PmuHandle<Hollow>>) -> Vec<Error> {
    let together = Arc::new(Barrier::new(pmus.len()));
    let attach = |pmu: PmuHandle<Hollow>| {
        let together = Arc::clone(&together);
        thread::spawn(move || {
            // A first section, and nobody ends before all have had theirs.
            drop(fork(pmu.system()));
            together.wait();
            let refused = pmu.attach_global().err();
            together.wait();
            refused
        })
    };
    let threads: Vec<_> = pmus.into_iter().map(attach).collect();
    threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
}

/// What a section has been given stays, while others come and go and free what they may.
#[test]
fn data_in_its_section_outlives_the_event() {
    let _alone = alone();
    for when in BOTH {
        let (system, turns) = system_with(Turns);
        let task = fork(system);
        let event = turns.attach_task(task.handle_ref(), Inherit::No).unwrap();
        let handle = task.handle();
        let live = at_the_end(when, move || {
            turns.with_data(&handle, |_| {
                thread::spawn(|| drop(event)).join().unwrap();
                (0..THREADS).for_each(|_| thread::spawn(free_what_may_be_freed).join().unwrap());
                turns.cache().live()
            })
        });
        assert_eq!(live, Some(1), "{when:?}");
        assert_live(turns, 0);
        drop(task);
        assert_nothing_left(turns);
    }
}

/// Releases more data than a thread keeps before it tries to free.
fn free_what_may_be_freed() {
    let (system, turns) = system_with(Turns);
    let task = fork(system);
    for _ in 0..300 {
        drop(turns.attach_task(task.handle_ref(), Inherit::No).unwrap());
    }
}

/// Threads come and go, and each leaves released data, and no more than that.
#[test]
fn what_threads_release_at_their_end_is_freed() {
    let _alone = alone();
    for when in BOTH {
        let (system, turns) = system_with(Turns);
        for _ in 0..THREADS {
            let task = fork(system);
            at_the_end(when, move || {
                let event = turns.attach_task(task.handle_ref(), Inherit::Children).unwrap();
                turns.with_data(&task, |_| drop(event));
                drop(task);
            });
        }
        assert_nothing_left(turns);
    }
}
