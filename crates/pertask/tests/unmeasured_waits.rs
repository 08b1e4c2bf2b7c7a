//! A task that is polled with the executor's own waker has no waits in a report: not a count of zero, but none.

mod support;

use pertask::core::Cpu;
use pertask::{SessionOptions, TaskExt};
use std::panic::Location;
use support::alone;

fn measuring() -> SessionOptions {
    SessionOptions { wake_latency: true, ..SessionOptions::default() }
}

#[test]
fn a_task_whose_waits_nobody_measures_has_none_and_one_that_never_waited_has_zero() {
    let _turn = alone();
    let session = measuring().start().unwrap();
    // A task without a tracked future, as tokio's hooks and other executors make them.
    let mut raw = Cpu::with(|cpu| cpu.fork(cpu.site(Some("raw"), Location::caller())));
    Cpu::with(|cpu| cpu.run(&mut raw, || support::spin(1)));
    let mut waits = std::pin::pin!(std::future::pending::<()>().task("never woken"));
    assert!(support::poll_once(waits.as_mut()).is_pending());
    let report = session.snapshot();
    assert_eq!(support::row(&report, "raw").polls, 1);
    assert_eq!(support::row(&report, "raw").wakes, None);
    let never_woken = support::row(&report, "never woken").wakes.as_ref();
    assert_eq!(never_woken.expect("it is measured").count, 0);

    // The rows of single tasks agree.
    let live = |name: &str| report.tasks.iter().find(|task| task.name.as_deref() == Some(name));
    assert_eq!(live("raw").expect("it lives").wakes, None);
    assert_eq!(live("never woken").unwrap().wakes.as_ref().map(|waits| waits.count), Some(0));

    // The rows stay as they are when the tasks have ended.
    drop(raw);
    support::run(std::future::ready(()).task("ready at once"));
    let report = session.stop();
    assert_eq!(support::row(&report, "raw").wakes, None);
    let ready = support::row(&report, "ready at once").wakes.as_ref();
    assert_eq!(ready.expect("it was measured").count, 0);
    #[cfg(feature = "json")]
    {
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        let sites = json["sites"].as_array().unwrap();
        let raw = sites.iter().find(|site| site["name"] == "raw").unwrap();
        assert!(raw["wakes"].is_null(), "{raw}");
    }
}

/// A session reports what it has measured itself, and not what an earlier session measured of the same site.
#[test]
fn waits_that_an_earlier_session_measured_are_not_a_later_ones() {
    let _turn = alone();
    let session = measuring().start().unwrap();
    support::run(support::yield_once().task("measured before"));
    let report = session.stop();
    assert_eq!(support::row(&report, "measured before").wakes.as_ref().unwrap().count, 1);
    let _idle = std::future::pending::<()>().task("measured before");
    let session = measuring().start().unwrap();
    let report = session.stop();
    assert_eq!(support::row(&report, "measured before").wakes, None);
}

#[cfg(feature = "tokio")]
#[test]
fn a_blocking_task_has_no_waits() {
    let _turn = alone();
    let session = measuring().start().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let line = line!() + 1;
    runtime.block_on(async { pertask::tokio::spawn_blocking(|| {}).await }).unwrap();
    let report = session.stop();
    assert_eq!(support::row_at(&report, file!(), line).wakes, None);
}

#[cfg(all(tokio_unstable, feature = "tokio"))]
#[test]
fn a_task_that_tokios_hooks_alone_know_has_no_waits() {
    let _turn = alone();
    let session = measuring().start().unwrap();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = pertask::tokio::track_runtime(&mut builder).build().unwrap();
    let line = line!() + 1;
    runtime.block_on(async { tokio::spawn(tokio::task::yield_now()).await }).unwrap();
    let report = session.stop();
    let row = support::row_at(&report, file!(), line);
    assert_eq!((row.polls, &row.wakes), (2, &None));
}
