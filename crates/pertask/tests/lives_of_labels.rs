//! The lives of tasks by label: each part belongs to the labels that the task had while it lasted, and each moment to one part.

mod support;

use pertask::{
    Inherit, Job, LabelExt, LabelReport, LifeReport, Report, Session, SessionOptions, TaskExt,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use support::alone;
use support::by_hand::{Between, ByHand, Moment, by_hand, labelled, sleep, spin};

fn measuring() -> SessionOptions {
    SessionOptions { life: true, ..SessionOptions::default() }
}

fn parts(life: &LifeReport) -> [u64; 7] {
    let LifeReport { on_cpu_ns, blocked_ns, ready_ns, waiting_ns, unknown_ns, inside_ns, new_ns } =
        life;
    [on_cpu_ns, blocked_ns, ready_ns, waiting_ns, unknown_ns, inside_ns, new_ns].map(|ns| *ns)
}

/// The row of a key, of which each part adds up to that of all sites.
#[track_caller]
fn key<'r>(report: &'r Report, key: &str) -> &'r LabelReport {
    let row = report.labels.iter().find(|row| row.key == key);
    let row = row.unwrap_or_else(|| panic!("no key {key}: {:#?}", report.labels));
    let values = row.values.iter().map(|value| value.life.as_ref());
    let rest = [row.others_life.as_ref(), row.without_life.as_ref()];
    let add = |sum: [u64; 7], life: Option<&LifeReport>| {
        let more = parts(life.expect("it was measured"));
        std::array::from_fn(|part| sum[part] + more[part])
    };
    let labels = values.chain(rest).fold([0; 7], add);
    let sites = report.sites.iter().map(|site| site.life.as_ref()).fold([0; 7], add);
    assert_eq!(labels, sites, "{row:#?}");
    row
}

/// The life of a value.
#[track_caller]
fn life(report: &Report, name: &str, of: &str) -> LifeReport {
    let value = key(report, name).values.iter().find(|it| it.value == of);
    value.and_then(|value| value.life.clone()).unwrap_or_default()
}

fn polled_ns(life: &LifeReport) -> u64 {
    life.on_cpu_ns + life.blocked_ns
}

#[test]
fn each_value_has_the_parts_of_its_tasks() {
    let _alone = alone();
    let session = measuring().start().unwrap();
    let mut acme = labelled("request", &[("tenant", "acme"), ("step", "1")]);
    let mut zeta = labelled("request", &[("tenant", "zeta")]);
    let mut neither = by_hand("neither");
    sleep();
    let (begun, ended) = acme.poll(spin);
    let (zeta_begun, zeta_ended) = zeta.poll(sleep);
    let (neither_begun, neither_ended) = neither.poll(|| {});
    let woken = acme.wake();
    sleep();
    let (again, again_ended) = acme.poll(|| {});
    sleep();
    let (report, read) = Moment::of(|| session.snapshot());

    let of_acme = life(&report, "tenant", "acme");
    acme.made.to(begun).assert_has(of_acme.new_ns, "new");
    let mut waiting = ended.to(woken);
    waiting += again_ended.to(read);
    waiting.assert_has(of_acme.waiting_ns, "waiting, at the end, too");
    woken.to(again).assert_has(of_acme.ready_ns, "ready");
    let mut polled = begun.to(ended);
    polled += again.to(again_ended);
    polled.assert_has(polled_ns(&of_acme), "polled");
    acme.made.to(read).assert_has(of_acme.life_ns(), "the whole life");
    assert_eq!(of_acme, life(&report, "step", "1"), "the same tasks");

    let of_zeta = life(&report, "tenant", "zeta");
    zeta.made.to(zeta_begun).assert_has(of_zeta.new_ns, "zeta: new");
    zeta_ended.to(read).assert_has(of_zeta.waiting_ns, "zeta: waiting");
    assert!(of_zeta.blocked_ns >= 20_000_000 - 100_000, "it slept in a poll: {of_zeta:?}");
    let without = key(&report, "tenant").without_life.clone().unwrap();
    let mut new = neither.made.to(neither_begun);
    // The others had no labels either while they were made. The first labels of a process take a tenth of a millisecond.
    new.most += [acme.made, zeta.made].iter().map(|made| made.before - made.after).sum();
    new.assert_has(without.new_ns, "without: new");
    neither_ended.to(read).assert_has(without.waiting_ns, "without: waiting");
    assert_eq!(key(&report, "tenant").others_life, Some(LifeReport::default()));
    let text = report.to_string();
    assert!(text.contains("Lives by label tenant (% of their lives)"), "{text}");
}

/// Labels that hold for a part of a poll have that part, and nothing of the wait after it.
#[test]
fn a_change_of_labels_divides_a_poll() {
    let _alone = alone();
    let session = measuring().start().unwrap();
    let mut task = labelled("request", &[("part", "outer")]);
    let inside = Arc::new(Mutex::new(None));
    let told = Arc::clone(&inside);
    let (begun, ended) = task.poll(move || {
        spin();
        let after = Moment::of(|| {}).1.after;
        let work = async { Moment::of(sleep).1 };
        let held = support::run(work.labels([("part", "inner"), ("within", "yes")]));
        let before = Moment::of(|| {}).1.before;
        let begun = Moment { after, before: held.after };
        *told.lock().unwrap() = Some((begun, Moment { after: held.before, before }));
    });
    sleep();
    let (report, read) = Moment::of(|| session.stop());
    let (inner_begun, inner_ended) = inside.lock().unwrap().unwrap();
    let [inner, outer] = ["inner", "outer"].map(|value| life(&report, "part", value));
    inner_begun.to(inner_ended).assert_has(polled_ns(&inner), "inner");
    assert_eq!(inner.life_ns(), polled_ns(&inner), "it holds in the poll only");
    let mut rest = begun.to(inner_begun);
    rest += inner_ended.to(ended);
    rest.assert_has(polled_ns(&outer), "outer");
    ended.to(read).assert_has(outer.waiting_ns, "waiting has the labels of the task");
    assert_eq!(life(&report, "within", "yes"), inner);
    assert_eq!((inner.inside_ns, outer.inside_ns), (0, 0), "a change of labels is no other task");
}

/// A state goes on with the labels that the task gets: before its first poll, as it waits, and when it has been woken.
#[test]
fn a_state_that_goes_on_with_other_labels_is_divided() {
    let _alone = alone();
    let session = measuring().start().unwrap();
    let task = labelled("request", &[("step", "a")]);
    let made = task.made;
    sleep();
    let (mut task, to_b) = task.relabel(&[("step", "b")]);
    sleep();
    let (begun, ended) = task.poll(|| {});
    sleep();
    let (task, to_c) = task.relabel(&[("step", "c")]);
    sleep();
    let woken = task.wake();
    sleep();
    let (mut task, to_d) = task.relabel(&[("step", "d")]);
    sleep();
    let (polled, _) = task.poll(|| {});
    let report = session.stop();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|step| life(&report, "step", step));
    made.to(to_b).assert_has(a.new_ns, "a: new");
    assert_eq!(a.life_ns(), a.new_ns);
    to_b.to(begun).assert_has(b.new_ns, "b: new");
    ended.to(to_c).assert_has(b.waiting_ns, "b: waiting");
    to_c.to(woken).assert_has(c.waiting_ns, "c: waiting");
    woken.to(to_d).assert_has(c.ready_ns, "c: ready");
    assert_eq!(c.life_ns(), c.waiting_ns + c.ready_ns);
    to_d.to(polled).assert_has(d.ready_ns, "d: ready");
}

#[test]
fn who_inherits_labels_lives_for_them() {
    let _alone = alone();
    let session = measuring().start().unwrap();
    let child = Arc::new(Mutex::new(None::<ByHand>));
    let made = Arc::clone(&child);
    by_hand("parent").poll(move || {
        let make = async move { *made.lock().unwrap() = Some(by_hand("child")) };
        support::run(make.labels([("tenant", "heir")]));
    });
    let mut child = child.lock().unwrap().take().unwrap();
    sleep();
    let (begun, ended) = child.poll(|| {});
    sleep();
    let (report, read) = Moment::of(|| session.stop());
    let heir = life(&report, "tenant", "heir");
    child.made.to(begun).assert_has(heir.new_ns, "new");
    ended.to(read).assert_has(heir.waiting_ns, "waiting");
}

/// However a task ends, and wherever: its last state ends with it, for its labels.
#[test]
fn tasks_that_end_leave_their_lives_to_their_labels() {
    let _alone = alone();
    let session = measuring().start().unwrap();
    let mut dropped = labelled("dropped", &[("end", "dropped")]);
    let (_, ended) = dropped.poll(|| {});
    sleep();
    let ((), gone) = Moment::of(|| drop(dropped));
    // A job has no waker, and ends without a switch.
    let (mut job, made) = Moment::of(|| Job::new("job").labels([("end", "job")]));
    job.run(spin);
    sleep();
    let ((), job_gone) = Moment::of(|| drop(job));
    // A thread that has run no task is no CPU.
    let (elsewhere, made_there) = Moment::of(|| Job::new("job").labels([("end", "elsewhere")]));
    sleep();
    let drops = thread::spawn(move || Moment::of(|| drop(elsewhere)).1);
    let gone_there = drops.join().unwrap();
    sleep();
    let report = session.stop();
    ended.to(gone).assert_has(life(&report, "end", "dropped").waiting_ns, "dropped");
    made.to(job_gone).assert_has(life(&report, "end", "job").life_ns(), "job");
    let unpolled = life(&report, "end", "elsewhere");
    made_there.to(gone_there).assert_has(unpolled.new_ns, "elsewhere");
    assert_eq!(unpolled.life_ns(), unpolled.new_ns);
}

/// Labels whose tasks have ended are kept, however many come after them. A key with too many values has the rest in one row, and
/// other keys lose nothing by it.
#[test]
fn labels_that_nothing_holds_keep_their_lives() {
    const REQUESTS: usize = 7_000;
    let _alone = alone();
    let without_place = pertask::label_sets_without_place();
    let session = measuring().start().unwrap();
    let mut first = labelled("first", &[("tenant", "first")]);
    let (_, ended) = first.poll(|| {});
    sleep();
    let ((), gone) = Moment::of(|| drop(first));
    let mut truths = [Between::default(); 2];
    for number in 0..REQUESTS {
        let tenant = ["acme", "zeta"][number % 2];
        let id = number.to_string();
        let mut request = labelled("request", &[("tenant", tenant), ("request", &id)]);
        request.poll(|| {});
        let made = request.made;
        let ((), gone) = Moment::of(|| drop(request));
        truths[number % 2] += made.to(gone);
    }
    let report = session.stop();
    assert_eq!(report.lost.label_sets_without_place, 0);
    assert_eq!(pertask::label_sets_without_place(), without_place);
    ended.to(gone).assert_has(life(&report, "tenant", "first").waiting_ns, "the first of all");
    for (tenant, mut truth) in ["acme", "zeta"].into_iter().zip(truths) {
        // Each of the stopwatches is read to the nanosecond.
        truth.most += Duration::from_micros(100);
        truth.assert_has(life(&report, "tenant", tenant).life_ns(), tenant);
    }
    let requests = key(&report, "request");
    assert_eq!(requests.values.len(), 100, "as many as the options say");
    let values: u64 = requests.values.iter().map(|it| it.life.as_ref().unwrap().life_ns()).sum();
    let others = requests.others_life.as_ref().unwrap().life_ns();
    let tenants = ["acme", "zeta"].map(|tenant| life(&report, "tenant", tenant).life_ns());
    assert_eq!(values + others, tenants.iter().sum::<u64>(), "{requests:#?}");
}

/// What a task did before a session is not its business, though the task waits when the session begins.
#[test]
fn a_session_that_begins_as_tasks_wait_has_the_rest_of_the_wait() {
    let _alone = alone();
    let mut before = labelled("before", &[("tenant", "early bird")]);
    before.poll(|| {});
    sleep();
    let (first, first_began) = Moment::of(|| measuring().start().unwrap());
    sleep();
    let (report, read) = Moment::of(|| first.snapshot());
    let early = life(&report, "tenant", "early bird");
    first_began.to(read).assert_has(early.unknown_ns, "its waker was the executor's own");
    let (_, ended) = before.poll(|| {});
    sleep();
    let (second, second_began) = Moment::of(|| measuring().start().unwrap());
    sleep();
    let (report, read) = Moment::of(|| second.stop());
    let early = life(&report, "tenant", "early bird");
    second_began.to(read).assert_has(early.waiting_ns, "waiting");
    assert_eq!(early.life_ns(), early.waiting_ns);
    let (report, read) = Moment::of(|| first.stop());
    let early = life(&report, "tenant", "early bird");
    ended.to(read).assert_has(early.waiting_ns, "waiting, for the first session");
    first_began.to(read).assert_has(early.life_ns(), "all of it");
}

/// A task that runs as a session begins, with labels of a future in it.
#[test]
fn a_poll_under_way_counts_for_its_labels() {
    let _alone = alone();
    let session = Arc::new(Mutex::new(None::<(Session, Moment)>));
    let begun = Arc::clone(&session);
    let mut task = labelled("long", &[("tenant", "long")]);
    let (_, ended) = task.poll(move || {
        let (session, began) = Moment::of(|| measuring().start().unwrap());
        sleep();
        let (snapshot, read) = Moment::of(|| session.snapshot());
        began.to(read).assert_has(polled_ns(&life(&snapshot, "tenant", "long")), "so far");
        *begun.lock().unwrap() = Some((session, began));
        spin();
    });
    let (session, began) = session.lock().unwrap().take().unwrap();
    let report = session.stop();
    began.to(ended).assert_has(polled_ns(&life(&report, "tenant", "long")), "at the end");
}

/// Threads change states, labels and tasks while others read: each reading has more than the last, and the last has the truth.
#[test]
fn readings_amid_changes_count_each_moment_once() {
    let _alone = alone();
    let session = measuring().start().unwrap();
    let (truth, ends) = (Mutex::new(Between::default()), AtomicBool::new(false));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut sum = Between::default();
                    for round in 0..60 {
                        let make = async { by_hand("churn") }.labels([("tenant", "churn")]);
                        let mut task = support::run(make);
                        thread::sleep(Duration::from_micros(300 * (round % 5)));
                        task.poll(|| {
                            support::run(async {}.labels([("inner", "yes")]));
                        });
                        thread::sleep(Duration::from_micros(500 * (round % 7)));
                        let (mut task, _) = task.relabel(&[("round", "last")]);
                        task.wake();
                        task.poll(|| {});
                        let made = task.made;
                        let ((), gone) = Moment::of(|| drop(task));
                        sum += made.to(gone);
                    }
                    *truth.lock().unwrap() += sum;
                })
            })
            .collect();
        scope.spawn(|| {
            let mut last_ns = 0;
            while !ends.load(Ordering::Relaxed) {
                let report = session.snapshot();
                let Some(row) = report.labels.iter().find(|row| row.key == "tenant") else {
                    continue;
                };
                let without = row.without_life.as_ref().unwrap();
                assert_eq!(without.life_ns(), 0, "all have the label from the first: {report:#?}");
                let churn_ns = life(&report, "tenant", "churn").life_ns();
                assert!(churn_ns >= last_ns, "{churn_ns} after {last_ns}");
                last_ns = churn_ns;
            }
        });
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        ends.store(true, Ordering::Relaxed);
    });
    let report = session.stop();
    let churn = life(&report, "tenant", "churn");
    truth.lock().unwrap().assert_has(churn.life_ns(), "all lives");
}

#[test]
fn without_the_option_and_in_a_session_on_some_tasks_labels_have_no_lives() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let mut task = labelled("request", &[("tenant", "acme")]);
    task.poll(spin);
    let report = session.stop();
    let tenant = &report.labels[0];
    assert_eq!((&tenant.others_life, &tenant.without_life), (&None, &None));
    assert!(tenant.values.iter().all(|value| value.life.is_none()), "{tenant:#?}");
    assert!(!report.to_string().contains("Lives by label"));
    let some = measuring().start_on([task.task.handle().unwrap()], Inherit::No).unwrap();
    task.poll(spin);
    assert_eq!(some.stop().labels, []);
    let options = SessionOptions { max_label_values: 1, ..measuring() };
    let session = options.start().unwrap();
    support::run(async { spin() }.task("busy").labels([("tenant", "busy")]));
    let idle = labelled("idle", &[("tenant", "idle")]);
    sleep();
    let (report, read) = Moment::of(|| session.stop());
    let tenant = key(&report, "tenant");
    assert_eq!(tenant.values[0].value, "busy", "by CPU time");
    let mut others = idle.made.to(read);
    others.most += Duration::from_secs(3_600);
    others.assert_has(tenant.others_life.as_ref().unwrap().life_ns(), "at least the idle one");
}
