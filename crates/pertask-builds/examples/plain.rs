//! A program that does nothing with pertask, for `pertask record` to find its tasks: kinds of futures, each of which computes for the
//! same time, on the executors that people use.
//!
//! ```text
//! cargo build --release -p pertask-builds --example plain
//! cargo run --release -- record -- target/release/examples/plain
//! ```
//!
//! `plain STATUS` ends with that status once all have computed. `plain forever` goes on until it is killed, and so does `plain twins`,
//! which has two tasks of one type: it prints their IDs, and the first computes three times as much as the second. `plain families` goes on, too: its
//! tasks are all of one type and make others, and compute in one function if their ID is even and in another if it is odd.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::process::exit;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::Notify;

/// How often each task computes, and for how many rounds.
const TURNS: u32 = 20;
const ROUNDS: u64 = 1_500_000;

fn main() {
    let argument = std::env::args().nth(1).unwrap_or_default();
    match &*argument {
        "twins" => twins(),
        "families" => families(),
        _ => (),
    }
    println!("begins");
    loop {
        on_many_threads();
        on_one_thread();
        on_smol();
        if argument != "forever" {
            exit(argument.parse().unwrap_or(0));
        }
    }
}

/// Some milliseconds of work in user mode.
#[inline(never)]
fn compute(rounds: u64) -> u64 {
    (0..rounds).fold(1, |sum: u64, round| black_box(sum.rotate_left(5) ^ round))
}

async fn turns() {
    for _ in 0..TURNS {
        black_box(compute(ROUNDS));
        tokio::task::yield_now().await;
    }
}

fn on_many_threads() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut set = tokio::task::JoinSet::new();
        set.spawn(async_function());
        set.spawn(Worker(7_u32).method());
        set.spawn(Own(0));
        set.spawn(boxed());
        set.spawn(selects());
        set.spawn(unordered());
        set.spawn_blocking(blocking);
        set.spawn(asks_a_thread());
        while set.join_next().await.is_some() {}
    });
}

async fn async_function() {
    turns().await;
}

struct Worker<T>(T);

impl<T: Copy + Send> Worker<T> {
    async fn method(self) {
        turns().await;
        black_box(self.0);
    }
}

fn twins() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let turns = [(); 2].map(|()| Arc::new(Notify::new()));
        turns[0].notify_one();
        let [of_more, of_less] = &turns;
        let more = tokio::spawn(twin(3, Arc::clone(of_more), Arc::clone(of_less)));
        let less = tokio::spawn(twin(1, Arc::clone(of_less), Arc::clone(of_more)));
        println!("{} {}", more.id(), less.id());
        more.await.expect("it does not panic");
    });
}

/// They take turns, so that the first has three times as much of the CPU however little both get.
async fn twin(times: u64, turn: Arc<Notify>, others: Arc<Notify>) {
    loop {
        turn.notified().await;
        black_box(compute(times * ROUNDS));
        others.notify_one();
    }
}

/// Tasks come and go all the time, and one may have the memory that another had.
fn families() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    println!("begins");
    runtime.block_on(async {
        let mut all = tokio::task::JoinSet::new();
        (0..4).for_each(|_| drop(all.spawn(family(3))));
        while all.join_next().await.is_some() {
            all.spawn(family(3));
        }
    });
}

/// A task with children, all of one type.
fn family(generations: u32) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        by_parity();
        if generations > 0 {
            let children = [(); 2].map(|()| tokio::spawn(family(generations - 1)));
            by_parity();
            for child in children {
                child.await.expect("it does not panic");
                by_parity();
            }
        }
        tokio::task::yield_now().await;
        by_parity();
    })
}

fn by_parity() {
    let id: u64 = tokio::task::id().to_string().parse().expect("a number");
    match id % 2 {
        0 => of_even_tasks(),
        _ => of_odd_tasks(),
    }
}

#[inline(never)]
fn of_even_tasks() {
    black_box((compute(5 * ROUNDS), "even"));
}

#[inline(never)]
fn of_odd_tasks() {
    black_box((compute(5 * ROUNDS), "odd"));
}

/// A future that is no `async` block.
struct Own(u32);

impl Future for Own {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        black_box(compute(ROUNDS));
        self.0 += 1;
        if self.0 == TURNS {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn boxed() -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async { turns().await })
}

async fn selects() {
    tokio::select! {
        () = std::future::pending() => (),
        () = turns() => (),
    }
}

async fn unordered() {
    let mut all: FuturesUnordered<_> = (0..4).map(|_| part()).collect();
    while all.next().await.is_some() {}
}

async fn part() {
    for _ in 0..TURNS / 4 {
        black_box(compute(ROUNDS));
        tokio::task::yield_now().await;
    }
}

fn blocking() {
    for _ in 0..TURNS {
        black_box(compute(ROUNDS));
    }
}

/// Waits for most of its life.
async fn asks_a_thread() {
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(20) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn on_one_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let local = tokio::task::spawn_local(local());
        turns().await;
        local.await.expect("it does not panic");
    });
}

async fn local() {
    turns().await;
}

fn on_smol() {
    let executor = smol::Executor::new();
    let task = executor.spawn(of_smol());
    smol::block_on(executor.run(task));
}

async fn of_smol() {
    for _ in 0..TURNS {
        black_box(compute(ROUNDS));
        smol::future::yield_now().await;
    }
}
