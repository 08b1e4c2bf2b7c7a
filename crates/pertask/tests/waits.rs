//! Where tasks wait, and who wakes them: each wait stands at what the task awaited, and all of a task's waits are as long as the clock
//! says.

#![cfg(feature = "profiler")]

mod support;

use pertask::TaskExt;
use pertask::profile::{GroupBy, Profile, Sample, State, Subject};
use pertask::sampler::{RawProfile, RawWait, ResolveOptions, Sampler, SamplerOptions, resolve};
use pertask::symbols::Symbolizer;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use support::alone;

fn sampling() -> Sampler {
    let mut options = SamplerOptions::with_frequency(99);
    options.waits = true;
    Sampler::start(options).expect("a mechanism works")
}

/// The functions of each wait's stack, from the innermost, with the wait.
fn named(profile: &RawProfile) -> Vec<(Vec<String>, &RawWait)> {
    let mut symbolizer = Symbolizer::new(&profile.modules);
    let mut functions = |wait: &RawWait| {
        let frames = wait.stack.iter().flat_map(|address| symbolizer.frames(*address).to_vec());
        frames.map(|frame| frame.function.to_string()).collect::<Vec<_>>()
    };
    profile.waits.iter().map(|wait| (functions(wait), wait)).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The time of waits whose stack has all of these, from the innermost, each as a part of a function's name.
fn waited_at(named: &[(Vec<String>, &RawWait)], wanted: &[&str]) -> u64 {
    let has = |functions: &[String]| {
        let mut rest = functions.iter();
        wanted.iter().all(|part| rest.any(|function| function.contains(part)))
    };
    named.iter().filter(|(functions, _)| has(functions)).map(|(_, wait)| wait.waiting_ns).sum()
}

async fn query() {
    tokio::time::sleep(Duration::from_millis(40)).await;
}

async fn locked(mutex: &tokio::sync::Mutex<()>) {
    drop(mutex.lock().await);
}

#[test]
fn a_wait_stands_at_what_was_awaited() {
    let _alone = alone();
    let runtime = runtime();
    let mutex = Arc::new(tokio::sync::Mutex::new(()));
    let (send, mut receive) = tokio::sync::mpsc::channel::<u32>(1);
    let sampler = sampling();
    let holder = Arc::clone(&mutex);
    let work = async move {
        query().await;
        locked(&mutex).await;
        receive.recv().await.unwrap();
        tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(40)))
            .await
            .unwrap();
        let never = std::future::pending::<()>();
        let _ = tokio::time::timeout(Duration::from_millis(40), never).await;
    };
    runtime.block_on(async {
        let held = holder.lock().await;
        let task = tokio::spawn(work.task("waits"));
        tokio::time::sleep(Duration::from_millis(80)).await;
        drop(held);
        tokio::time::sleep(Duration::from_millis(40)).await;
        send.send(1).await.unwrap();
        task.await.unwrap();
    });
    let profile = sampler.stop();
    let named = named(&profile);
    for (what, least_ms) in [
        (&["Sleep", "query"][..], 30),
        (&["Mutex", "locked"][..], 1),
        (&["Receiver", "recv"][..], 1),
        (&["JoinHandle"][..], 30),
        (&["Timeout"][..], 30),
    ] {
        let ns = waited_at(&named, what);
        assert!(ns >= least_ms * 1_000_000, "{what:?}: {ns} ns of {named:#?}");
    }
    let all: u64 = profile.waits.iter().map(|wait| wait.waiting_ns).sum();
    let seen: u64 =
        named.iter().filter(|(stack, _)| !stack.is_empty()).map(|(_, it)| it.waiting_ns).sum();
    assert!(seen * 100 >= all * 95, "{seen} of {all} ns have a place");
}

/// By place: what was awaited, and the line here that awaited it. A file without names keeps all of that for whoever reads it.
#[test]
fn a_profile_says_what_was_awaited_and_where() {
    let _alone = alone();
    let runtime = runtime();
    let sampler = sampling();
    runtime.block_on(async { tokio::spawn(query().task("queries")).await.unwrap() });
    let raw = sampler.stop();
    let mut file = Vec::new();
    raw.write_pprof_unresolved(&mut file).unwrap();
    let read = Profile::from_pprof(&file[..]).unwrap();
    let named_later = pertask::sampler::resolve(&read, &ResolveOptions::default());
    for profile in [raw.resolve(), named_later] {
        let places = profile.in_state(State::Waiting).summary(&GroupBy::Place).rows;
        let Subject::Place { name, at: Some(at), task: Some(task) } = &places[0].subject else {
            panic!("{places:#?}");
        };
        assert!(name.contains("Sleep") && name.ends_with("::poll"), "{places:#?}");
        assert!(at.file.ends_with("tests/waits.rs"), "{places:#?}");
        assert_eq!(&**task, "queries");
        assert!(places[0].own.time_ns >= 30_000_000 && places[0].own.samples == 1, "{places:#?}");
    }
}

#[test]
fn the_leaf_that_wakes_is_the_place() {
    let _alone = alone();
    let runtime = runtime();
    let sampler = sampling();
    let work = async {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(3_600)) => unreachable!(),
            () = query() => {}
        }
    };
    runtime.block_on(async { tokio::spawn(work.task("selects")).await.unwrap() });
    let profile = sampler.stop();
    let named = named(&profile);
    let all: u64 = profile.waits.iter().map(|wait| wait.waiting_ns).sum();
    assert_eq!(waited_at(&named, &["Sleep", "query"]), all, "{named:#?} {:?}", profile.lost);
}

#[test]
fn who_wakes_is_told() {
    let _alone = alone();
    let runtime = runtime();
    let (send, receive) = tokio::sync::oneshot::channel::<()>();
    let sampler = sampling();
    runtime.block_on(async {
        let waits = tokio::spawn(async { receive.await.unwrap() }.task("waits for another"));
        let wakes = async {
            query().await;
            send.send(()).unwrap();
        };
        tokio::spawn(wakes.task("wakes another")).await.unwrap();
        waits.await.unwrap();
    });
    let profile = sampler.stop();
    let path = |name: &str| {
        let mut found = None;
        let path =
            |path: &pertask::core::SpawnPath| (path.site().name() == Some(name)).then(|| path.id());
        for wait in &profile.waits {
            let known = pertask::core::System::global().path(wait.path);
            found = found.or(known.and_then(path));
        }
        found
    };
    let (waits, wakes) = (path("waits for another").unwrap(), path("wakes another").unwrap());
    let of = |path: u32| profile.waits.iter().filter(move |wait| wait.path == path);
    let by_another = of(waits).filter(|wait| wait.woken_by == Some(wakes));
    assert!(
        by_another.map(|wait| wait.waiting_ns).sum::<u64>() >= 30_000_000,
        "{:#?}",
        profile.waits
    );
    assert!(of(wakes).all(|wait| wait.woken_by.is_none()), "a timer woke it");

    let waiting = profile.resolve().in_state(State::Waiting);
    let mut file = Vec::new();
    profile.resolve().write_pprof(&mut file).unwrap();
    let read = Profile::from_pprof(&file[..]).unwrap().in_state(State::Waiting);
    for profile in [waiting, read] {
        let rows = profile.summary(&GroupBy::Waker).rows;
        let edge = |task: &str, by: Option<&str>| {
            let edge = Subject::Waker { task: task.into(), by: by.map(Into::into), holds: false };
            rows.iter().find(|row| row.subject == edge).map_or(0, |row| row.own.time_ns)
        };
        assert!(edge("waits for another", Some("wakes another")) >= 30_000_000, "{rows:#?}");
        assert!(edge("wakes another", None) >= 30_000_000, "{rows:#?}");
    }
}

/// A file without names says of waits what the profile itself says, once it has names.
#[test]
fn waits_get_their_names_later() {
    let _alone = alone();
    let runtime = runtime();
    let sampler = sampling();
    runtime.block_on(async { tokio::spawn(query().task("waits")).await.unwrap() });
    let raw = sampler.stop();
    let mut file = Vec::new();
    raw.write_pprof_unresolved(&mut file).unwrap();
    let read = Profile::from_pprof(&file[..]).unwrap();
    let later = resolve(&read, &ResolveOptions::default());
    let named = |profile: &Profile| {
        let waiting = profile.in_state(State::Waiting);
        let name = |sample: &Sample| {
            let location = waiting.location(*sample.stack.first()?)?;
            Some(waiting.function(location.lines.first()?.function)?.name.to_string())
        };
        waiting.samples.iter().map(|it| (name(it), it.time_ns, it.count)).collect::<Vec<_>>()
    };
    assert_eq!(named(&later), named(&raw.resolve()));
    let sleeps = |(name, ..): &(Option<String>, u64, u64)| {
        name.as_ref().is_some_and(|name| name.contains("Sleep"))
    };
    assert!(named(&later).iter().any(sleeps), "{:?}", named(&later));
}

#[test]
fn a_task_that_waits_for_ever_shows_where() {
    let _alone = alone();
    let runtime = runtime();
    let mutex = Arc::new(tokio::sync::Mutex::new(()));
    let sampler = sampling();
    let held = mutex.clone().try_lock_owned().unwrap();
    let stuck = Arc::clone(&mutex);
    let task = runtime.spawn(async move { locked(&stuck).await }.task("stuck"));
    let is_seen = || sampler.snapshot().waits.iter().any(|wait| !wait.stack.is_empty());
    support::wait_until("its wait is seen", is_seen);
    let profile = sampler.stop();
    let ns = waited_at(&named(&profile), &["Mutex", "locked"]);
    assert!(ns > 0, "{:#?}", profile.waits);
    drop(held);
    runtime.block_on(task).unwrap();
}

/// A task that asks for a lock which somebody holds, gives it up in its next poll, and then does something else.
async fn gives_up(mutex: Arc<tokio::sync::Mutex<()>>, then: impl Future<Output = ()>) {
    // The poll in which the time is over asks for the lock once more.
    let _ = tokio::time::timeout(Duration::from_millis(1), locked(&mutex)).await;
    then.await;
}

/// A future that a poll awaited and dropped is not where the task waits, if it goes on to another.
#[test]
fn what_was_given_up_is_not_what_a_task_waits_for() {
    let _alone = alone();
    let runtime = runtime();
    let mutex = Arc::new(tokio::sync::Mutex::new(()));
    let _held = mutex.clone().try_lock_owned().unwrap();
    let sampler = sampling();
    let sleeps = async { tokio::time::sleep(Duration::from_secs(3_600)).await };
    let task = runtime.spawn(gives_up(mutex, sleeps).task("has given up"));
    let is_seen = || waited_at(&named(&sampler.snapshot()), &["Sleep", "gives_up"]) > 0;
    support::wait_until("it sleeps", is_seen);
    let at_lock = |profile: &RawProfile| waited_at(&named(profile), &["Mutex", "locked"]);
    let before = at_lock(&sampler.snapshot());
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(at_lock(&sampler.stop()), before);
    task.abort();
}

/// A future that has left no waker is nowhere to be seen, and what was given up before it is not its place.
#[test]
fn a_task_that_leaves_no_waker_waits_nowhere() {
    let _alone = alone();
    let runtime = runtime();
    let mutex = Arc::new(tokio::sync::Mutex::new(()));
    let _held = mutex.clone().try_lock_owned().unwrap();
    let sampler = sampling();
    let task = runtime.spawn(gives_up(mutex, std::future::pending()).task("leaves no waker"));
    let unseen_ns = || {
        let waits = sampler.snapshot().waits;
        waits.iter().filter(|wait| wait.stack.is_empty()).map(|wait| wait.waiting_ns).sum::<u64>()
    };
    support::wait_until("it waits for nothing", || unseen_ns() > 100_000_000);
    task.abort();
}

/// A wait that began while waits were sampled, and ended while they were not, is none of a later sampler's.
#[test]
fn a_wait_that_ended_unseen_is_not_taken_for_one_that_goes_on() {
    let _alone = alone();
    let runtime = runtime();
    let bell = Arc::new(tokio::sync::Notify::new());
    let (first, polls) = (sampling(), Arc::new(AtomicU64::new(0)));
    let (rings, counted) = (Arc::clone(&bell), Arc::clone(&polls));
    let work = async move {
        loop {
            counted.fetch_add(1, Relaxed);
            rings.notified().await;
        }
    };
    let task = runtime.spawn(work.task("is polled in between"));
    support::wait_until("it waits", || polls.load(Relaxed) == 1);
    drop(first);
    bell.notify_one();
    support::wait_until("it has been polled", || polls.load(Relaxed) == 2);
    let second = sampling();
    std::thread::sleep(Duration::from_millis(30));
    let profile = second.stop();
    assert!(profile.waits.iter().all(|wait| wait.stack.is_empty()), "{:#?}", profile.waits);
    let third = sampling();
    bell.notify_one();
    support::wait_until("it has been polled again", || polls.load(Relaxed) == 3);
    let profile = third.stop();
    let seen = profile.waits.iter().filter(|wait| !wait.stack.is_empty());
    assert!(seen.map(|wait| wait.count).sum::<u64>() <= 1, "{:#?}", profile.waits);
    task.abort();
}

/// Neither the number of polls nor their result changes, whatever the sampler does with wakers.
#[test]
fn nothing_is_polled_more_often() {
    let _alone = alone();
    let polls = |with: bool| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sampler = with.then(sampling);
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let work = async {
            let (send, receive) = tokio::sync::oneshot::channel();
            let sends = async {
                tokio::task::yield_now().await;
                send.send(7).unwrap();
            };
            let both = tokio::join!(sends, async { receive.await.unwrap() });
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            both.1
        };
        let mut work = Box::pin(work);
        let counting = poll_fn(move |context: &mut Context<'_>| {
            counted.fetch_add(1, Relaxed);
            work.as_mut().poll(context)
        });
        let result =
            runtime.block_on(async { tokio::spawn(counting.task("counts")).await.unwrap() });
        drop(sampler);
        (result, count.load(Relaxed))
    };
    assert_eq!(polls(false), polls(true));
}

/// Of many short waits few are seen, and each of them stands for the right number, although the executor's waker is the same in all polls.
#[test]
fn the_number_of_very_many_waits_is_about_right() {
    const WAITS: u64 = 400_000;
    let _alone = alone();
    let sampler = sampling();
    let mut left = WAITS;
    let yields = poll_fn(move |context| {
        let Some(less) = left.checked_sub(1) else { return Poll::Ready(()) };
        left = less;
        context.waker().wake_by_ref();
        Poll::Pending
    });
    futures::executor::block_on(yields.task("yields"));
    let profile = sampler.stop();
    let count: u64 = profile.waits.iter().map(|wait| wait.count).sum();
    let seen: u64 = profile.waits.iter().map(|wait| wait.seen).sum();
    assert!(seen < WAITS / 2 && count < WAITS * 2, "{seen} were seen, and {count} counted");
}

/// A sampler that does not ask for waits has none, though another one does.
#[test]
fn waits_are_of_the_samplers_that_ask_for_them() {
    let _alone = alone();
    let runtime = runtime();
    let (with, without) = (sampling(), Sampler::start(SamplerOptions::with_frequency(99)).unwrap());
    runtime.block_on(async { tokio::spawn(query().task("queries")).await.unwrap() });
    let (with, without) = (with.stop(), without.stop());
    assert!(!with.waits.is_empty() && without.waits.is_empty(), "{:#?}", without.waits);
}

/// Wakers that a future keeps, compares, hands on and drops do what those of the executor do.
#[test]
fn wakers_are_what_futures_expect() {
    let _alone = alone();
    let sampler = sampling();
    let mut last = None;
    let keeps = poll_fn(move |context: &mut Context<'_>| {
        let clone = context.waker().clone();
        let another = clone.clone();
        assert!(another.will_wake(&clone));
        match last.replace(clone) {
            Some(before) if before.will_wake(&another) => Poll::Ready(()),
            _ => {
                std::thread::spawn(move || another.wake()).join().unwrap();
                Poll::Pending
            }
        }
    });
    // It is ready at the latest when it is no longer watched; until then it is woken again and again.
    let polls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&polls);
    let mut keeps = Box::pin(keeps);
    let bounded = poll_fn(move |context: &mut Context<'_>| match counted.fetch_add(1, Relaxed) {
        50 => Poll::Ready(()),
        _ => keeps.as_mut().poll(context),
    });
    support::run(bounded.task("keeps"));
    assert!(polls.load(Relaxed) >= 2);
    drop(sampler);
}
