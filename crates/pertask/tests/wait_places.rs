//! What people read of where tasks wait: the function that they called, and its caller in their own code, for whatever a task can wait
//! for.

#![cfg(feature = "profiler")]

mod support;

use pertask::TaskExt;
use pertask::profile::{Profile, Sample, State};
use pertask::sampler::{Sampler, SamplerOptions};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use support::alone;

const TIME: Duration = Duration::from_millis(30);

fn sampling() -> Sampler {
    let mut options = SamplerOptions::with_frequency(99);
    options.waits = true;
    Sampler::start(options).expect("a mechanism works")
}

/// The functions of a stack, from the innermost.
fn functions(profile: &Profile, sample: &Sample) -> Vec<String> {
    let locations = sample.stack.iter().filter_map(|id| profile.location(*id));
    let lines = locations.flat_map(|location| &location.lines);
    lines.filter_map(|line| Some(profile.function(line.function)?.name.to_string())).collect()
}

/// Runs futures by `run`, each in a task of its own, and checks that each of them waits at its function, called by its caller.
fn check(
    places: Vec<Place>,
    run: impl FnOnce(Vec<pertask::Tracked<Pin<Box<dyn Future<Output = ()> + Send>>>>),
) {
    let _alone = alone();
    let sampler = sampling();
    let (wanted, tasks): (Vec<_>, Vec<_>) = places
        .into_iter()
        .map(|place| ((place.leaf, place.caller), place.future.task(place.caller)))
        .unzip();
    run(tasks);
    let profile = sampler.stop().resolve().in_state(State::Waiting);
    for (leaf, caller) in wanted {
        let of_task = |sample: &&Sample| {
            sample.task.as_ref().is_some_and(|task| task.name.as_deref() == Some(caller))
        };
        let (mut there, mut in_caller, mut all, mut seen) = (0, 0, 0, Vec::new());
        for sample in profile.samples.iter().filter(of_task) {
            let functions = functions(&profile, sample);
            all += sample.time_ns;
            // A socket also waits until it is connected, and the like.
            let is_pointer = |it: &&String| it.contains("::pin::Pin<") || it.starts_with("<&mut ");
            let called_by = functions.iter().skip(1).find(|it| !is_pointer(it));
            if called_by.is_some_and(|it| it.contains(caller)) {
                in_caller += sample.time_ns;
                there += if functions[0].contains(leaf) { sample.time_ns } else { 0 };
            }
            seen.push((sample.time_ns, functions));
        }
        let told = format!("{caller} waits at {leaf}: {there} of {all} ns in {seen:#?}");
        assert!(there * 2 > all && in_caller * 100 >= all * 95, "{told}");
    }
}

struct Place {
    leaf: &'static str,
    caller: &'static str,
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
}

fn place(
    leaf: &'static str,
    caller: &'static str,
    future: impl Future<Output = ()> + Send + 'static,
) -> Place {
    Place { leaf, caller, future: Box::pin(future) }
}

async fn reads_a_socket() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::time::sleep(TIME).await;
        stream.write_all(b"answer").await.unwrap();
        tokio::time::sleep(TIME).await;
    });
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).await.unwrap();
}

async fn acquires_a_permit() {
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let others = permits.clone();
    tokio::spawn(async move {
        tokio::time::sleep(TIME).await;
        others.add_permits(1);
    });
    permits.acquire().await.unwrap().forget();
}

async fn is_notified() {
    let bell = std::sync::Arc::new(tokio::sync::Notify::new());
    let rings = bell.clone();
    tokio::spawn(async move {
        tokio::time::sleep(TIME).await;
        rings.notify_one();
    });
    bell.notified().await;
}

async fn joins_all() {
    futures::future::join_all((0..3).map(|_| tokio::time::sleep(TIME))).await;
}

/// More than have a stack each, and the last ends the first wait.
async fn joins_very_many() {
    let all = (0..20).map(|number| tokio::time::sleep(TIME * if number < 19 { 2 } else { 1 }));
    futures::future::join_all(all).await;
}

async fn takes_from_unordered() {
    use futures::StreamExt;
    let mut all: futures::stream::FuturesUnordered<_> =
        (0..40).map(|_| Box::pin(tokio::time::sleep(TIME))).collect();
    while all.next().await.is_some() {}
}

/// Most of them are ready in one poll, in which each call of `next` leaves a waker.
async fn takes_many_at_once() {
    use futures::StreamExt;
    let now = tokio::time::Instant::now();
    let mut all: futures::stream::FuturesUnordered<_> = (0..20)
        .map(|number| {
            Box::pin(tokio::time::sleep_until(now + TIME * if number > 0 { 1 } else { 3 }))
        })
        .collect();
    while all.next().await.is_some() {}
}

/// The last of four branches is ready in a poll, so that the others leave wakers once more in it. Then the first ends the wait.
async fn loops_over_four() {
    use futures::StreamExt;
    let now = tokio::time::Instant::now();
    let (permits, bell) = (tokio::sync::Semaphore::new(0), tokio::sync::Notify::new());
    let mut late = std::pin::pin!(tokio::time::sleep_until(now + 4 * TIME));
    let mut permit = std::pin::pin!(permits.acquire());
    let mut rings = std::pin::pin!(bell.notified());
    let mut all: futures::stream::FuturesUnordered<_> = [1, 100]
        .map(|times| Box::pin(tokio::time::sleep_until(now + times * TIME)))
        .into_iter()
        .collect();
    loop {
        tokio::select! {
            biased;
            () = &mut late => return,
            _ = &mut permit => unreachable!(),
            () = &mut rings => unreachable!(),
            _ = all.next() => (),
        }
    }
}

async fn receives_from_futures() {
    use futures::StreamExt;
    let (send, mut receive) = futures::channel::mpsc::unbounded::<u32>();
    tokio::spawn(async move {
        tokio::time::sleep(TIME).await;
        send.unbounded_send(1).unwrap();
    });
    receive.next().await.unwrap();
}

async fn watches_a_value() {
    let (send, mut receive) = tokio::sync::watch::channel(0);
    tokio::spawn(async move {
        tokio::time::sleep(TIME).await;
        send.send(1).unwrap();
    });
    receive.changed().await.unwrap();
}

async fn waits_for_blocking_work() {
    tokio::task::spawn_blocking(|| std::thread::sleep(TIME)).await.unwrap();
}

#[test]
fn in_tokio() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let places = vec![
        place("ReadExact", "reads_a_socket", reads_a_socket()),
        place("Semaphore::acquire", "acquires_a_permit", acquires_a_permit()),
        place("Notified", "is_notified", is_notified()),
        place("JoinAll", "joins_all", joins_all()),
        place("JoinAll", "joins_very_many", joins_very_many()),
        place("Next", "takes_from_unordered", takes_from_unordered()),
        place("Next", "takes_many_at_once", takes_many_at_once()),
        place("Sleep", "loops_over_four", loops_over_four()),
        place("Next", "receives_from_futures", receives_from_futures()),
        place("Receiver", "watches_a_value", watches_a_value()),
        place("JoinHandle", "waits_for_blocking_work", waits_for_blocking_work()),
    ];
    check(places, |tasks| {
        runtime.block_on(async {
            let all: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
            for task in all {
                task.await.unwrap();
            }
        });
    });
}

async fn sleeps_in_smol() {
    smol::Timer::after(TIME).await;
}

async fn receives_in_smol() {
    let (send, receive) = smol::channel::unbounded();
    smol::spawn(async move {
        smol::Timer::after(TIME).await;
        send.send(1).await.unwrap();
    })
    .detach();
    receive.recv().await.unwrap();
}

async fn locks_in_smol() {
    let mutex = std::sync::Arc::new(smol::lock::Mutex::new(()));
    let held = mutex.lock_arc().await;
    smol::spawn(async move {
        smol::Timer::after(TIME).await;
        drop(held);
    })
    .detach();
    drop(mutex.lock().await);
}

#[test]
fn in_smol() {
    // Its thread begins with the first task, and the sampler needs a moment to find a new thread.
    smol::block_on(smol::spawn(async {}));
    let places = vec![
        place("Timer", "sleeps_in_smol", sleeps_in_smol()),
        place("Recv", "receives_in_smol", receives_in_smol()),
        place("Lock", "locks_in_smol", locks_in_smol()),
    ];
    check(places, |tasks| {
        let all: Vec<_> = tasks.into_iter().map(smol::spawn).collect();
        smol::block_on(async {
            for task in all {
                task.await;
            }
        });
    });
}
