//! The parts of tasks' lives: each is what really happened, and together they are the whole life.

mod support;

use pertask::{Inherit, Job, LifeReport, Report, SessionOptions, TaskExt, TreeReport};
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex};
use std::task::Context;
use std::time::{Duration, Instant};
use support::alone;
use support::by_hand::{Between, Moment, by_hand, sleep, spin};

fn measuring() -> SessionOptions {
    SessionOptions { life: true, ..SessionOptions::default() }
}

fn life<'r>(report: &'r Report, name: &str) -> &'r LifeReport {
    support::row(report, name).life.as_ref().expect("it was measured")
}

#[test]
fn each_part_is_what_happened() {
    let _alone = alone();
    let session = measuring().start().unwrap();
    let mut task = by_hand("by hand");
    sleep();
    let (first_begun, first_ended) = task.poll(spin);
    sleep();
    let first_woken = task.wake();
    sleep();
    task.wake();
    let (second_begun, second_ended) = task.poll(sleep);
    sleep();
    // Nobody has woken it: as in a `select!`, where another branch did.
    let (third_begun, third_ended) = task.poll(|| {});
    let third_woken = task.wake();
    sleep();
    let (report, read) = Moment::of(|| session.snapshot());

    let life = life(&report, "by hand");
    task.made.to(first_begun).assert_has(life.new_ns, "new");
    let mut waiting = first_ended.to(first_woken);
    waiting += second_ended.to(third_begun);
    waiting += third_ended.to(third_woken);
    waiting.assert_has(life.waiting_ns, "waiting");
    let mut ready = first_woken.to(second_begun);
    ready += third_woken.to(read);
    ready.assert_has(life.ready_ns, "ready, at the end, too");
    let mut polled = first_begun.to(first_ended);
    polled += second_begun.to(second_ended);
    polled += third_begun.to(third_ended);
    polled.assert_has(life.on_cpu_ns + life.blocked_ns, "polled");
    assert!(life.blocked_ns >= 20_000_000 - 100_000, "it slept in a poll: {life:?}");
    assert_eq!((life.unknown_ns, life.inside_ns), (0, 0));
    task.made.to(read).assert_has(life.life_ns(), "the whole life");

    let usage = &support::row(&report, "by hand").usage;
    assert_eq!(life.on_cpu_ns, usage.cpu_ns);
    assert_eq!(life.on_cpu_ns + life.blocked_ns, usage.wall_ns, "the clock was read once for both");
    assert!(report.tasks[0].life.is_some());
    let path = report.tree.iter().find(|row| row.site.name.as_deref() == Some("by hand"));
    assert!(path.unwrap().life.as_ref().unwrap().life_ns() <= life.life_ns());
}

#[test]
fn a_task_that_ends_keeps_its_life() {
    let _alone = alone();
    let session = measuring().start().unwrap();
    let mut task = by_hand("dropped");
    task.poll(|| {});
    sleep();
    let made = task.made;
    let ((), dropped) = Moment::of(move || drop(task));
    sleep();
    let report = session.stop();
    made.to(dropped).assert_has(life(&report, "dropped").life_ns(), "until the drop");
    // As by_hand.rs says, two clocks tell a second to a thousandth.
    assert!(life(&report, "dropped").waiting_ns >= 20_000_000 - 20_000);
    assert_eq!(support::row(&report, "dropped").tasks_live, 0);
}

#[test]
fn a_session_has_the_time_since_its_start() {
    let _alone = alone();
    let mut before = by_hand("before");
    before.poll(|| {});
    let first = measuring().start().unwrap();
    sleep();
    let (second, begun) = Moment::of(|| measuring().start().unwrap());
    before.wake();
    sleep();
    let (polled, ended) = before.poll(|| {});
    sleep();
    let (report, read) = Moment::of(|| second.stop());
    let since = life(&report, "before");
    begun.to(polled).assert_has(since.unknown_ns, "its waker was the executor's own");
    ended.to(read).assert_has(since.waiting_ns, "waiting");
    begun.to(read).assert_has(since.life_ns(), "since the second session began");
    assert!(life(&first.stop(), "before").life_ns() > since.life_ns());
}

/// A task that an earlier session has measured is measured again, though wakes were wanted for another task all the while.
#[test]
fn a_later_session_knows_of_wakes_from_the_next_poll_on() {
    let _alone = alone();
    let (mut task, other) = (by_hand("measured twice"), by_hand("other"));
    let all_the_while = measuring().start_on([other.task.handle().unwrap()], Inherit::No).unwrap();
    let of_task = SessionOptions { wake_latency: true, ..measuring() };
    for session in 0..2 {
        let begun = of_task.clone().start_on([task.task.handle().unwrap()], Inherit::No).unwrap();
        task.poll(|| {});
        sleep();
        let woken = task.wake();
        sleep();
        let (polled, ended) = task.poll(|| {});
        sleep();
        let (report, read) = Moment::of(|| begun.stop());
        let life = life(&report, "measured twice");
        woken.to(polled).assert_has(life.ready_ns, &format!("session {session}: ready"));
        assert!(ended.to(read).least < Duration::from_nanos(life.waiting_ns), "{life:?}");
        let wakes = support::row(&report, "measured twice").wakes.as_ref().unwrap();
        assert_eq!(wakes.count, 1, "session {session}: {wakes:?}");
    }
    drop(all_the_while);
}

/// A poll while the session attaches to the next task.
#[test]
fn a_poll_amid_an_attach_has_a_waker_that_notes_wakes() {
    let _alone = alone();
    let (mut task, other) = (by_hand("measured twice"), by_hand("other"));
    let [handle, others] = [&task, &other].map(|it| Arc::clone(it.task.handle().unwrap()));
    let all_the_while = measuring().start_on([&others], Inherit::No).unwrap();
    let first = measuring().start_on([&handle], Inherit::No).unwrap();
    task.poll(|| {});
    drop(first);
    let polls_at_the_second = [&handle, &others].into_iter().enumerate().map(|(place, handle)| {
        if place == 1 {
            task.poll(|| {});
        }
        handle
    });
    let (second, begun) = Moment::of(|| measuring().start_on(polls_at_the_second, Inherit::No));
    sleep();
    let (report, read) = Moment::of(|| second.unwrap().stop());
    let life = life(&report, "measured twice");
    begun.to(read).assert_has(life.waiting_ns, "waiting");
    assert_eq!(life.unknown_ns, 0, "{life:?}");
    drop(all_the_while);
}

#[test]
fn a_task_that_never_runs_is_shown_all_the_same() {
    let _alone = alone();
    let mut stuck = by_hand("stuck");
    let session = measuring().start().unwrap();
    stuck.poll(|| {});
    let (base, begun) = Moment::of(|| measuring().start().unwrap());
    sleep();
    let (report, read) = Moment::of(|| base.stop());
    let task = report.tasks.iter().find(|task| task.site.name.as_deref() == Some("stuck")).unwrap();
    assert_eq!((task.usage.polls, task.usage.cpu_ns), (0, 0));
    begun.to(read).assert_has(task.life.as_ref().unwrap().waiting_ns, "waiting");
    drop(session);
}

#[test]
fn the_time_of_a_task_inside_is_its_own() {
    let _alone = alone();
    let session = measuring().start().unwrap();
    let mut outer = by_hand("outer");
    let inside = Arc::new(Mutex::new(None));
    let told = Arc::clone(&inside);
    outer.poll(move || {
        let mut inner = by_hand("inner");
        *told.lock().unwrap() = Some(inner.poll(spin));
    });
    let (begun, ended) = inside.lock().unwrap().unwrap();
    let report = session.stop();
    begun.to(ended).assert_has(life(&report, "outer").inside_ns, "inside");
    let inner = life(&report, "inner");
    begun.to(ended).assert_has(inner.on_cpu_ns + inner.blocked_ns, "polled");
}

#[test]
fn of_what_is_no_future_nobody_knows_when_it_is_ready() {
    let _alone = alone();
    let session = measuring().start().unwrap();
    let (mut job, made) = Moment::of(|| Job::new("job"));
    let mut inside = None;
    let ((), run) = Moment::of(|| {
        job.run(|| {
            let first = Instant::now();
            spin();
            inside = Some((first, Instant::now()));
        });
    });
    let (first, last) = inside.unwrap();
    let begun = Moment { after: run.after, before: first };
    let ended = Moment { after: last, before: run.before };
    sleep();
    let (report, read) = Moment::of(|| session.stop());
    let life = life(&report, "job");
    assert_eq!((life.waiting_ns, life.ready_ns), (0, 0));
    ended.to(read).assert_has(life.unknown_ns, "unknown");
    made.to(begun).assert_has(life.new_ns, "new");
    made.to(read).assert_has(life.life_ns(), "the whole life");
}

#[test]
fn a_task_that_only_ends_has_its_life() {
    let _alone = alone();
    let job = Job::new("never runs");
    let (session, begun) = Moment::of(|| measuring().start().unwrap());
    sleep();
    let ((), ended) = Moment::of(|| drop(job));
    let report = session.stop();
    begun.to(ended).assert_has(life(&report, "never runs").life_ns(), "what it lived");
    let in_tree = |row: &&TreeReport| row.site.name.as_deref() == Some("never runs");
    let row = report.tree.iter().find(in_tree).expect("it is in the tree");
    assert_eq!(row.life.as_ref(), Some(life(&report, "never runs")));
}

#[test]
fn some_tasks_and_their_children() {
    let _alone = alone();
    let mut parent = by_hand("parent");
    let other = by_hand("other");
    let handle = parent.task.handle().cloned().unwrap();
    let (session, begun) =
        Moment::of(|| measuring().start_on([&handle], Inherit::Children).unwrap());
    let child = Arc::new(Mutex::new(None));
    let made = Arc::clone(&child);
    parent.poll(move || {
        let mut child = by_hand("child");
        child.poll(|| {});
        *made.lock().unwrap() = Some(child.made);
        sleep();
    });
    let (report, read) = Moment::of(|| session.stop());
    let (parent, child) = (begun.to(read), child.lock().unwrap().unwrap().to(read));
    let whole = life(&report, "parent").life_ns();
    let both = Between { least: parent.least, most: parent.most + child.most };
    both.assert_has(whole, "the parent and its child");
    assert!(report.sites.iter().all(|site| site.site.name.as_deref() != Some("other")));
    drop(other);
}

/// Tasks sleep, contend, block and compute on a runtime, and each life is as long as its own stopwatch says.
#[test]
fn lives_of_a_runtime_add_up() {
    const TASKS: usize = 40;
    let _alone = alone();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (truth, polls) = (Arc::new(Mutex::new(Between::default())), Arc::new(Mutex::new(0_u64)));
    let session = measuring().start().unwrap();
    let shared = Arc::new(tokio::sync::Mutex::new(0_u64));
    let tasks: Vec<_> = (0..TASKS)
        .map(|number| {
            let (shared, polls) = (Arc::clone(&shared), Arc::clone(&polls));
            let work = async move {
                for round in 0..5 {
                    tokio::time::sleep(Duration::from_micros(200 * (number as u64 % 7))).await;
                    *shared.lock().await += 1;
                    tokio::task::yield_now().await;
                    if (number + round) % 5 == 0 {
                        std::thread::sleep(Duration::from_micros(500));
                    }
                    std::hint::black_box((0..20_000_u64).sum::<u64>());
                    tokio::join!(
                        tokio::task::yield_now(),
                        tokio::time::sleep(Duration::from_millis(1))
                    );
                }
            };
            let mut work = Box::pin(work);
            let counting = poll_fn(move |context: &mut Context<'_>| {
                *polls.lock().unwrap() += 1;
                work.as_mut().poll(context)
            });
            let (task, made) = Moment::of(|| counting.task("mixed"));
            let truth = Arc::clone(&truth);
            runtime.spawn(async move {
                let mut task = Box::pin(task);
                let mut last = Instant::now();
                poll_fn(|context: &mut Context<'_>| {
                    last = Instant::now();
                    task.as_mut().poll(context)
                })
                .await;
                let ended = Moment { after: last, before: Instant::now() };
                *truth.lock().unwrap() += made.to(ended);
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    let report = session.stop();
    let life = life(&report, "mixed");
    truth.lock().unwrap().assert_has(life.life_ns(), "all lives");
    assert_eq!(support::row(&report, "mixed").usage.polls, *polls.lock().unwrap());
    assert_eq!((life.unknown_ns, life.inside_ns), (0, 0), "{life:?}");
    assert!(life.waiting_ns > 0 && life.ready_ns > 0 && life.on_cpu_ns > 0, "{life:?}");
}

#[test]
fn without_the_option_there_is_no_life() {
    let _alone = alone();
    let session = pertask::Session::start().unwrap();
    let mut task = by_hand("not measured");
    task.poll(|| {});
    let report = session.stop();
    assert_eq!(support::row(&report, "not measured").life, None);
    assert!(!report.to_string().contains("Lives of tasks"));
    let session = measuring().start().unwrap();
    let mut task = by_hand("measured");
    task.poll(spin);
    let text = session.stop().to_string();
    assert!(text.contains("Lives of tasks by spawn site") && text.contains('█'), "{text}");
}
