//! Nothing is lost and nothing is counted twice: tasks, workers and other threads add up to the process.
//!
//! The process's CPU time comes from the kernel's process clock, each part from another place. These tests have a
//! process of their own, and run one at a time.

mod support;

use std::{
    cell::RefCell,
    sync::{Arc, Barrier, atomic::Ordering::SeqCst, mpsc},
    thread,
    time::Duration,
};

use pertask::{Report, Session, TaskExt};
use support::{
    Puppet, StopOnDrop, Truth, alone, check_between, check_ns, ended_row, ms, process_cpu_ns, row,
    run, spin, thread_cpu_ns, thread_number, thread_row, wait_until, wait_until_reaped, yield_once,
};

/// A session whose reports are known to be whole.
struct Watched {
    session: Session,
    /// CPU time that the process used while the session started.
    start_ns: u64,
}

impl Watched {
    fn start() -> Self {
        let before = process_cpu_ns();
        let session = Session::start().unwrap();
        Self { session, start_ns: process_cpu_ns() - before }
    }

    /// A report, of which it is asserted that the parts add up to the process within 1 %, or a millisecond, and what
    /// the process used while the two readings were taken: no one clock stops the others.
    #[track_caller]
    fn snapshot(&self) -> Report {
        self.snapshot_within().0
    }

    /// The same, and how much that is.
    #[track_caller]
    fn snapshot_within(&self) -> (Report, u64) {
        let before = process_cpu_ns();
        let report = self.session.snapshot();
        let readings_ns = self.start_ns + process_cpu_ns() - before;
        let most = (report.process_cpu_ns / 100).max(ms(1)) + readings_ns;
        check_whole(&report, most);
        (report, most)
    }

    #[track_caller]
    fn stop(self) -> Report {
        self.snapshot()
    }
}

#[track_caller]
fn check_whole(report: &Report, most: u64) {
    let parts = [report.tasks_cpu_ns, report.workers_cpu_ns, report.other_cpu_ns];
    let (sum, process) = (parts.iter().sum::<u64>(), report.process_cpu_ns);
    assert!(
        sum.abs_diff(process) <= most,
        "tasks, workers, others: {parts:?}, together {sum} ns; the process: {process} ns, give or take {most}\n\
         {report:#?}"
    );
    let threads: u64 = report.threads.iter().map(|thread| thread.cpu_ns).sum();
    assert!(
        threads.abs_diff(process) <= most,
        "threads: {threads} ns of {process} ns\n{report:#?}"
    );
    for thread in &report.threads {
        assert!(thread.tasks_cpu_ns <= thread.cpu_ns + most, "{thread:?}");
        assert!(thread.worker || thread.tasks_cpu_ns == 0, "{thread:?}");
    }
    let in_tasks: u64 = report.threads.iter().map(|thread| thread.tasks_cpu_ns).sum();
    let tasks = report.tasks_cpu_ns;
    assert!(
        in_tasks.abs_diff(tasks) <= most,
        "{in_tasks} ns by thread, {tasks} by task\n{report:#?}"
    );
    assert!(report.lost.is_empty(), "{:?}", report.lost);
}

/// All at once: tasks that spin, tasks that sleep, untracked work on the workers, a plain thread, threads that come and
/// go, a blocking thread.
#[test]
fn a_mixed_load() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("mixed-worker")
        .enable_time()
        .build()
        .unwrap();
    let workers = worker_numbers(&runtime);
    let plain = Puppet::new("mixed-plain");

    let began = process_cpu_ns();
    let before = plain.clock.cpu_ns();
    let session = Watched::start();
    let start = (before, plain.clock.cpu_ns());
    let working = StopOnDrop::default();
    let plain_done = working.flag();
    let burning = plain.begins(move || {
        while !plain_done.load(SeqCst) {
            spin(1);
        }
    });

    let truth = Truth::default();
    let mut handles = Vec::new();
    for _ in 0..4 {
        handles.push(runtime.spawn(truth.work(60, 3).task("mixed spins")));
    }
    for _ in 0..20 {
        let sleeps = async {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        handles.push(runtime.spawn(sleeps.task("mixed sleeps")));
    }
    let untracked = Truth::default();
    for _ in 0..3 {
        handles.push(runtime.spawn(untracked.work(40, 3)));
    }
    let blocking = Truth::default();
    let blocking_thread = runtime.handle().spawn_blocking({
        let blocking = blocking.clone();
        move || {
            run(blocking.work(1, 150).task("mixed blocks"));
            thread_number()
        }
    });
    let short_lived = thread::spawn(|| {
        spin(150);
        (thread_number(), thread_cpu_ns())
    });
    let (short_number, short_ns) = short_lived.join().unwrap();
    wait_until_reaped(short_number);
    for handle in handles {
        runtime.block_on(handle).unwrap();
    }
    let blocking_number = runtime.block_on(blocking_thread).unwrap();
    wait_until("the process has used the CPU for a second", || {
        process_cpu_ns() - began >= ms(1200)
    });

    let before = plain.clock.cpu_ns();
    let (report, most) = session.snapshot_within();
    let plain_ns = (before - start.1, plain.clock.cpu_ns() - start.0);
    drop(working);
    burning.recv().unwrap();

    assert!(report.process_cpu_ns >= ms(1000), "{report:#?}");
    truth.check_row(row(&report, "mixed spins"));
    blocking.check_row(row(&report, "mixed blocks"));
    assert_eq!(row(&report, "mixed sleeps").tasks_started, 20);
    // The untracked work is the workers' own, with the scheduler and the timer.
    assert!(report.workers_cpu_ns >= untracked.cpu_ns(), "{report:#?}");

    let row = thread_row(&report, plain.number);
    assert!(!row.worker && row.name == "mixed-plain", "{row:?}");
    check_between("the plain thread", row.cpu_ns, plain_ns);
    for number in workers {
        let row = thread_row(&report, number);
        assert!(row.worker && row.name == "mixed-worker", "{row:?}");
    }
    let row = thread_row(&report, blocking_number);
    assert!(row.worker, "{row:?}");
    check_ns("the blocking thread's task", row.tasks_cpu_ns, blocking.cpu_ns());
    let ended = ended_row(&report, false).expect("a plain thread has ended");
    // What is left of the process when all other threads have been taken from it.
    let around = (short_ns.saturating_sub(most), short_ns + support::glue_ns(short_ns) + most);
    check_between("the ended thread", ended.cpu_ns, around);
    assert!(ended_row(&report, true).is_none(), "no worker has ended: {report:#?}");
    plain.ends();
}

/// The threads of a runtime of two workers, each of which has run a task.
fn worker_numbers(runtime: &tokio::runtime::Runtime) -> [u32; 2] {
    let meet = Arc::new(Barrier::new(2));
    let numbers = [(); 2].map(|()| {
        let meet = Arc::clone(&meet);
        runtime.spawn(
            async move {
                // Neither goes on before the other has come, on another worker.
                meet.wait();
                thread_number()
            }
            .task("mixed, who are you"),
        )
    });
    numbers.map(|number| runtime.block_on(number).unwrap())
}

/// Workers that end in the session: what they did stays in the report.
#[test]
fn a_runtime_that_is_gone_at_the_end() {
    let _alone = alone();
    let session = Watched::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let (truth, untracked) = (Truth::default(), Truth::default());
    let workers = worker_numbers(&runtime);
    let handles = [(); 2].map(|()| runtime.spawn(truth.work(20, 5).task("gone")));
    let others = [(); 2].map(|()| runtime.spawn(untracked.work(10, 5)));
    for handle in handles.into_iter().chain(others) {
        runtime.block_on(handle).unwrap();
    }
    drop(runtime);
    workers.into_iter().for_each(wait_until_reaped);
    let report = session.stop();
    truth.check_row(row(&report, "gone"));
    let ended = ended_row(&report, true).expect("two workers have ended");
    check_ns("in tasks", ended.tasks_cpu_ns, truth.cpu_ns());
    assert!(ended.cpu_ns >= truth.cpu_ns() + untracked.cpu_ns(), "{ended:?}");
}

/// Nobody waits here until the kernel has reaped the workers: whenever one ends, it is counted once.
#[test]
fn reports_while_workers_end() {
    let _alone = alone();
    for _ in 0..20 {
        let session = Watched::start();
        let threads = [(); 3].map(|()| thread::spawn(|| run(async { spin(4) }.task("ends now"))));
        while !threads.iter().all(thread::JoinHandle::is_finished) {
            session.snapshot();
        }
        for thread in threads {
            thread.join().unwrap();
        }
        let report = session.stop();
        check_ns("ends now", row(&report, "ends now").usage.cpu_ns, ms(12));
    }
}

thread_local! {
    static LAST: RefCell<Option<Ending>> = const { RefCell::new(None) };
}

/// Keeps a thread in its last moment until it is let go.
struct Ending {
    reached: mpsc::Sender<()>,
    go: mpsc::Receiver<()>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.reached.send(());
        let _ = self.go.recv();
    }
}

/// A report at the moment at which a worker has given back its CPU and is still a thread.
#[test]
fn a_worker_that_is_ending() {
    let _alone = alone();
    let session = Watched::start();
    let (reached, is_reached) = mpsc::channel();
    let (let_go, go) = mpsc::channel();
    let worker = thread::spawn(move || {
        // Destructors run in the reverse order of first use: this one after the CPU's.
        LAST.with_borrow_mut(|last| *last = Some(Ending { reached, go }));
        run(async { spin(50) }.task("is ending"));
        thread_number()
    });
    is_reached.recv().unwrap();
    let ending = session.snapshot();
    let second = Watched::start();
    let_go.send(()).unwrap();
    let number = worker.join().unwrap();
    wait_until_reaped(number);
    second.stop();
    let ended = session.stop();
    check_ns("is ending", row(&ending, "is ending").usage.cpu_ns, ms(50));
    assert_eq!(ended_row(&ended, true).map(|row| row.tasks_cpu_ns), Some(ended.tasks_cpu_ns));
}

/// A thread that has worked before the session, and runs its first task in it.
#[test]
fn a_thread_that_becomes_a_worker_and_ends() {
    let _alone = alone();
    let thread = Puppet::new("late worker");
    thread.does(|| spin(200));
    let session = Watched::start();
    thread.does(|| run(async { spin(30) }.task("late")));
    thread.ends();
    let report = session.stop();
    check_ns("late", row(&report, "late").usage.cpu_ns, ms(30));
}

/// A thread that has made tasks for others, and run none, takes nothing away from another's time when it ends.
#[test]
fn a_thread_that_makes_tasks_and_ends() {
    let _alone = alone();
    let (maker, worker) = (Puppet::new("maker"), Puppet::new("maker's worker"));
    let task = maker.does(|| {
        spin(200);
        Box::pin(async { spin(60) }.task("made elsewhere"))
    });
    let session = Watched::start();
    worker.does(|| run(task));
    worker.ends();
    maker.ends();
    let report = session.stop();
    check_ns("made elsewhere", row(&report, "made elsewhere").usage.cpu_ns, ms(60));
    let ended = ended_row(&report, true).expect("a worker has ended");
    check_ns("in tasks", ended.tasks_cpu_ns, ms(60));
}

/// The same two, in a session after the one in which they ended.
#[test]
fn what_ended_before_the_session_is_not_in_it() {
    let _alone = alone();
    for plain in [true, false] {
        let thread = Puppet::new("ended before");
        thread.does(move || match plain {
            true => spin(50),
            false => run(async { spin(50) }.task("ended before")),
        });
        thread.ends();
    }
    let session = Watched::start();
    run(async { spin(20) }.task("after"));
    let report = session.stop();
    assert!(report.threads.iter().all(|row| row.tid.is_some()), "{report:#?}");
    check_ns("after", report.tasks_cpu_ns, ms(20));
}

/// Worker threads are used again by the kernel's numbers and by CPU records alike: one after the other, many.
#[test]
fn many_short_lived_workers() {
    let _alone = alone();
    let session = Watched::start();
    let truth = Truth::default();
    for _ in 0..40 {
        let work = truth.work(2, 1);
        let thread = thread::spawn(move || {
            run(work.task("short-lived"));
            // Outside any task.
            spin(1);
            thread_number()
        });
        wait_until_reaped(thread.join().unwrap());
    }
    let report = session.stop();
    truth.check_row(row(&report, "short-lived"));
    let ended = ended_row(&report, true).expect("forty workers have ended");
    assert!(ended.cpu_ns >= ended.tasks_cpu_ns + ms(40), "{ended:?}");
}

/// Snapshots in the middle of everything, while polls are under way on all workers.
#[test]
fn snapshots_add_up_at_any_moment() {
    let _alone = alone();
    let session = Watched::start();
    let puppets = [Puppet::new("long polls"), Puppet::new("short polls")];
    let working = StopOnDrop::default();
    let work = [(&puppets[0], 30), (&puppets[1], 1)].map(|(puppet, milliseconds)| {
        let done = working.flag();
        puppet.begins(move || {
            let future = async move {
                while !done.load(SeqCst) {
                    spin(milliseconds);
                    yield_once().await;
                }
            };
            run(future.task("any moment"));
        })
    });
    wait_until("the process has worked", || session.snapshot().process_cpu_ns >= ms(700));
    drop(working);
    work.into_iter().for_each(|done| done.recv().unwrap());
    session.stop();
    puppets.into_iter().for_each(Puppet::ends);
}
