//! The tree of spawns in a report: own and inclusive figures, and that they add up, whatever has ended meanwhile.

mod support;

use std::collections::HashMap;
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use pertask::{Inherit, Report, Session, TaskExt, TreeReport};
use support::{Puppet, StopOnDrop, Truth, alone, check_ns, poll_once, run};

/// The row at the end of a path of names. There is one.
#[track_caller]
fn at<'r>(report: &'r Report, path: &[&str]) -> &'r TreeReport {
    let mut rows = report.tree.iter().filter(|row| names(report, row) == path);
    let row = rows.next().unwrap_or_else(|| panic!("no row {path:?}: {:#?}", report.tree));
    assert!(rows.next().is_none(), "two rows {path:?}: {:#?}", report.tree);
    row
}

fn names<'r>(report: &'r Report, row: &'r TreeReport) -> Vec<&'r str> {
    let parent =
        |row: &&'r TreeReport| report.tree.iter().find(|above| Some(above.id) == row.parent);
    let upwards = std::iter::successors(Some(row), parent);
    let mut names: Vec<_> =
        upwards.map(|row| row.site.name.as_deref().unwrap_or_default()).collect();
    names.reverse();
    names
}

/// All that is true of every tree, to the nanosecond.
#[track_caller]
fn assert_adds_up(report: &Report) {
    let own = |rows: &[&TreeReport]| rows.iter().map(|row| row.usage.cpu_ns).sum::<u64>();
    let inclusive = |rows: &[&TreeReport]| rows.iter().map(|row| row.inclusive_cpu_ns).sum::<u64>();
    let below = |parent: Option<u32>| -> Vec<&TreeReport> {
        report.tree.iter().filter(|row| row.parent == parent).collect()
    };
    assert_eq!(own(&report.tree.iter().collect::<Vec<_>>()), report.tasks_cpu_ns);
    assert_eq!(inclusive(&below(None)), report.tasks_cpu_ns);
    for row in &report.tree {
        assert_eq!(
            row.inclusive_cpu_ns,
            row.usage.cpu_ns + inclusive(&below(Some(row.id))),
            "{row:?}"
        );
    }
    assert_depth_first(report);
    assert_sites_are_sums(report);
}

#[track_caller]
fn assert_depth_first(report: &Report) {
    let mut open: Vec<&TreeReport> = Vec::new();
    let mut last_of: HashMap<Option<u32>, u64> = HashMap::new();
    for row in &report.tree {
        open.truncate(row.depth as usize);
        assert_eq!(open.last().map(|above| above.id), row.parent, "{row:?}");
        assert_eq!(open.len(), row.depth as usize, "{row:?}");
        let before = last_of.insert(row.parent, row.inclusive_cpu_ns).unwrap_or(u64::MAX);
        assert!(before >= row.inclusive_cpu_ns, "{row:?} comes after one that has used less");
        open.push(row);
    }
}

#[track_caller]
fn assert_sites_are_sums(report: &Report) {
    for site in &report.sites {
        let place = (&site.site.name, &site.site.file, site.site.line);
        let rows = report
            .tree
            .iter()
            .filter(|row| (&row.site.name, &row.site.file, row.site.line) == place);
        let sums = rows.fold([0; 4], |[started, live, polls, cpu_ns], row| {
            [
                started + row.tasks_started,
                live + row.tasks_live,
                polls + row.usage.polls,
                cpu_ns + row.usage.cpu_ns,
            ]
        });
        assert_eq!(
            sums,
            [site.tasks_started, site.tasks_live, site.usage.polls, site.usage.cpu_ns],
            "{site:?}"
        );
    }
}

/// Tasks that have been spawned and not polled to their end.
#[derive(Clone, Default)]
struct Spawned(Arc<Mutex<Vec<Boxed>>>);
type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Spawned {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().unwrap().push(Box::pin(task));
    }

    /// Runs all to their ends, and what they spawn.
    fn run_all(&self) {
        while let Some(task) = self.next() {
            run(task);
        }
    }

    fn next(&self) -> Option<Boxed> {
        self.0.lock().unwrap().pop()
    }
}

/// What the tasks of a service know of themselves.
#[derive(Clone, Default)]
struct Service {
    spawned: Spawned,
    route: Truth,
    fanout: Truth,
    leaf: Truth,
}

impl Service {
    /// A route that spawns fanouts, which spawn leaves. The leaves run when their parents have ended.
    fn route(&self) -> impl Future<Output = ()> + Send + use<> {
        let service = self.clone();
        async move {
            for _ in 0..2 {
                service.spawned.spawn(service.fanout().task("fanout"));
            }
            service.route.work(2, 1).await;
        }
    }

    fn fanout(&self) -> impl Future<Output = ()> + Send + use<> {
        let service = self.clone();
        async move {
            for _ in 0..3 {
                service.spawned.spawn(service.leaf().task("leaf"));
            }
            service.fanout.work(3, 1).await;
        }
    }

    fn leaf(&self) -> impl Future<Output = ()> + Send + use<> {
        self.leaf.work(1, 2)
    }
}

#[test]
fn a_service_has_own_and_inclusive_time() {
    let _alone = alone();
    let (service, elsewhere) = (Service::default(), Truth::default());
    let serve = |service: &Service| {
        run(service.route().task("route"));
        service.spawned.run_all();
    };
    // What was counted before the session is none of its.
    let _before = Session::start().unwrap();
    serve(&Service::default());
    let session = Session::start().unwrap();
    serve(&service);
    run(elsewhere.work(1, 3).task("leaf"));
    let report = session.stop();
    assert_adds_up(&report);
    let paths: [&[&str]; 3] = [&["route"], &["route", "fanout"], &["route", "fanout", "leaf"]];
    let [route, fanout, leaf] = paths.map(|path| at(&report, path));
    for (row, truth) in [(route, &service.route), (fanout, &service.fanout), (leaf, &service.leaf)]
    {
        check_ns(row.site.name.as_deref().unwrap(), row.usage.cpu_ns, truth.cpu_ns());
        assert_eq!(row.usage.polls, truth.polls(), "{row:?}");
    }
    let all = service.route.cpu_ns() + service.fanout.cpu_ns() + service.leaf.cpu_ns();
    check_ns("the route and what it spawned", route.inclusive_cpu_ns, all);
    assert_eq!(
        [route, fanout, leaf].map(|row| (row.tasks_started, row.tasks_live)),
        [(1, 0), (2, 0), (6, 0)]
    );
    assert_eq!([route, fanout, leaf].map(|row| row.depth), [0, 1, 2]);
    // The leaf that no task spawned is no descendant.
    check_ns("a leaf elsewhere", at(&report, &["leaf"]).inclusive_cpu_ns, elsewhere.cpu_ns());
}

#[test]
fn recursion_is_one_row() {
    let _alone = alone();
    let truth = Truth::default();
    fn walk(truth: Truth, deeper: u32) -> Boxed {
        Box::pin(async move {
            truth.spin(1);
            match deeper {
                0 => truth.counts(|truth| async move { truth.spin(2) }).task("leaf").await,
                _ => walk(truth, deeper - 1).task("walk").await,
            }
        })
    }
    let session = Session::start().unwrap();
    run(walk(truth.clone(), 4).task("root"));
    let report = session.stop();
    assert_adds_up(&report);
    let row = at(&report, &["root", "walk"]);
    assert_eq!((row.tasks_started, row.depth), (4, 1));
    let leaf = at(&report, &["root", "walk", "leaf"]);
    assert_eq!(row.inclusive_cpu_ns, row.usage.cpu_ns + leaf.usage.cpu_ns);
    check_ns("all", at(&report, &["root"]).inclusive_cpu_ns, truth.cpu_ns());
}

/// Its figures are all zero, and what hangs below it is not.
#[test]
fn an_ancestor_that_ended_before_the_session_has_a_row() {
    let _alone = alone();
    let spawned = Spawned::default();
    let truth = Truth::default();
    let (to, work) = (spawned.clone(), truth.work(1, 2));
    run(async move { to.spawn(work.task("survivor")) }.task("long gone"));
    let session = Session::start().unwrap();
    spawned.run_all();
    let report = session.stop();
    assert_adds_up(&report);
    let gone = at(&report, &["long gone"]);
    assert_eq!(
        (gone.tasks_started, gone.tasks_live, gone.usage.polls, gone.usage.cpu_ns),
        (0, 0, 0, 0)
    );
    check_ns("below", gone.inclusive_cpu_ns, truth.cpu_ns());
    assert!(report.sites.iter().all(|site| site.site.name.as_deref() != Some("long gone")));
}

#[test]
fn a_session_on_some_tasks_has_their_paths() {
    let _alone = alone();
    let truth = Truth::default();
    let spawned = Spawned::default();
    let (to, of_task, of_child) = (spawned.clone(), truth.work(1, 2), truth.work(1, 3));
    let parent = async move {
        let task = async move {
            of_child.task("child").await;
            of_task.await;
        };
        to.spawn(async { pending().await }.task("bystander"));
        to.spawn(task.task("chosen"));
    };
    run(parent.task("parent"));
    let chosen = support::live_tasks("chosen");
    let session = Session::start_on(&chosen, Inherit::Children).unwrap();
    run(spawned.next().unwrap());
    assert!(poll_once(pin!(spawned.next().unwrap())).is_pending());
    let report = session.stop();
    assert_adds_up(&report);
    let row = at(&report, &["parent", "chosen"]);
    // The child's time is in the event, and so the task's own.
    check_ns("chosen", row.usage.cpu_ns, truth.cpu_ns());
    assert_eq!(at(&report, &["parent"]).inclusive_cpu_ns, row.usage.cpu_ns);
    assert_eq!(report.tree.len(), 2, "{:#?}", report.tree);
}

/// A site's longest poll is that of any of its paths.
#[test]
fn a_longest_poll_is_that_of_any_path() {
    let _alone = alone();
    let truth = Truth::default();
    let poll = |spawned: bool, milliseconds| {
        let task = |truth: &Truth| truth.work(1, milliseconds).task("of two paths");
        match spawned {
            true => run(async { task(&truth).await }.task("parent")),
            false => run(task(&truth)),
        }
    };
    let session = Session::start().unwrap();
    poll(false, 20);
    poll(true, 2);
    let report = session.stop();
    let of_paths =
        report.tree.iter().filter(|row| row.site.name.as_deref() == Some("of two paths"));
    let of_paths: Vec<_> = of_paths.map(|row| row.usage.max_poll_ns).collect();
    assert_eq!(of_paths.len(), 2);
    let longest = support::row(&report, "of two paths").usage.max_poll_ns;
    assert_eq!(Some(longest), of_paths.into_iter().max());
    assert!(longest >= support::ms(20) - support::STOLEN_NS, "{longest:?}");
}

/// While tasks begin, run and end on other threads.
#[test]
fn trees_add_up_at_any_moment() {
    let _alone = alone();
    let stop = StopOnDrop::default();
    let threads = ["one", "two"].map(Puppet::new);
    let done = threads.each_ref().map(|thread| {
        let stopped = stop.flag();
        thread.begins(move || {
            while !stopped.load(SeqCst) {
                let service = Service::default();
                run(service.route().task("busy"));
                service.spawned.run_all();
            }
        })
    });
    let session = Session::start().unwrap();
    let mut last = 0;
    for _ in 0..60 {
        let until = threads.iter().map(|it| it.clock.cpu_ns()).max().unwrap_or(0) + support::ms(2);
        let report = session.snapshot();
        assert_adds_up(&report);
        last = report.tasks_cpu_ns;
        // Let the others run, whatever the number of CPUs.
        support::wait_until("a worker runs", || {
            threads.iter().any(|it| it.clock.cpu_ns() >= until)
        });
    }
    assert!(last > 0);
    drop(stop);
    done.into_iter().for_each(|done| done.recv().unwrap());
    threads.into_iter().for_each(Puppet::ends);
}
