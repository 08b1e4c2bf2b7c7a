//! The same `.task("...")` on three executors: it wraps the future, so it asks nothing of what polls it.
//!
//! ```text
//! cargo run -p pertask --example any_executor
//! ```

use std::{error::Error, hint::black_box, rc::Rc};

use futures::{executor::LocalPool, task::LocalSpawnExt};
use pertask::{Session, TaskExt};
use smol::future::yield_now;

fn main() -> Result<(), Box<dyn Error>> {
    on_smol()?;
    on_local_pool()?;
    on_tokio()
}

/// smol: the tasks run on smol's own thread.
fn on_smol() -> Result<(), Box<dyn Error>> {
    let session = Session::start()?;
    smol::block_on(async {
        let parse = smol::spawn(work(30).task("parse"));
        let compress = smol::spawn(work(90).task("compress"));
        parse.await;
        compress.await;
    });
    println!("smol: {}\n", session.stop());
    Ok(())
}

/// futures' single-threaded pool: here the tasks are not even `Send`.
fn on_local_pool() -> Result<(), Box<dyn Error>> {
    let session = Session::start()?;
    let mut pool = LocalPool::new();
    let rounds = Rc::new(30);
    let (for_parse, for_compress) = (Rc::clone(&rounds), rounds);
    pool.spawner().spawn_local(async move { work(*for_parse).await }.task("parse"))?;
    pool.spawner().spawn_local(async move { work(*for_compress * 3).await }.task("compress"))?;
    pool.run();
    println!("futures, LocalPool: {}\n", session.stop());
    Ok(())
}

/// tokio, on the current thread.
fn on_tokio() -> Result<(), Box<dyn Error>> {
    let session = Session::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let parse = tokio::spawn(work(30).task("parse"));
        let compress = tokio::spawn(work(90).task("compress"));
        parse.await?;
        compress.await
    })?;
    println!("tokio, current_thread: {}", session.stop());
    Ok(())
}

/// Computes in rounds and lets the executor run somebody else after each.
async fn work(rounds: u32) {
    for _ in 0..rounds {
        black_box(
            (0..100_000_u64).fold(0, |sum: u64, n| black_box(sum.wrapping_mul(31).wrapping_add(n))),
        );
        yield_now().await;
    }
}
