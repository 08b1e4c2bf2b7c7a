//! CPU time by label, exact and without samples.

use crate::support::{
    Truth, alone, check_between, check_ns, poll_once, run, spin, thread_cpu_ns, yield_once,
};
use crate::{LongPoll, at, between};
use pertask::{
    Inherit, Job, LabelExt, LabelReport, Labels, Report, Session, SessionOptions, TaskExt,
};
use std::thread;

/// The row of a key, which adds up to the time in tasks.
#[track_caller]
fn key<'r>(report: &'r Report, key: &str) -> &'r LabelReport {
    let row = report.labels.iter().find(|row| row.key == key);
    let row = row.unwrap_or_else(|| panic!("no key {key}: {:#?}", report.labels));
    let values: u64 = row.values.iter().map(|value| value.cpu_ns).sum();
    let all = values + row.others_cpu_ns + row.without_cpu_ns;
    assert_eq!(all, report.tasks_cpu_ns, "{row:#?}");
    row
}

#[track_caller]
fn value(report: &Report, name: &str, of: &str) -> u64 {
    key(report, name).values.iter().find(|it| it.value == of).map_or(0, |it| it.cpu_ns)
}

/// Each value has what its tasks used, on whatever thread and path; and what had no label is apart.
#[test]
fn each_value_has_what_its_tasks_used() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let truths: [Truth; 3] = Default::default();
    let works = || {
        for (truth, tenant) in truths.iter().zip(["acme", "zeta"]) {
            run(truth.work(3, 5).labels([("tenant", tenant)]).task("GET /"));
            run(truth.work(2, 5).task("POST /").labels([("tenant", tenant), ("step", "1")]));
        }
        run(truths[2].work(2, 5).task("neither"));
    };
    thread::scope(|scope| {
        scope.spawn(works);
        scope.spawn(works);
    });
    let report = session.stop();
    check_ns("acme", value(&report, "tenant", "acme"), truths[0].cpu_ns());
    check_ns("zeta", value(&report, "tenant", "zeta"), truths[1].cpu_ns());
    check_ns("without", key(&report, "tenant").without_cpu_ns, truths[2].cpu_ns());
    let step = key(&report, "step");
    assert_eq!((step.values.len(), step.others_cpu_ns), (1, 0));
}

/// The time belongs to the labels that held at the moment, not to those at the end of the poll.
#[test]
fn labels_that_hold_for_a_part_of_a_poll_have_that_part() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let (outer, inner, innermost) = (Truth::default(), Truth::default(), Truth::default());
    run(async {
        outer.spin(7);
        async {
            inner.spin(11);
            async { innermost.spin(5) }.labels([("part", "innermost")]).await;
            inner.spin(3);
        }
        .labels([("part", "inner"), ("within", "yes")])
        .await;
        outer.spin(2);
    }
    .task("three parts"));
    let report = session.stop();
    check_ns("inner", value(&report, "part", "inner"), inner.cpu_ns());
    check_ns("innermost", value(&report, "part", "innermost"), innermost.cpu_ns());
    check_ns("outer", key(&report, "part").without_cpu_ns, outer.cpu_ns());
    let both = inner.cpu_ns() + innermost.cpu_ns();
    check_ns("within", value(&report, "within", "yes"), both);
    // The parts are one poll: a change of labels is none.
    assert_eq!(report.sites[0].usage.polls, 1);
    let whole = outer.cpu_ns() + both;
    assert!(report.sites[0].usage.max_poll_ns + 1_000_000 >= whole, "{report:#?}");
}

/// A poll under way is as long as all its parts, whatever labels they had.
#[test]
fn a_change_of_labels_does_not_shorten_the_poll_under_way() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let (truth, snapshot) = (Truth::default(), std::cell::Cell::new(None));
    run(async {
        async { truth.spin(20) }.labels([("part", "first")]).await;
        snapshot.set(Some(session.snapshot()));
    }
    .task("in parts"));
    let longest = crate::row(&snapshot.take().unwrap(), "in parts").usage.max_poll_ns;
    assert!(longest + 1_000_000 >= truth.cpu_ns(), "{longest} of {}", truth.cpu_ns());
}

/// A snapshot in the middle of a poll has the poll's time so far.
#[test]
fn a_poll_under_way_is_counted_for_its_labels() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let poll = LongPoll::begin_labeled("labelled", &[("tenant", "long")]);
    poll.clock().wait_for(30);
    let (snapshot, now) = at(poll.clock(), || session.snapshot());
    let begins = poll.begins;
    check_between("so far", value(&snapshot, "tenant", "long"), between(begins, now));
    let end = poll.end();
    let report = session.stop();
    check_between("at the end", value(&report, "tenant", "long"), between(begins, end));
    poll.puppet.ends();
}

/// A poll that ran already when the session began: the time since is of the labels that held, though they end with the poll.
#[test]
fn a_poll_that_began_before_the_session_is_counted_for_its_labels() {
    let _alone = alone();
    let poll = LongPoll::begin_labeled("labelled before", &[("tenant", "early bird")]);
    let (session, start) = at(poll.clock(), || Session::start().unwrap());
    poll.clock().wait_for(30);
    let end = poll.end();
    let report = session.stop();
    check_between("its labels", value(&report, "tenant", "early bird"), between(start, end));
    poll.puppet.ends();
}

/// Far more sets than the table has places: nothing holds them any more, so the later ones are whole. What they used is known by
/// tenant, and what is too much of request numbers is told.
#[test]
fn sets_that_nothing_holds_leave_their_place() {
    let _alone = alone();
    let without_place = pertask::label_sets_without_place();
    let session = Session::start().unwrap();
    let mut tenants = [0, 0];
    for request in 0..70_000_u32 {
        let tenant = (request % 2) as usize;
        let number = request.to_string();
        let labels = [("tenant", ["acme", "zeta"][tenant]), ("request", &*number)];
        let work = async {
            let before = thread_cpu_ns();
            let seen = Labels::current().get("request").map(str::to_owned);
            (seen, thread_cpu_ns() - before)
        };
        let (seen, used) = run(work.labels(labels).task("request"));
        assert_eq!(seen.as_deref(), Some(&*number));
        tenants[tenant] += used;
    }
    assert_eq!(pertask::label_sets_without_place(), without_place);
    let report = session.stop();
    assert_eq!(report.lost.label_sets_without_place, 0);
    for (tenant, used) in ["acme", "zeta"].into_iter().zip(tenants) {
        assert!(value(&report, "tenant", tenant) >= used, "{tenant}: {report:#?}");
    }
    let requests = key(&report, "request");
    assert_eq!(requests.values.len(), 100, "as many as the options say");
    assert!(requests.others_cpu_ns > 0, "{requests:#?}");
}

/// Spawned tasks inherit labels, and keep them after the future that had them is gone.
#[test]
#[expect(clippy::async_yields_async, reason = "the child is made in one place and run in another")]
fn inherited_labels_have_the_time_of_who_inherited_them() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let truth = Truth::default();
    let work = truth.work(2, 5);
    let child = run(async { work.task("child") }.labels([("tenant", "heir")]).task("parent"));
    // Enough others come and go for the set to lose its place, if nothing held it.
    for other in 0..3_000 {
        run(async {}.task("other").labels([("other", other.to_string())]));
    }
    run(child);
    let report = session.stop();
    check_ns("heir", value(&report, "tenant", "heir"), truth.cpu_ns());
}

#[test]
fn time_before_the_session_is_not_counted() {
    let _alone = alone();
    let first = Session::start().unwrap();
    let truth = Truth::default();
    let mut work = Box::pin(
        async {
            spin(20);
            yield_once().await;
            truth.spin(5);
        }
        .labels([("tenant", "early")])
        .task("early"),
    );
    assert!(poll_once(work.as_mut()).is_pending());
    let second = Session::start().unwrap();
    run(work);
    check_ns("second", value(&second.stop(), "tenant", "early"), truth.cpu_ns());
    check_ns("first", value(&first.stop(), "tenant", "early"), truth.cpu_ns() + 20_000_000);
    let third = Session::start().unwrap();
    run(async { spin(1) }.task("without labels"));
    assert_eq!(third.stop().labels, []);
}

#[test]
fn a_session_on_some_tasks_has_no_labels() {
    let _alone = alone();
    let work = async { spin(2) }.task("chosen").labels([("tenant", "acme")]);
    let session = Session::start_on([work.handle().unwrap()], Inherit::No).unwrap();
    run(work);
    assert_eq!(session.stop().labels, []);
}

#[test]
fn the_options_say_how_many_values_are_listed() {
    let _alone = alone();
    let options = SessionOptions { max_label_values: 2, ..SessionOptions::default() };
    let session = options.start().unwrap();
    for (tenant, milliseconds) in [("a", 2), ("b", 8), ("c", 4), ("d", 2)] {
        run(async { spin(milliseconds) }.task("work").labels([("tenant", tenant)]));
    }
    let report = session.stop();
    let tenant = key(&report, "tenant");
    let listed: Vec<_> = tenant.values.iter().map(|it| &*it.value).collect();
    assert_eq!(listed[0], "b");
    assert_eq!(listed.len(), 2);
    assert!(tenant.others_cpu_ns >= 4_000_000, "{tenant:#?}");
}

/// A job's rounds are polls of one task, with its labels.
#[test]
fn a_job_has_labels_and_counts_its_rounds() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let truth = Truth::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut job = Job::new("compaction").labels([("shard", "7")]);
            (0..4).for_each(|_| job.run(|| truth.spin(3)));
        });
    });
    let once = Truth::default();
    pertask::run("once", || once.spin(3));
    let report = session.stop();
    let row = crate::row(&report, "compaction");
    assert_eq!((row.tasks_started, row.tasks_live, row.usage.polls), (1, 0, 4));
    check_ns("compaction", row.usage.cpu_ns, truth.cpu_ns());
    check_ns("shard", value(&report, "shard", "7"), truth.cpu_ns());
    check_ns("once", crate::row(&report, "once").usage.cpu_ns, once.cpu_ns());
}

/// Labels may be dropped last of all on a thread.
#[test]
fn labels_dropped_by_a_thread_that_ends() {
    use std::cell::RefCell;
    type Kept = Box<dyn std::any::Any>;
    thread_local!(static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) });
    let _alone = alone();
    let session = Session::start().unwrap();
    thread::spawn(|| {
        KEPT.with_borrow_mut(Vec::clear);
        let kept = |n: u32| async {}.task("kept").labels([("n", n.to_string())]);
        let all: Vec<Kept> = (0..3_000).map(|n| Box::new(kept(n)) as Kept).collect();
        KEPT.with_borrow_mut(|those| those.extend(all));
    })
    .join()
    .unwrap();
    run(async { spin(1) }.task("after").labels([("n", "after")]));
    assert!(value(&session.stop(), "n", "after") >= 1_000_000);
}
