//! `pertask::tokio`: what tokio's own functions promise holds, and every task is seen from its birth to its end.
//!
//! Needs the feature `tokio`, without which this file has no tests:
//!
//! ```text
//! cargo test -p pertask --features tokio --test tokio_api
//! ```
#![cfg(feature = "tokio")]

mod support;

use std::{
    future::{pending, ready},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
        mpsc,
    },
    task::Poll,
    thread,
    time::Duration,
};

use pertask::{Report, Session, SiteReport, Task, TaskExt, core::TaskId, tokio::JoinSet};
use support::{
    StopOnDrop, Truth, alone, check_ns, current_task, ended_row, live_tasks_at, ms, poll_once, row,
    row_at, spin, thread_number, thread_row, wait_until, wait_until_reaped, yield_once,
};
use tokio::{
    runtime::{Builder, Runtime},
    task::{AbortHandle, JoinError, JoinHandle, LocalSet},
};

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn multi_thread(workers: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(workers).enable_time().build().unwrap()
}

/// The row of the tasks that were made in a line of this file.
#[track_caller]
fn here(report: &Report, line: u32) -> &SiteReport {
    row_at(report, file!(), line)
}

/// Live tasks that were made in a line of this file.
fn live_here(line: u32) -> Vec<Arc<Task>> {
    live_tasks_at(file!(), line)
}

/// A panic without the hook, which would spend more CPU time on a backtrace than the test does.
fn quiet_panic(message: &'static str) {
    resume_unwind(Box::new(message));
}

/// Calls a closure when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The types are tokio's own, the output arrives, and the row is that of the caller's line.
#[test]
fn spawn_functions_are_tokios_and_known_by_the_callers_line() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let runtime = current_thread();
    let local = LocalSet::new();
    let lines = local.block_on(&runtime, async {
        let (spawned, at_spawn): (JoinHandle<u32>, u32) =
            (pertask::tokio::spawn(async { 1 }), line!());
        assert_eq!(spawned.await.unwrap(), 1);

        let rc = Rc::new(2);
        let (local, at_local): (JoinHandle<Rc<u32>>, u32) =
            (pertask::tokio::spawn_local(async { rc }), line!());
        assert_eq!(*local.await.unwrap(), 2);

        let (blocking, at_blocking): (JoinHandle<u32>, u32) =
            (pertask::tokio::spawn_blocking(|| 3), line!());
        assert_eq!(blocking.await.unwrap(), 3);
        [at_spawn, at_local, at_blocking]
    });
    let report = session.stop();
    for line in lines {
        let row = here(&report, line);
        assert_eq!((row.tasks_started, row.tasks_live, row.usage.polls), (1, 0, 1), "{row:?}");
    }
}

#[test]
fn join_set_methods_are_tokios_and_known_by_the_callers_line() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let runtime = current_thread();
    let handle = runtime.handle();
    let local = LocalSet::new();
    let mut set: JoinSet<u32> = JoinSet::default();
    // Outside the runtime, what names a place to run.
    let mut spawned: Vec<(AbortHandle, u32)> = vec![
        (set.spawn_on(async { 1 }, handle), line!()),
        (set.spawn_local_on(async { *Rc::new(2) }, &local), line!()),
        (set.spawn_blocking_on(|| 3, handle), line!()),
    ];
    let results: Vec<u32> = local.block_on(&runtime, async {
        spawned.push((set.spawn(async { 4 }), line!()));
        spawned.push((set.spawn_local(async { *Rc::new(5) }), line!()));
        spawned.push((set.spawn_blocking(|| 6), line!()));
        assert_eq!(set.len(), 6);
        let mut results = Vec::new();
        while let Some(joined) = set.join_next().await {
            let joined: Result<u32, JoinError> = joined;
            results.push(joined.unwrap());
        }
        results.sort_unstable();
        results
    });
    assert_eq!(results, [1, 2, 3, 4, 5, 6]);
    assert!(set.is_empty());
    let report = session.stop();
    for (abort, line) in spawned {
        assert!(abort.is_finished());
        let row = here(&report, line);
        assert_eq!((row.tasks_started, row.tasks_live, row.usage.polls), (1, 0, 1), "{row:?}");
    }
}

/// tokio's own `JoinSet` is behind it, by reference and by value.
#[test]
fn a_join_set_is_tokios_in_every_other_way() {
    let _alone = alone();
    let runtime = current_thread();
    runtime.block_on(async {
        let mut set = JoinSet::new();
        let line = line!() + 2;
        for n in 0..4_u32 {
            set.spawn(async move { if n < 2 { n } else { pending().await } });
        }
        let tokios: &mut tokio::task::JoinSet<u32> = &mut set;
        assert_eq!(tokios.len(), 4);
        for _ in 0..2 {
            assert!(set.join_next().await.unwrap().unwrap() < 2);
        }
        assert!(set.try_join_next().is_none());
        assert_eq!(live_here(line).len(), 2);
        set.abort_all();
        while let Some(joined) = set.join_next_with_id().await {
            assert!(joined.unwrap_err().is_cancelled());
        }
        assert!(live_here(line).is_empty());

        let line = line!() + 1;
        let abort = set.spawn(pending());
        set.shutdown().await;
        assert!(abort.is_finished() && live_here(line).is_empty());

        let line = line!() + 1;
        let abort = set.spawn(pending());
        drop(set);
        wait_for(&abort).await;
        assert!(live_here(line).is_empty());

        let mut set = JoinSet::new();
        (0..3).for_each(|n| drop(set.spawn(async move { n })));
        let tokios: tokio::task::JoinSet<i32> = set.into_inner();
        assert_eq!(tokios.join_all().await.iter().sum::<i32>(), 3);

        let mut set = JoinSet::new();
        let line = line!() + 1;
        let detached = set.spawn(yield_once());
        set.detach_all();
        assert_eq!((set.len(), live_here(line).len()), (0, 1));
        wait_for(&detached).await;
        assert!(live_here(line).is_empty());
    });
}

async fn wait_for(task: &AbortHandle) {
    while !task.is_finished() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn work_is_counted_under_the_callers_line() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let runtime = multi_thread(2);
    let (spawned, in_set) = (Truth::default(), Truth::default());
    let lines = runtime.block_on(async {
        let (handle, spawn_line) = (pertask::tokio::spawn(spawned.work(5, 4)), line!());
        let mut set = JoinSet::new();
        let set_line = line!() + 2;
        for _ in 0..3 {
            set.spawn(in_set.work(2, 4));
        }
        handle.await.unwrap();
        while set.join_next().await.is_some() {}
        [spawn_line, set_line]
    });
    let report = session.stop();
    spawned.check_row(here(&report, lines[0]));
    in_set.check_row(here(&report, lines[1]));
    assert_eq!(here(&report, lines[1]).tasks_started, 3);
}

#[test]
fn a_task_spawned_by_a_task_is_its_child() {
    let _alone = alone();
    let parent_of_current = || current_task().unwrap().parent();
    let runtime = multi_thread(1);
    let parent = async move {
        let id = current_task().map(|task| task.id());
        let parents = [
            pertask::tokio::spawn(async move { parent_of_current() }).await.unwrap(),
            pertask::tokio::spawn_blocking(parent_of_current).await.unwrap(),
            in_a_set(async move { parent_of_current() }).await,
        ];
        (id, parents)
    };
    let (id, parents): (Option<TaskId>, _) =
        runtime.block_on(async { pertask::tokio::spawn(parent).await.unwrap() });
    assert!(id.is_some());
    assert_eq!(parents, [id; 3]);
}

async fn in_a_set<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let mut set = JoinSet::new();
    set.spawn(future);
    set.join_next().await.unwrap().unwrap()
}

#[test]
fn a_panic_is_a_join_error_and_the_task_ends() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let runtime = current_thread();
    let lines = runtime.block_on(async {
        let panics = async {
            spin(5);
            yield_once().await;
            spin(5);
            quiet_panic("as arranged");
        };
        let (spawned, at_spawn) = (pertask::tokio::spawn(panics), line!());
        let error: JoinError = spawned.await.unwrap_err();
        assert!(error.is_panic() && !error.is_cancelled());
        assert_eq!(error.into_panic().downcast_ref(), Some(&"as arranged"));

        let panics = || quiet_panic("blocking");
        let (blocking, at_blocking) = (pertask::tokio::spawn_blocking(panics), line!());
        let error = blocking.await.unwrap_err();
        assert_eq!(error.into_panic().downcast_ref(), Some(&"blocking"));

        let mut set = JoinSet::new();
        let at_set = line!() + 1;
        set.spawn(async { quiet_panic("in the set") });
        let error = set.join_next().await.unwrap().unwrap_err();
        assert_eq!(error.into_panic().downcast_ref(), Some(&"in the set"));
        assert!(current_task().is_none(), "switched out");
        [at_spawn, at_blocking, at_set]
    });
    let report = session.stop();
    for line in lines {
        assert!(live_here(line).is_empty());
        assert_eq!(here(&report, line).tasks_live, 0);
    }
    check_ns("until the panic", here(&report, lines[0]).usage.cpu_ns, ms(10));
}

#[test]
fn aborted_before_the_first_poll() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let runtime = current_thread();
    let line = runtime.block_on(async {
        let never = async { unreachable!("it is aborted first") };
        let (spawned, line): (JoinHandle<()>, u32) = (pertask::tokio::spawn(never), line!());
        assert_eq!(live_here(line).len(), 1);
        spawned.abort();
        assert!(spawned.await.unwrap_err().is_cancelled());
        line
    });
    assert!(live_here(line).is_empty());
    let report = session.stop();
    let row = here(&report, line);
    assert_eq!((row.tasks_started, row.tasks_live), (1, 0));
}

#[test]
fn aborted_between_two_polls() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let runtime = current_thread();
    let line = runtime.block_on(async {
        let (tell, told) = mpsc::channel();
        let waits = async move {
            let task = current_task().map(|task| task.id());
            let _guard = OnDrop(move || {
                spin(10);
                tell.send((task, current_task().map(|task| task.id()))).unwrap();
            });
            spin(5);
            pending::<()>().await;
        };
        let (spawned, line) = (pertask::tokio::spawn(waits), line!());
        tokio::task::yield_now().await;
        assert_eq!(live_here(line).len(), 1);
        spawned.abort();
        assert!(spawned.await.unwrap_err().is_cancelled());
        let (task, in_drop) = told.recv().unwrap();
        assert!(task.is_some());
        assert_eq!(in_drop, task, "its destructors are part of it");
        line
    });
    assert!(live_here(line).is_empty());
    // The destructor's time is the task's.
    check_ns("aborted", here(&session.stop(), line).usage.cpu_ns, ms(15));
}

/// A future that loses a race, or runs out of time, is dropped in the middle.
#[test]
fn dropped_in_the_middle() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let runtime = current_thread();
    runtime.block_on(async {
        let loses = async {
            spin(5);
            pending::<u32>().await
        };
        let winner = tokio::select! {
            biased;
            lost = loses.task("loses a select") => lost,
            won = ready(7) => won,
        };
        assert_eq!(winner, 7);

        let late = async {
            spin(5);
            pending::<()>().await;
        };
        tokio::time::timeout(Duration::from_millis(1), late.task("runs out of time"))
            .await
            .unwrap_err();
    });
    let report = session.stop();
    for name in ["loses a select", "runs out of time"] {
        let row = row(&report, name);
        assert_eq!((row.tasks_started, row.tasks_live), (1, 0), "{name}");
        check_ns(name, row.usage.cpu_ns, ms(5));
        assert!(support::live_tasks(name).is_empty());
    }
}

/// Aborted, dropped or timed out: none of it is a poll.
#[test]
fn an_abort_is_not_a_poll() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let runtime = current_thread();
    let lines = runtime.block_on(async {
        let (at_once, at_once_line) = (pertask::tokio::spawn(pending::<()>()), line!());
        at_once.abort();
        assert!(at_once.await.unwrap_err().is_cancelled());
        let (later, later_line) = (pertask::tokio::spawn(pending::<()>()), line!());
        tokio::task::yield_now().await;
        later.abort();
        assert!(later.await.unwrap_err().is_cancelled());
        [at_once_line, later_line]
    });
    let report = session.stop();
    assert_eq!(lines.map(|line| here(&report, line).usage.polls), [0, 1]);
}

/// A runtime that never ran.
#[test]
fn never_polled() {
    let _alone = alone();
    let runtime = current_thread();
    let never = async { unreachable!("nobody runs it") };
    let (spawned, line): (JoinHandle<()>, u32) = {
        let _inside = runtime.enter();
        (pertask::tokio::spawn(never), line!())
    };
    assert_eq!(live_here(line).len(), 1);
    drop(runtime);
    assert!(live_here(line).is_empty());
    assert!(support::run(spawned).unwrap_err().is_cancelled());
}

#[test]
fn a_runtime_that_is_shut_down_ends_its_tasks() {
    let _alone = alone();
    for runtime in [current_thread(), multi_thread(2)] {
        let session = Session::start().unwrap();
        let (handles, line) = runtime.block_on(async {
            let polled = Arc::new(AtomicU32::new(0));
            let spawn = |_| {
                let polled = Arc::clone(&polled);
                let for_ever = async move {
                    polled.fetch_add(1, SeqCst);
                    pending::<()>().await;
                };
                (pertask::tokio::spawn(for_ever), line!())
            };
            let (handles, lines): (Vec<_>, Vec<_>) = (0..8).map(spawn).unzip();
            while polled.load(SeqCst) < 8 {
                tokio::task::yield_now().await;
            }
            (handles, lines[0])
        });
        assert_eq!(live_here(line).len(), 8);
        drop(runtime);
        assert!(live_here(line).is_empty());
        assert_eq!(here(&session.stop(), line).tasks_live, 0);
        for handle in handles {
            assert!(support::run(handle).unwrap_err().is_cancelled());
        }
    }
}

/// The CPU time of a worker that has ended is in the report, in the row of the ended threads.
#[test]
fn workers_that_have_ended_are_in_the_report() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let runtime = multi_thread(1);
    let truth = Truth::default();
    let number = Arc::new(AtomicU32::new(0));
    let (worker, work) = (Arc::clone(&number), truth.work(10, 4));
    let (handle, line) = runtime.block_on(async {
        let work = async move {
            worker.store(thread_number(), SeqCst);
            work.await;
        };
        (pertask::tokio::spawn(work), line!())
    });
    runtime.block_on(handle).unwrap();
    let number = number.load(SeqCst);
    let before = session.snapshot();
    let live = thread_row(&before, number);
    assert!(live.worker);
    check_ns("alive", live.tasks_cpu_ns, truth.cpu_ns());

    drop(runtime);
    wait_until_reaped(number);
    let report = session.stop();
    truth.check_row(here(&report, line));
    let ended = ended_row(&report, true).expect("a worker has ended");
    check_ns("ended", ended.tasks_cpu_ns, truth.cpu_ns());
    // What it did before it was a worker may be in the row of the others.
    assert!(ended.cpu_ns + ms(2) >= live.cpu_ns, "{ended:?} {live:?}");
    assert!(!report.threads.iter().any(|thread| thread.tid == Some(number)));
}

#[test]
fn a_blocking_closure_is_counted_on_its_thread() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let runtime = current_thread();
    let truth = Truth::default();
    let (number, line) = runtime.block_on(async {
        let truth = truth.clone();
        let blocks = move || {
            truth.spin(40);
            thread_number()
        };
        let (blocking, line) = (pertask::tokio::spawn_blocking(blocks), line!());
        (blocking.await.unwrap(), line)
    });
    assert_ne!(number, thread_number());
    let report = session.stop();
    let row = here(&report, line);
    assert_eq!((row.tasks_started, row.tasks_live, row.usage.polls), (1, 0, 1));
    check_ns("the closure", row.usage.cpu_ns, truth.cpu_ns());
    assert!(row.usage.max_poll_ns >= row.usage.cpu_ns - ms(1), "{row:?}");
    let thread = thread_row(&report, number);
    assert!(thread.worker, "{thread:?}");
    check_ns("its thread", thread.tasks_cpu_ns, truth.cpu_ns());
}

/// A closure that is given to a runtime which has been shut down is dropped.
#[test]
fn a_blocking_closure_after_the_shutdown_never_runs() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let runtime = current_thread();
    let handle = runtime.handle().clone();
    drop(runtime);
    let _inside = handle.enter();
    let never = || unreachable!("the runtime is gone");
    let (never, line): (JoinHandle<()>, u32) = (pertask::tokio::spawn_blocking(never), line!());
    assert!(support::run(never).unwrap_err().is_cancelled());
    assert!(live_here(line).is_empty());
    let report = session.stop();
    let row = here(&report, line);
    assert_eq!(
        (row.tasks_started, row.tasks_live, row.usage.polls, row.usage.cpu_ns),
        (1, 0, 0, 0)
    );
}

/// The one blocking thread is busy; what waits behind it is aborted, and ends unrun.
#[test]
fn a_blocking_closure_that_is_aborted_in_the_queue_never_runs() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    let _inside = runtime.enter();
    let go_on = StopOnDrop::default();
    let wait = go_on.flag();
    let (started, has_started) = mpsc::channel();
    let first = pertask::tokio::spawn_blocking(move || {
        started.send(()).unwrap();
        while !wait.load(SeqCst) {
            thread::yield_now();
        }
        7
    });
    has_started.recv().unwrap();
    let never = || unreachable!("it is aborted first");
    let (never, line): (JoinHandle<()>, u32) = (pertask::tokio::spawn_blocking(never), line!());
    assert_eq!(live_here(line).len(), 1);
    never.abort();
    drop(go_on);
    assert!(support::run(never).unwrap_err().is_cancelled());
    assert_eq!(support::run(first).unwrap(), 7);
    wait_until("the closure is dropped", || live_here(line).is_empty());
    let report = session.stop();
    let row = here(&report, line);
    assert_eq!(
        (row.tasks_started, row.tasks_live, row.usage.polls, row.usage.cpu_ns),
        (1, 0, 0, 0)
    );
}

/// Where tokio panics, so do these; and the task that was made for it is gone.
#[test]
fn outside_a_runtime_they_panic_and_leave_nothing() {
    let _alone = alone();
    let panics = |f: &dyn Fn()| catch_unwind(AssertUnwindSafe(f)).is_err();
    let mut lines = Vec::new();
    assert!(panics(&|| drop(pertask::tokio::spawn(ready(())))));
    lines.push(line!() - 1);
    assert!(panics(&|| drop(pertask::tokio::spawn_blocking(|| ()))));
    lines.push(line!() - 1);
    assert!(panics(&|| drop(pertask::tokio::spawn_local(ready(())))));
    lines.push(line!() - 1);
    assert!(panics(&|| drop(JoinSet::new().spawn(ready(())))));
    lines.push(line!() - 1);
    // Inside a runtime, but in no `LocalSet`.
    let runtime = current_thread();
    let _inside = runtime.enter();
    assert!(panics(&|| drop(pertask::tokio::spawn_local(ready(())))));
    lines.push(line!() - 1);
    for line in lines {
        assert!(live_here(line).is_empty(), "line {line}");
    }
}

/// A handle is tokio's: dropping it lets the task go on, and it can be polled anywhere.
#[test]
fn a_dropped_handle_detaches() {
    let _alone = alone();
    let runtime = current_thread();
    let done = Arc::new(AtomicBool::new(false));
    runtime.block_on(async {
        let tell = Arc::clone(&done);
        drop(pertask::tokio::spawn(async move {
            yield_once().await;
            tell.store(true, SeqCst);
        }));
        while !done.load(SeqCst) {
            tokio::task::yield_now().await;
        }
        let mut unpolled = Box::pin(pertask::tokio::spawn(ready(5)));
        assert!(poll_once(unpolled.as_mut()).is_pending());
        tokio::task::yield_now().await;
        assert!(matches!(poll_once(unpolled.as_mut()), Poll::Ready(Ok(5))));
    });
}
