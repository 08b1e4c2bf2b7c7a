//! Tracked futures on every kind of executor: the same work has the same counts wherever it runs.
//!
//! Each test spreads work whose CPU time is known over several tasks, and compares task by task. What is allowed
//! between the truth and the count, and why, is told in `support`.

mod support;

use std::{
    collections::HashSet,
    future::{Future, poll_fn},
    rc::Rc,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::Poll,
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use futures::{executor::LocalPool, future::join, task::LocalSpawnExt};
use pertask::{
    CpuTime, Event, Inherit, Report, Session, SessionOptions, Task, TaskExt, TaskReport, Tracked,
};
use support::{Puppet, Truth, cpu_time, current_task, poll_once, row, yield_once};

/// A task under a name of its own, with what is known of it and what pertask counts.
struct Case {
    name: String,
    truth: Truth,
    task: Arc<Task>,
    event: Event<CpuTime>,
}

impl Case {
    fn new<F: Future>(name: &str, truth: &Truth, future: F) -> (Tracked<F>, Self) {
        let tracked = future.task(name);
        let task = Arc::clone(tracked.handle().expect("the thread is not ending"));
        let event = cpu_time().attach_task(&task, Inherit::No).unwrap();
        (tracked, Self { name: name.to_owned(), truth: truth.clone(), task, event })
    }

    /// A task that spins in each of its polls.
    fn working(
        name: &str,
        polls: u64,
        milliseconds: u64,
    ) -> (Tracked<impl Future<Output = ()> + Send + use<>>, Self) {
        let truth = Truth::default();
        let work = truth.work(polls, milliseconds);
        Self::new(name, &truth, work)
    }

    /// Asserts that the task has ended, and that its own event and the session's row count what it did.
    fn check(&self, report: &Report, parent: Option<&Task>) {
        assert!(self.task.has_exited(), "{} has not ended", self.name);
        assert_eq!(self.task.parent(), parent.map(Task::id), "{}: parent", self.name);
        assert_eq!(self.task.site().name(), Some(&*self.name));
        let count = self.event.read();
        self.truth.check(&self.name, &count);

        let row = row(report, &self.name);
        assert!(row.site.file.ends_with("executors.rs"), "{}", row.site.file);
        assert_eq!((row.tasks_started, row.tasks_live), (1, 0), "{}", self.name);
        // The session was there before the task.
        assert_eq!(
            (row.usage.polls, row.usage.cpu_ns, row.usage.wall_ns, Some(row.usage.max_poll_ns)),
            (count.polls, count.cpu_ns, count.wall_ns, count.longest_poll_ns),
            "{}: the session's row and the task's own event",
            self.name
        );
    }
}

#[test]
fn tokio_current_thread_with_a_tracked_root() {
    let session = Session::start().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let truth = Truth::default();
    let cases = Arc::new(Mutex::new(Vec::new()));
    let cases_seen = Arc::clone(&cases);
    let root = truth.counts(move |truth| async move {
        truth.spin(10);
        let mut handles = Vec::new();
        for (name, polls) in [("ct 1", 1), ("ct 4", 4), ("ct 12", 12)] {
            let (work, case) = Case::working(name, polls, 3);
            cases_seen.lock().unwrap().push((case, polls));
            handles.push(tokio::spawn(work));
        }
        for handle in handles {
            handle.await.unwrap();
        }
        truth.spin(5);
    });
    let (root, root_case) = Case::new("ct root", &truth, root);
    runtime.block_on(root);

    let report = session.stop();
    root_case.check(&report, None);
    for (case, polls) in cases.lock().unwrap().iter() {
        assert_eq!(case.truth.polls(), *polls);
        case.check(&report, Some(&root_case.task));
    }
}

#[test]
fn tokio_multi_thread() {
    let session = Session::start().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).build().unwrap();
    let mut cases = Vec::new();
    runtime.block_on(async {
        let mut handles = Vec::new();
        for (name, polls) in [("mt 3", 3), ("mt 6", 6), ("mt 9", 9), ("mt 15", 15)] {
            let (work, case) = Case::working(name, polls, 3);
            cases.push((case, polls));
            handles.push(tokio::spawn(work));
        }
        for handle in handles {
            handle.await.unwrap();
        }
    });
    let report = session.stop();
    for (case, polls) in &cases {
        assert_eq!(case.truth.polls(), *polls);
        // The root is no task.
        case.check(&report, None);
    }
}

/// Each of two tasks that wait for each other inside a poll has a worker of its own, and their clocks stand still
/// while they wait for a third that spins.
#[test]
fn tokio_multi_thread_at_the_same_time() {
    let session = Session::start().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let meet = Arc::new(Barrier::new(2));
    let mut cases = Vec::new();
    let mut handles = Vec::new();
    for (name, milliseconds) in [("pair short", 2), ("pair long", 40)] {
        let (truth, meet) = (Truth::default(), Arc::clone(&meet));
        let both_spin = truth.counts(move |truth| async move {
            meet.wait();
            truth.spin(milliseconds);
            meet.wait();
        });
        let (tracked, case) = Case::new(name, &truth, both_spin);
        cases.push(case);
        handles.push(runtime.spawn(tracked));
    }
    for handle in handles {
        runtime.block_on(handle).unwrap();
    }
    let report = session.stop();
    cases.iter().for_each(|case| case.check(&report, None));
    // The short one sat in its poll while the long one spun, which is wall time only.
    let [short, long] = [0, 1].map(|n| cases[n].event.read());
    assert!(short.wall_ns >= long.cpu_ns - support::glue_ns(long.cpu_ns), "{short:?} {long:?}");
}

/// A task that goes from one worker to another takes its counts along.
#[test]
fn tokio_multi_thread_from_one_worker_to_another() {
    let session = Session::start().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let truth = Truth::default();
    let threads: Arc<Mutex<HashSet<ThreadId>>> = Arc::default();
    let threads_seen = Arc::clone(&threads);
    let migrant = truth.counts(move |truth| async move {
        let began = Instant::now();
        loop {
            truth.spin(2);
            let seen = {
                let mut threads = threads_seen.lock().unwrap();
                threads.insert(thread::current().id());
                threads.len()
            };
            if (seen > 1 && truth.polls() > 5) || began.elapsed() > Duration::from_secs(10) {
                return;
            }
            // Keeps this worker busy until this task runs again, which the other worker must see to.
            let again = Arc::new(AtomicBool::new(false));
            let blocker_sees = Arc::clone(&again);
            tokio::spawn(async move {
                while !blocker_sees.load(SeqCst) {
                    thread::yield_now();
                }
            });
            yield_once().await;
            again.store(true, SeqCst);
        }
    });
    let (migrant, case) = Case::new("migrant", &truth, migrant);
    runtime.block_on(runtime.spawn(migrant)).unwrap();
    case.check(&session.stop(), None);
    if threads.lock().unwrap().len() < 2 {
        support::loudly("SKIPPED in part: in 10 s, tokio never moved the task to its other worker");
    }
}

/// The same without an executor: a future that two threads poll in turn.
#[test]
fn polled_by_two_threads_in_turn() {
    let session = Session::start().unwrap();
    let truth = Truth::default();
    let (tracked, case) = Case::new("in turn", &truth, truth.work(8, 3));
    let puppets = [Puppet::new("left"), Puppet::new("right")];
    let mut future = Box::pin(tracked);
    for turn in 0.. {
        let poll;
        (future, poll) = puppets[turn % 2].does(move || {
            let poll = poll_once(future.as_mut());
            (future, poll)
        });
        if poll.is_ready() {
            assert_eq!(turn, 7);
            break;
        }
    }
    let report = session.stop();
    case.check(&report, None);
    for puppet in puppets {
        let row = support::thread_row(&report, puppet.number);
        assert!(row.worker, "{row:?}");
        support::check_ns(&row.name, row.tasks_cpu_ns, support::ms(12));
        puppet.ends();
    }
}

#[test]
fn tokio_local_set() {
    let session = Session::start().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let mut cases = Vec::new();
    let handles: Vec<_> = [("local 2", 2), ("local 5", 5), ("local 10", 10)]
        .into_iter()
        .map(|(name, polls)| {
            let truth = Truth::default();
            let work = truth.work(polls, 3);
            let stays = Rc::new(polls);
            let not_send = async move {
                work.await;
                stays
            };
            let (tracked, case) = Case::new(name, &truth, not_send);
            cases.push((case, polls));
            local.spawn_local(tracked)
        })
        .collect();
    local.block_on(&runtime, async {
        for (handle, (_, polls)) in handles.into_iter().zip(&cases) {
            assert_eq!(handle.await.unwrap(), Rc::new(*polls));
        }
    });
    let report = session.stop();
    for (case, polls) in &cases {
        assert_eq!(case.truth.polls(), *polls);
        case.check(&report, None);
    }
}

#[test]
fn smol_global_executor() {
    // smol starts its thread at the first spawn, which would be the root's.
    smol::block_on(smol::spawn(async {}));
    let session = Session::start().unwrap();
    let cases = Arc::new(Mutex::new(Vec::new()));
    let truth = Truth::default();
    let cases_seen = Arc::clone(&cases);
    let root = truth.counts(move |truth| async move {
        let mut tasks = Vec::new();
        for (name, polls) in [("smol 2", 2), ("smol 5", 5), ("smol 10", 10)] {
            let (work, case) = Case::working(name, polls, 3);
            cases_seen.lock().unwrap().push((case, polls));
            tasks.push(smol::spawn(work));
        }
        truth.spin(10);
        for task in tasks {
            task.await;
        }
    });
    let (root, root_case) = Case::new("smol root", &truth, root);
    smol::block_on(root);

    let report = session.stop();
    root_case.check(&report, None);
    for (case, polls) in cases.lock().unwrap().iter() {
        assert_eq!(case.truth.polls(), *polls);
        case.check(&report, Some(&root_case.task));
    }
}

#[test]
fn futures_local_pool() {
    let session = Session::start().unwrap();
    let mut pool = LocalPool::new();
    let mut cases = Vec::new();
    for (name, polls) in [("pool 2", 2), ("pool 5", 5), ("pool 10", 10)] {
        let (work, case) = Case::working(name, polls, 3);
        let stays = Rc::new(());
        pool.spawner()
            .spawn_local(async move {
                work.await;
                drop(stays);
            })
            .unwrap();
        cases.push((case, polls));
    }
    pool.run();
    let report = session.stop();
    for (case, polls) in &cases {
        assert_eq!(case.truth.polls(), *polls);
        case.check(&report, None);
    }
}

/// The inner tasks' time is theirs alone: the outer is switched out meanwhile.
#[test]
fn join_of_tracked_futures_inside_a_tracked_future() {
    let session = Session::start().unwrap();
    let truth = Truth::default();
    let cases = Arc::new(Mutex::new(Vec::new()));
    let cases_seen = Arc::clone(&cases);
    let outer = truth.counts(move |truth| async move {
        truth.spin(6);
        let (short, short_case) = Case::working("join short", 3, 5);
        let (long, long_case) = Case::working("join long", 8, 5);
        cases_seen.lock().unwrap().extend([(short_case, 3), (long_case, 8)]);
        join(short, long).await;
        truth.spin(6);
    });
    let (outer, outer_case) = Case::new("join outer", &truth, outer);
    futures::executor::block_on(outer);

    let report = session.stop();
    outer_case.check(&report, None);
    // join polls, each time it is polled, whoever is not ready.
    assert_eq!(outer_case.event.read().polls, 8);
    let mut inner_wall_ns = 0;
    for (case, polls) in cases.lock().unwrap().iter() {
        assert_eq!(case.truth.polls(), *polls);
        case.check(&report, Some(&outer_case.task));
        inner_wall_ns += case.event.read().wall_ns;
    }
    // The wall time is divided like the CPU time: the three together are no longer than the session.
    assert!(outer_case.event.read().wall_ns + inner_wall_ns <= report.duration_ns);
}

/// Three deep, each level spins before, between and after the next.
#[test]
fn tasks_nested_in_tasks() {
    let session = Session::start().unwrap();
    let truths = [(); 3].map(|()| Truth::default());
    let inner_most = truths[2].counts(move |truth| async move {
        truth.spin(4);
        yield_once().await;
        truth.spin(4);
    });
    let (inner_most, case_2) = Case::new("nested 2", &truths[2], inner_most);
    let middle = truths[1].counts(move |truth| async move {
        truth.spin(8);
        inner_most.await;
        truth.spin(8);
    });
    let (middle, case_1) = Case::new("nested 1", &truths[1], middle);
    let outer = truths[0].counts(move |truth| async move {
        truth.spin(16);
        middle.await;
        truth.spin(16);
    });
    let (outer, case_0) = Case::new("nested 0", &truths[0], outer);
    futures::executor::block_on(outer);
    let report = session.stop();
    for case in [case_0, case_1, case_2] {
        // Made side by side, though they run inside each other.
        case.check(&report, None);
        assert_eq!(case.event.read().polls, 2);
    }
}

/// The longest poll of the outer task leaves out what ran inside it, and goes on after it.
#[test]
fn the_longest_poll_of_an_outer_task_is_its_own_time() {
    let session = Session::start().unwrap();
    let inner = async { thread::sleep(Duration::from_millis(60)) }.task("longest inner");
    let outer = async {
        thread::sleep(Duration::from_millis(10));
        inner.await;
        thread::sleep(Duration::from_millis(10));
    };
    support::run(outer.task("longest outer"));
    let report = session.stop();
    let [inner, outer] = ["longest inner", "longest outer"].map(|name| row(&report, name));
    assert!(inner.usage.max_poll_ns >= support::ms(60), "{inner:?}");
    // Both of its sleeps were one poll.
    assert_eq!(outer.usage.polls, 1);
    assert_eq!(outer.usage.max_poll_ns, outer.usage.wall_ns);
    assert!(outer.usage.wall_ns >= support::ms(20), "{outer:?}");
    assert!(outer.usage.wall_ns <= report.duration_ns - inner.usage.wall_ns, "{outer:?}");
}

/// Live tasks are listed with their names, parents, places and counts.
#[test]
fn live_tasks_are_listed_with_name_and_parent() {
    let session =
        SessionOptions { max_tasks: 100_000, ..SessionOptions::default() }.start().unwrap();
    let truth = Truth::default();
    let parent = async move {
        let child = truth.counts(move |truth| async move {
            truth.spin(5);
            std::future::pending::<()>().await;
        });
        child.task("listed child").await;
    };
    let mut parent = Box::pin(parent.task("listed parent"));
    assert!(poll_once(parent.as_mut()).is_pending());
    let parent_id = parent.handle().unwrap().id().get();
    let report = session.snapshot();
    let [child_row, parent_row] =
        ["listed child", "listed parent"].map(|name| listed(&report, name));
    assert_eq!(parent_row.id, parent_id);
    assert_eq!((child_row.parent, parent_row.parent), (Some(parent_id), None));
    assert_eq!((child_row.usage.polls, parent_row.usage.polls), (1, 1));
    support::check_ns("listed child", child_row.usage.cpu_ns, support::ms(5));
    for row in [child_row, parent_row] {
        assert!(row.site.file.ends_with("executors.rs") && row.site.line > 0, "{row:?}");
        assert!(row.usage.max_poll_ns <= row.usage.wall_ns, "{row:?}");
    }
    drop(parent);
    let report = session.stop();
    assert!(!report.tasks.iter().any(|row| row.site.name.as_deref() == Some("listed child")));
    assert_eq!(row(&report, "listed child").tasks_live, 0);
}

#[track_caller]
fn listed<'r>(report: &'r Report, name: &str) -> &'r TaskReport {
    let mut rows = report.tasks.iter().filter(|row| row.site.name.as_deref() == Some(name));
    let row = rows.next().unwrap_or_else(|| panic!("{name:?} is not listed: {report:#?}"));
    assert!(rows.next().is_none(), "{name:?} is listed twice");
    row
}

/// Whoever looks from inside a poll sees the innermost task, and the outer one again afterwards.
#[test]
fn the_current_task_is_the_innermost() {
    let id = || current_task().map(|task| task.id());
    assert_eq!(id(), None);
    let inner = async { current_task().unwrap() }.task("current inner");
    let inner_id = inner.handle().map(|task| task.id());
    let outer = async {
        let before = id();
        assert_eq!(Some(inner.await.id()), inner_id);
        assert_eq!(id(), before);
        poll_fn(|_| Poll::Ready(id())).await
    }
    .task("current outer");
    let outer_id = outer.handle().map(|task| task.id());
    assert_eq!(support::run(outer), outer_id);
    assert_eq!(id(), None);
}
