//! Who holds the lock that a task waits for, where tokio tells what becomes of its locks.
//!
//! ```text
//! RUSTFLAGS="--cfg tokio_unstable" cargo test -p pertask --features profiler,tokio,tracing --test lock_holders
//! ```
#![cfg(all(tokio_unstable, feature = "profiler", feature = "tracing"))]

mod support;

use pertask::TaskExt;
use pertask::profile::{GroupBy, Profile, State, Subject};
use pertask::sampler::{RawProfile, Sampler, SamplerOptions};
use pertask::tracing::LockLayer;
use std::future::pending;
use std::sync::{Arc, Once};
use std::time::Duration;
use support::{alone, wait_until};
use tokio::sync::{Mutex, Notify, RwLock};
use tracing_subscriber::layer::SubscriberExt;

fn subscribed() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(LockLayer::new());
        tracing::subscriber::set_global_default(subscriber).expect("the only one");
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn sampling() -> Sampler {
    let mut options = SamplerOptions::with_frequency(99);
    options.waits = true;
    Sampler::start(options).expect("a mechanism works")
}

/// Who ends the waits of tasks of that name, or holds what they wait for, as a file says it.
fn edges(raw: &RawProfile, task: &str) -> Vec<(Option<String>, bool)> {
    let mut file = Vec::new();
    raw.resolve().write_pprof(&mut file).unwrap();
    let waiting = Profile::from_pprof(&file[..]).unwrap().in_state(State::Waiting);
    let rows = waiting.summary(&GroupBy::Waker).rows;
    let of = |subject: Subject| match subject {
        Subject::Waker { task: waits, by, holds } if *waits == *task => {
            Some((by.map(|by| by.to_string()), holds))
        }
        _ => None,
    };
    rows.into_iter().filter_map(|row| of(row.subject)).collect()
}

/// Samples until that task's wait is seen.
fn until_seen(sampler: &Sampler, task: &str) -> RawProfile {
    let mut seen = None;
    wait_until("its wait is seen", || {
        let raw = sampler.snapshot();
        let is_seen = !edges(&raw, task).is_empty();
        seen = is_seen.then_some(raw);
        is_seen
    });
    seen.unwrap()
}

#[test]
fn a_task_that_waits_for_ever_names_the_one_that_holds_the_mutex() {
    let _alone = alone();
    subscribed();
    let runtime = runtime();
    let mutex = Arc::new(Mutex::new(()));
    let (has, taken) = (Arc::clone(&mutex), Arc::new(Notify::new()));
    let says = Arc::clone(&taken);
    // It takes the lock before anybody samples.
    let holds = async move {
        let _guard = has.lock().await;
        says.notify_one();
        pending::<()>().await;
    };
    let holder = runtime.spawn(holds.task("holds"));
    runtime.block_on(taken.notified());
    let sampler = sampling();
    let waits = Arc::clone(&mutex);
    let stuck = runtime.spawn(async move { drop(waits.lock().await) }.task("stuck"));
    let raw = until_seen(&sampler, "stuck");
    assert_eq!(edges(&raw, "stuck"), [(Some("holds".to_owned()), true)]);
    let table = raw.resolve().in_state(State::Waiting).summary(&GroupBy::Waker);
    let table = table.table(Default::default()).to_string();
    assert!(table.contains("holds lock: holds"), "{table}");

    // The holder's end drops the guard, which wakes the task: from then on it is a wait that somebody ended.
    holder.abort();
    runtime.block_on(stuck).unwrap();
    assert_eq!(edges(&sampler.stop(), "stuck"), [(Some("holds".to_owned()), false)]);
}

#[test]
fn readers_name_the_writer_and_those_that_wait_for_something_else_name_nobody() {
    let _alone = alone();
    subscribed();
    let runtime = runtime();
    let (lock, other) = (Arc::new(RwLock::new(())), Arc::new(Mutex::new(())));
    let (has, taken) = (Arc::clone(&lock), Arc::new(Notify::new()));
    let says = Arc::clone(&taken);
    let holds = async move {
        let _guard = has.write().await;
        says.notify_one();
        pending::<()>().await;
    };
    runtime.spawn(holds.task("writes"));
    runtime.block_on(taken.notified());
    let sampler = sampling();
    let reads = Arc::clone(&lock);
    runtime.spawn(async move { drop(reads.read().await) }.task("reads"));
    // It has given the lock up, and sleeps.
    let tries = Arc::clone(&lock);
    let gives_up = async move {
        let _ = tokio::time::timeout(Duration::from_millis(5), tries.read()).await;
        tokio::time::sleep(Duration::from_secs(3_600)).await;
    };
    runtime.spawn(gives_up.task("gives up"));
    // The lock is not what it waits for first.
    let sleeps_first = async move {
        let _held = other.lock().await;
        tokio::select! {
            biased;
            () = tokio::time::sleep(Duration::from_secs(3_600)) => {}
            _ = lock.read() => {}
        }
    };
    runtime.spawn(sleeps_first.task("sleeps first"));
    let raw = until_seen(&sampler, "reads");
    assert_eq!(edges(&raw, "reads"), [(Some("writes".to_owned()), true)]);
    let raw = until_seen(&sampler, "sleeps first");
    assert_eq!(edges(&raw, "sleeps first"), [(None, false)]);
    wait_until("it waits for its timer alone", || {
        edges(&sampler.snapshot(), "gives up") == [(None, false)]
    });
}
