//! The child of a `fork(2)` in the middle of things: it has none of its parent's other threads.

use crate::common::{Turns, alone, assert_live, site, system_with};
use pertask_core::{Inherit, Pmu, Switch, rcu};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;

/// The child of a `fork(2)` has none of the threads that were in sections: it does not wait for them.
#[test]
fn a_forked_child_waits_for_no_section_of_its_parents_threads() {
    let _alone = alone();
    let (system, turns) = system_with(Turns);
    let task = system.fork(site(system, "task"), None, 0);
    let event = turns.attach_task(&task.handle(), Inherit::No).unwrap();
    let (inside, is_inside) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let handle = task.handle();
    let thread = thread::spawn(move || {
        turns.with_data(&handle, |_| {
            inside.send(()).unwrap();
            let _ = goes_on.recv();
        });
    });
    is_inside.recv().unwrap();
    // SAFETY: the child attaches, which takes no lock that a thread of this test holds, and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // The alarm ends a child that hangs.
        // SAFETY: no memory is involved.
        unsafe { libc::alarm(120) };
        let attached = turns.attach_global().is_ok();
        let is_whole = turns.with_data(&task, |_| ()).is_some();
        let freed = rcu::barrier().is_ok();
        // SAFETY: ends the child without running its parent's destructors.
        unsafe { libc::_exit(if attached && is_whole && freed { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: writes to `status`.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    go_on.send(()).unwrap();
    thread.join().unwrap();
    drop((event, task));
    assert_live(turns, 0);
    assert!(libc::WIFEXITED(status), "the child hangs in attach_global");
    assert_eq!(libc::WEXITSTATUS(status), 0, "the child could not attach");
}

/// A thread of the parent's was at a task's end when the process forked: a snapshot in the child does not wait for it.
#[test]
fn a_forked_child_waits_for_no_end_of_its_parents_threads() {
    /// Stops at an end.
    struct Stops(std::sync::Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>);
    impl Pmu for Stops {
        const NAME: &'static str = "stops";
        type Data = AtomicU64;
        type CpuData = ();
        type Count = u64;
        fn sched_in(&self, _: Switch<'_, Self>) {}
        fn sched_out(&self, _: Switch<'_, Self>) {}
        fn read(&self, turns: &AtomicU64) -> u64 {
            turns.load(SeqCst)
        }
        fn fold(&self, _: &AtomicU64, _: &AtomicU64) -> bool {
            let stop = self.0.lock().unwrap().take();
            if let Some((stopped, go_on)) = stop {
                stopped.send(()).unwrap();
                let _ = go_on.recv();
            }
            true
        }
    }
    let _alone = alone();
    let (stopped, is_stopped) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let (system, pmu) = system_with(Stops(Some((stopped, goes_on)).into()));
    let event = pmu.attach_global().unwrap();
    let task = system.fork(site(system, "ends"), None, 0);
    let thread = thread::spawn(move || drop(task));
    is_stopped.recv().unwrap();
    // SAFETY: the child reads counts, for which it takes no lock that a thread of this test holds, and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: no memory is involved. The alarm ends a child that hangs.
        unsafe { libc::alarm(120) };
        let rows = pmu.snapshot(|_| {}).len();
        // SAFETY: ends the child without running its parent's destructors.
        unsafe { libc::_exit(i32::try_from(rows).unwrap_or(1)) };
    }
    let mut status = 0;
    // SAFETY: writes to `status`.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    go_on.send(()).unwrap();
    thread.join().unwrap();
    assert!(libc::WIFEXITED(status), "the child hangs in a snapshot");
    assert_eq!(pmu.snapshot(|_| {})[0].exited, 1);
    drop(event);
    assert_live(pmu, 0);
}
