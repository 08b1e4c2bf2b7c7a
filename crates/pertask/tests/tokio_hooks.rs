//! Every task of a runtime seen through tokio's hooks, and none twice where the wrapper has it too.
//!
//! ```text
//! RUSTFLAGS="--cfg tokio_unstable" cargo test -p pertask --features tokio --test tokio_hooks
//! ```
#![cfg(all(tokio_unstable, feature = "tokio"))]

use pertask::core::System;
use pertask::{Report, Session, SiteReport, TaskExt};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

/// Sessions see the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn current_thread() -> Runtime {
    pertask::tokio::track_runtime(&mut Builder::new_current_thread()).enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    pertask::tokio::track_runtime(builder.worker_threads(2)).enable_all().build().unwrap()
}

async fn yield_times(times: u32) {
    for _ in 0..times {
        yield_now().await;
    }
}

fn at_line(report: &Report, line: u32) -> Option<&SiteReport> {
    report
        .sites
        .iter()
        .find(|site| site.site.line == line && site.site.file.ends_with("tokio_hooks.rs"))
}

fn named<'r>(report: &'r Report, name: &str) -> &'r SiteReport {
    let of_name = |site: &&SiteReport| site.site.name.as_deref() == Some(name);
    report.sites.iter().find(of_name).unwrap_or_else(|| panic!("no row for {name}: {report:?}"))
}

#[test]
fn a_task_that_nobody_wrapped_is_seen_with_its_spawn_site() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let spawned_at = line!() + 2;
    current_thread().block_on(async {
        tokio::spawn(yield_times(9)).await.unwrap();
    });
    let report = session.stop();
    let site = at_line(&report, spawned_at).expect("a row for the spawn");
    assert_eq!((site.tasks_started, site.tasks_live, site.usage.polls), (1, 0, 10));
    assert!(site.usage.cpu_ns > 0);
}

#[test]
fn a_wrapped_task_is_not_counted_twice() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let spawned_at = line!() + 3;
    current_thread().block_on(async {
        // The hook is told of this line too.
        tokio::spawn(yield_times(4).task("wrapped by hand")).await.unwrap();
        pertask::tokio::spawn(yield_times(4)).await.unwrap();
    });
    let report = session.stop();
    let by_hand = named(&report, "wrapped by hand");
    assert_eq!((by_hand.tasks_started, by_hand.usage.polls), (1, 5));
    let on_that_line = report.sites.iter().filter(|site| site.site.line == spawned_at);
    assert_eq!(on_that_line.count(), 1, "the hooks counted it as well: {report:?}");
    let by_us = at_line(&report, spawned_at + 1).unwrap();
    assert_eq!((by_us.tasks_started, by_us.usage.polls), (1, 5));
}

#[test]
fn a_wrapper_inside_a_task_is_a_task_of_its_own() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let spawned_at = line!() + 2;
    current_thread().block_on(async {
        tokio::spawn(async { yield_times(4).task("part").await }).await.unwrap();
    });
    let report = session.stop();
    assert_eq!(named(&report, "part").tasks_started, 1);
    let outer =
        report.sites.iter().find(|site| site.site.line == spawned_at && site.site.name.is_none());
    assert_eq!(outer.map(|site| (site.tasks_started, site.usage.polls)), Some((1, 5)));
}

#[test]
fn another_task_spawned_right_after_a_wrapper_was_made_is_still_seen() {
    let _alone = alone();
    let session = Session::start().unwrap();
    let spawned_at = line!() + 3;
    current_thread().block_on(async {
        let kept = yield_times(1).task("kept for later");
        tokio::spawn(yield_times(9)).await.unwrap();
        kept.await;
    });
    let report = session.stop();
    let other = at_line(&report, spawned_at).expect("a row for the spawn");
    assert_eq!(other.usage.polls, 9, "all but the first poll, which was taken for the wrapper's");
    assert_eq!(report.lost.polls_untracked, 1, "and that is said");
    assert_eq!(named(&report, "kept for later").usage.polls, 2);
}

#[test]
fn no_task_is_left_when_its_runtime_is_gone() {
    let _alone = alone();
    let before = System::global().live_tasks();
    for runtime in [current_thread(), multi_thread()] {
        runtime.block_on(async {
            tokio::spawn(std::future::pending::<()>());
            tokio::spawn(std::future::pending::<()>().task("never ready"));
            // Never done by itself, however long the abort takes.
            let aborted = tokio::spawn(std::future::pending::<()>());
            aborted.abort();
            assert!(aborted.await.unwrap_err().is_cancelled());
            let panics = tokio::spawn(async { panic!("a task may panic") });
            assert!(panics.await.unwrap_err().is_panic());
            tokio::task::spawn_blocking(|| {}).await.unwrap();
            yield_times(3).await;
        });
        drop(runtime);
        assert_eq!(System::global().live_tasks(), before);
    }
}

#[test]
fn tasks_that_wake_each_other_across_workers_are_followed() {
    const ROUNDS: u32 = 20_000;
    static POLLS: AtomicU64 = AtomicU64::new(0);
    let _alone = alone();
    let session = Session::start().unwrap();
    let spawned_at = line!() + 7;
    multi_thread().block_on(async {
        let (to_pong, mut from_ping) = tokio::sync::mpsc::channel(1);
        let (to_ping, mut from_pong) = tokio::sync::mpsc::channel(1);
        let mut both = tokio::task::JoinSet::new();
        for (to, from) in [(to_pong, &mut from_pong), (to_ping, &mut from_ping)] {
            let mut from = std::mem::replace(from, tokio::sync::mpsc::channel(1).1);
            let mut plays = Box::pin(async move {
                for round in 0..ROUNDS {
                    to.send(round).await.unwrap();
                    assert_eq!(from.recv().await, Some(round));
                }
            });
            both.spawn(std::future::poll_fn(move |context| {
                POLLS.fetch_add(1, Relaxed);
                plays.as_mut().poll(context)
            }));
        }
        both.join_all().await;
    });
    let report = session.stop();
    let site =
        report.sites.iter().find(|site| site.site.line >= spawned_at && site.tasks_started == 2);
    let site = site.unwrap_or_else(|| panic!("no row: {report:?}"));
    let lost = report.lost.polls_untracked;
    println!("{} polls followed, {lost} not", site.usage.polls);
    // One is not followed when a worker loses its CPU between the wake and the hook. How many is the machine's; but none is
    // lost in silence.
    assert_eq!(site.usage.polls + lost, POLLS.load(Relaxed), "{lost} not followed");
    assert!(site.usage.polls > lost, "{lost} polls of {} were not followed", site.usage.polls);
    let parts = report.tasks_cpu_ns + report.workers_cpu_ns + report.other_cpu_ns;
    assert!(parts.abs_diff(report.process_cpu_ns) * 100 < report.process_cpu_ns, "{report:?}");
}
