//! Polls that end in another order than they began, as where coroutines are suspended in the middle of a poll.

use crate::support::{alone, check_ns, row, run, spin};
use corosensei::{Coroutine, CoroutineResult};
use pertask::{Session, TaskExt};
use std::cell::Cell;
use std::rc::Rc;
use std::thread;

/// A coroutine that polls a task once, and is suspended so often in the middle of that poll, each time after a spin.
fn polls_and_stops(
    name: &'static str,
    stops: u32,
    milliseconds: u64,
    used: Rc<Cell<u64>>,
) -> Coroutine<(), (), ()> {
    Coroutine::new(move |yielder: &corosensei::Yielder<(), ()>, ()| {
        let work = async {
            for _ in 0..stops {
                used.set(used.get() + spin(milliseconds));
                yielder.suspend(());
            }
        };
        run(work.task(name));
    })
}

/// The first of two begins first and ends first. What is known to be a task's is that task's; the rest is said to be in one of them.
#[test]
fn time_of_which_the_task_is_not_known_is_told_apart() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let used = [(); 2].map(|()| Rc::new(Cell::new(0)));
    let mut first = polls_and_stops("first", 6, 5, Rc::clone(&used[0]));
    let mut second = polls_and_stops("second", 10, 3, Rc::clone(&used[1]));
    let (mut first_ends, mut second_ends) = (false, false);
    while !(first_ends && second_ends) {
        first_ends = first_ends || matches!(first.resume(()), CoroutineResult::Return(()));
        second_ends = second_ends || matches!(second.resume(()), CoroutineResult::Return(()));
    }
    let report = session.stop();
    assert_eq!(report.lost.polls_out_of_order, 1, "{:?}", report.lost);
    let [of_first, of_second] = ["first", "second"].map(|name| row(&report, name).usage.cpu_ns);
    let used = used.map(|used| used.get());
    // Until the second began it was certainly the first that ran, and after the first had ended, the second.
    check_ns("first", of_first, 5_000_000);
    assert!(of_second >= 3 * 3_000_000 - 1_000_000, "{report:#?}");
    assert!(of_second <= used[1] + 3_000_000, "{report:#?}");
    assert!(report.unknown_cpu_ns > 0);
    let all = of_first + of_second + report.unknown_cpu_ns;
    check_ns("all", all, used[0] + used[1]);
    assert_eq!(report.tasks_cpu_ns, of_first + of_second);
    let shown = report.to_string();
    assert!(
        shown.contains("task unknown (polls ended out of order or on another thread)"),
        "{shown}"
    );
    let parts =
        report.tasks_cpu_ns + report.unknown_cpu_ns + report.workers_cpu_ns + report.other_cpu_ns;
    let off = parts.abs_diff(report.process_cpu_ns);
    assert!(off < 5_000_000, "{off} ns off: {report:#?}");
}

struct Moved<T>(T);

// SAFETY: one thread uses it after the other.
#[allow(unsafe_code, reason = "what runtimes of stackful coroutines do")]
unsafe impl<T> Send for Moved<T> {}

impl<T> Moved<T> {
    fn get(self) -> T {
        self.0
    }
}

/// A coroutine is moved to another thread in the middle of a poll, and the poll ends there.
#[test]
fn a_poll_that_ends_on_another_thread_is_counted() {
    if !cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))) {
        return;
    }
    let _alone = alone();
    let session = Session::start().unwrap();
    let used = Rc::new(Cell::new(0));
    let mut moved = polls_and_stops("moved", 2, 20, Rc::clone(&used));
    assert!(matches!(moved.resume(()), CoroutineResult::Yield(())));
    let here = used.get();
    let outside = spin(20);
    let moved = Moved(moved);
    thread::scope(|scope| {
        let elsewhere = || {
            let mut moved = moved.get();
            while !matches!(moved.resume(()), CoroutineResult::Return(())) {}
        };
        scope.spawn(elsewhere).join().unwrap();
    });
    let between = session.snapshot();
    assert_eq!(between.lost.polls_out_of_order, 1, "{:?}", between.lost);
    assert!(between.tasks_cpu_ns < 5_000_000, "nobody knows whose it is: {between:#?}");
    run(async { spin(10) }.task("next"));
    let report = session.stop();
    check_ns("next", row(&report, "next").usage.cpu_ns, 10_000_000);
    assert!(row(&report, "moved").usage.cpu_ns < 5_000_000, "{report:#?}");
    assert_eq!(row(&report, "moved").tasks_live, 0);
    check_ns("unknown", report.unknown_cpu_ns, here + outside);
    let parts =
        report.tasks_cpu_ns + report.unknown_cpu_ns + report.workers_cpu_ns + report.other_cpu_ns;
    let off = parts.abs_diff(report.process_cpu_ns);
    assert!(off < 5_000_000, "{off} ns off: {report:#?}");
}
