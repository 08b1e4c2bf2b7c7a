//! Sessions on some tasks, with their descendants or without.

use crate::support::{
    self, Truth, alone, check_between, check_ns, ms, poll_once, row, run, spin, yield_once,
};
use crate::{LongPoll, at, between, check_sums, step, steps};
use pertask::{Inherit, Session, SiteReport, TaskExt, Tracked};
use std::future::Future;
use std::sync::Arc;

/// Attached to the one task, in the middle of its poll.
#[test]
fn a_session_on_a_task_in_the_middle_of_its_poll() {
    let _alone = alone();
    let poll = LongPoll::begin("chosen");
    let other = LongPoll::begin("not chosen");
    let (session, start) =
        at(poll.clock(), || Session::start_on([&poll.task], Inherit::No).unwrap());
    poll.clock().wait_for(40);
    let (snapshot, now) = at(poll.clock(), || session.snapshot());
    check_between("chosen", row(&snapshot, "chosen").cpu_ns, between(start, now));
    let end = poll.end();
    other.end();
    let report = session.stop();
    check_between("chosen", row(&report, "chosen").cpu_ns, between(start, end));
    assert_eq!((report.sites.len(), report.tasks_cpu_ns), (1, report.sites[0].cpu_ns));
    poll.puppet.ends();
    other.puppet.ends();
}

/// A parent that has a child, which has a child, each of which spins; another task does as well.
fn family(truth: &Truth, name: &'static str) -> Tracked<impl Future<Output = ()> + Send + use<>> {
    let truth = truth.clone();
    let parent = async move {
        truth.spin(4);
        yield_once().await;
        let child = async move {
            spin(8);
            // Ended, and one that is alive at the end of the session.
            async { spin(16) }.task("family grandchild").await;
        };
        child.task("family child").await;
        truth.spin(4);
    };
    parent.task(name)
}

#[test]
fn a_session_on_tasks_without_their_children() {
    let _alone = alone();
    let (mut first, mut second) = (steps("one of two", 5), steps("two of two", 7));
    let mut unrelated = steps("of no interest", 5);
    let parent_truth = Truth::default();
    let parent = family(&parent_truth, "family without");
    let handles = [first.handle(), second.handle(), parent.handle()].map(|h| h.unwrap().clone());
    let session = Session::start_on(&handles, Inherit::No).unwrap();
    step(2, &mut first);
    step(3, &mut second);
    step(4, &mut unrelated);
    run(parent);
    let report = session.stop();
    step(1, &mut first);

    let mut names: Vec<_> = report.sites.iter().filter_map(|site| site.name.as_deref()).collect();
    names.sort_unstable();
    assert_eq!(names, ["family without", "one of two", "two of two"]);
    assert_eq!((row(&report, "one of two").polls, row(&report, "two of two").polls), (2, 3));
    check_ns("first", row(&report, "one of two").cpu_ns, ms(10));
    check_ns("second", row(&report, "two of two").cpu_ns, ms(21));
    check_ns("parent", row(&report, "family without").cpu_ns, parent_truth.cpu_ns());
    assert_eq!(row(&report, "family without").polls, 2);
    check_sums(&report);
}

#[test]
fn a_session_on_a_task_and_its_descendants() {
    let _alone = alone();
    let mut unrelated = steps("of no interest either", 5);
    let truth = Truth::default();
    let parent = family(&truth, "family with");
    let session = Session::start_on([parent.handle().unwrap()], Inherit::Children).unwrap();
    step(2, &mut unrelated);
    run(parent);
    run(async { spin(5) }.task("of no interest, later"));
    let report = session.stop();
    check_ns("the family", report.tasks_cpu_ns, truth.cpu_ns() + ms(8 + 16));
    assert_eq!(report.sites.iter().map(|site| site.polls).sum::<u64>(), 2 + 1 + 1);
    let of_the_family = |site: &SiteReport| site.name.as_deref().unwrap().starts_with("family");
    assert!(report.sites.iter().all(of_the_family), "{report:#?}");
    check_sums(&report);
}

/// Whose child is chosen as well is not counted for that twice.
#[test]
fn a_session_on_a_task_and_on_its_child() {
    let _alone = alone();
    let mut parent = Box::pin(
        async {
            let child = async {
                yield_once().await;
                spin(20);
            };
            child.task("chosen child").await;
            spin(10);
        }
        .task("chosen parent"),
    );
    let parent_task = Arc::clone(parent.handle().unwrap());
    // Before the child is made, so that the child inherits the parent's event.
    let on_parent = Session::start_on([&parent_task], Inherit::Children).unwrap();
    step(1, &mut parent);
    let child_task = support::live_tasks("chosen child").pop().unwrap();
    let on_both = Session::start_on([&parent_task, &child_task], Inherit::Children).unwrap();
    assert!(poll_once(parent.as_mut()).is_ready());
    check_ns("on the parent", on_parent.stop().tasks_cpu_ns, ms(30));
    check_ns("on both", on_both.stop().tasks_cpu_ns, ms(30));
}

#[test]
fn a_session_on_a_task_that_has_ended_leaves_it_out() {
    let _alone = alone();
    let ended = async {}.task("ended");
    let ended_task = Arc::clone(ended.handle().unwrap());
    run(ended);
    let mut alive = steps("alive", 5);
    let session =
        Session::start_on([&ended_task, alive.handle().unwrap()], Inherit::Children).unwrap();
    step(1, &mut alive);
    let report = session.stop();
    assert_eq!(report.sites.len(), 1, "{:#?}", report.sites);
    check_ns("alive", row(&report, "alive").cpu_ns, ms(5));
}
