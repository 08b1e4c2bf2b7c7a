//! A service that mostly waits: for a database with one connection, for a lock, for a timer, and once in a while in a blocking call.
//!
//! ```sh
//! cargo run --release -p pertask --features profiler --example where_tasks_wait
//! pertask report waits.pb.gz --state waiting
//! pertask report waits.pb.gz --state life -o life.svg
//! ```

use pertask::TaskExt;
use pertask::sampler::{Sampler, SamplerOptions};
use std::fs::File;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;

const RUN: Duration = Duration::from_secs(4);

/// A question to the database, and where the answer goes.
type Query = (u64, oneshot::Sender<u64>);

struct App {
    database: mpsc::Sender<Query>,
    sessions: Mutex<u64>,
}

impl App {
    async fn query(&self, question: u64) -> u64 {
        let (answer, answered) = oneshot::channel();
        self.database.send((question, answer)).await.expect("the database runs");
        answered.await.expect("it answers")
    }
}

/// Answers one question after the other.
async fn database(mut queries: mpsc::Receiver<Query>) {
    while let Some((question, answer)) = queries.recv().await {
        tokio::time::sleep(Duration::from_millis(2)).await;
        // Who has asked may be gone.
        let _ = answer.send(compute(30_000 + question % 7));
    }
}

async fn page(app: Arc<App>) {
    let items = 2_000 + app.query(7).await % 7;
    let page: String = (0..items).map(|item| format!("<li>{item}</li>")).collect();
    black_box(page);
}

/// Holds the lock while the database works.
async fn login(app: Arc<App>) {
    let mut sessions = app.sessions.lock().await;
    *sessions ^= app.query(3).await;
}

async fn wait() {
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Blocks its worker, as no task should.
async fn legacy() {
    std::thread::sleep(Duration::from_millis(4));
    black_box(compute(200_000));
}

fn compute(rounds: u64) -> u64 {
    (0..rounds).fold(1, |x, round| black_box(x ^ round).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

async fn serve() {
    let (database_end, queries) = mpsc::channel(4);
    let app = Arc::new(App { database: database_end, sessions: Mutex::new(0) });
    let database = tokio::spawn(database(queries).task("database"));
    let (end, mut requests) = (Instant::now() + RUN, JoinSet::new());
    while Instant::now() < end {
        requests.spawn(page(app.clone()).task("GET /page"));
        requests.spawn(login(app.clone()).task("POST /login"));
        requests.spawn(wait().task("GET /wait"));
        requests.spawn(legacy().task("GET /legacy"));
        tokio::time::sleep(Duration::from_millis(12)).await;
    }
    requests.join_all().await;
    // Nobody is left who could ask it.
    drop(app);
    database.await.expect("it ends");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut options = SamplerOptions::with_frequency(499);
    options.waits = true;
    let sampler = Sampler::start(options)?;
    runtime.block_on(serve());
    sampler.stop().resolve().write_pprof(File::create("waits.pb.gz")?)?;
    Ok(())
}
