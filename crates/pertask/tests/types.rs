//! Tasks that nobody named stand under the types of their futures, whatever has spawned them.

#![cfg(target_os = "linux")]

mod support;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use pertask::TaskExt;
use pertask::profile::{GroupBy, Profile, RootBy, Subject, Weight};
use pertask::sampler::{Sampler, SamplerOptions};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use support::{alone, loudly, ms, thread_cpu_ns};

/// What each task computes, in CPU time.
const SHARE_MS: u64 = 60;
const TURN_MS: u64 = 10;

/// Computes in user mode, but for a look at the clock now and then.
#[inline(never)]
fn spin(milliseconds: u64) {
    let start = thread_cpu_ns();
    while thread_cpu_ns() - start < ms(milliseconds) {
        for round in 0..20_000 {
            std::hint::black_box(round);
        }
    }
}

macro_rules! turns {
    () => {
        for _ in 0..SHARE_MS / TURN_MS {
            spin(TURN_MS);
            support::yield_once().await;
        }
    };
}

async fn plain() {
    turns!();
}

struct Worker<T>(T);

impl<T: Copy> Worker<T> {
    async fn run(self) -> T {
        turns!();
        self.0
    }
}

/// A future that is no `async` block.
struct Own(u64);

impl Future for Own {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        spin(TURN_MS);
        self.0 += TURN_MS;
        if self.0 >= SHARE_MS {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn boxed() -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async {
        turns!();
    })
}

async fn chosen() {
    let never = std::future::pending::<()>();
    tokio::select! {
        () = never => (),
        () = async { turns!(); } => (),
    }
}

async fn many() {
    let mut all = FuturesUnordered::new();
    for _ in 0..2 {
        all.push(async {
            for _ in 0..SHARE_MS / TURN_MS / 2 {
                spin(TURN_MS);
                support::yield_once().await;
            }
        });
    }
    while all.next().await.is_some() {}
}

async fn timed() {
    turns!();
}

async fn of_a_set() {
    turns!();
}

async fn local() {
    turns!();
}

async fn alone_on_its_thread() {
    turns!();
}

async fn of_smol() {
    turns!();
}

/// A future that runs beside the executor, and waits for one of its tasks.
async fn beside(task: smol::Task<()>) {
    turns!();
    task.await;
}

async fn instrumented() {
    turns!();
}

fn blocking() {
    spin(SHARE_MS);
}

/// Runs all of them, and returns what was sampled meanwhile.
fn sampled(work: impl FnOnce()) -> Option<Profile> {
    let sampler = match Sampler::start(SamplerOptions::with_frequency(997)) {
        Ok(sampler) => sampler,
        Err(why) => {
            loudly(&format!("SKIPPED: {why}"));
            return None;
        }
    };
    work();
    Some(sampler.stop().resolve())
}

/// A runtime whose threads are there already: samples of new threads begin only when the sampler has found them.
fn with_threads() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(runtime.spawn_blocking(|| ())).unwrap();
    runtime
}

fn on_tokio(runtime: &tokio::runtime::Runtime) {
    runtime.block_on(async {
        use tracing::Instrument;
        let mut set = tokio::task::JoinSet::new();
        set.spawn(plain());
        set.spawn(async { assert_eq!(Worker(7_u32).run().await, 7) });
        set.spawn(Own(0));
        set.spawn(boxed());
        set.spawn(chosen());
        set.spawn(many());
        set.spawn(async {
            let _ = tokio::time::timeout(std::time::Duration::from_secs(100), timed()).await;
        });
        set.spawn(of_a_set());
        set.spawn(instrumented().instrument(tracing::info_span!("a span")));
        set.spawn_blocking(blocking);
        while set.join_next().await.is_some() {}
    });
}

fn on_one_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let set = tokio::task::LocalSet::new();
    set.block_on(&runtime, async {
        let local = tokio::task::spawn_local(local());
        alone_on_its_thread().await;
        local.await.unwrap();
    });
}

/// The CPU time of the row with this name, and the lines of its sites.
fn row(profile: &Profile, wanted: &str) -> (u64, Vec<u32>) {
    let (mut cpu_ns, mut lines) = (0, Vec::new());
    for row in profile.summary(&GroupBy::Site).rows {
        if let Subject::Site { name: Some(name), site } = &row.subject
            && **name == *wanted
        {
            cpu_ns += row.own.time_ns;
            lines.extend(
                site.iter()
                    .filter(|site| site.file.ends_with("tests/types.rs"))
                    .map(|site| site.line),
            );
        }
    }
    (cpu_ns, lines)
}

/// Checks that a row has the time that its task has used, and the line where its code begins.
fn check(profile: &Profile, wanted: &str, used_ms: u64, code: Option<&str>) {
    let (cpu_ns, lines) = row(profile, wanted);
    let table = profile.summary(&GroupBy::Site);
    let told = format!("{wanted}: {cpu_ns} ns at {lines:?}\n{}", table.table(Default::default()));
    // By samples: a few of them are chance.
    assert!(cpu_ns > ms(used_ms) / 2 && cpu_ns < ms(used_ms) * 2, "{told}");
    let Some(code) = code else { return };
    let source = include_str!("types.rs").lines();
    let line = source.zip(1..).find(|(text, _)| text.contains(code)).unwrap().1;
    assert_eq!(lines, [line], "{told}");
}

#[test]
fn tokios_tasks_have_the_types_of_their_futures() {
    let _alone = alone();
    let runtime = with_threads();
    let Some(profile) = sampled(|| on_tokio(&runtime)) else { return };
    check(&profile, "~types::plain", SHARE_MS, Some("async fn plain()"));
    check(&profile, "~types::Own", SHARE_MS, Some("fn poll(mut self: Pin"));
    check(&profile, "~types::boxed", SHARE_MS, Some("Box::pin(async {"));
    check(&profile, "~types::chosen", SHARE_MS, Some("async fn chosen()"));
    check(&profile, "~types::many", SHARE_MS, Some("async fn many()"));
    check(&profile, "~types::of_a_set", SHARE_MS, Some("async fn of_a_set()"));
    check(&profile, "~types::instrumented", SHARE_MS, Some("async fn instrumented()"));
    check(&profile, "~types::blocking", SHARE_MS, None);
    // Two blocks that were spawned as they are.
    check(&profile, "~types::on_tokio", 2 * SHARE_MS, None);
    let folded = |profile: &Profile| {
        let mut folded = Vec::new();
        profile.write_folded(RootBy::TaskName, Weight::Time, &mut folded).unwrap();
        String::from_utf8(folded).unwrap()
    };
    let stacks = folded(&profile);
    // The executor's frames are left out. A sample may also be in them, before the future's own code begins.
    let in_plain = |line: &&str| line.starts_with("~types::plain;") && line.contains("types::spin");
    assert!(stacks.lines().any(|line| in_plain(&line)), "{stacks}");
    for line in stacks.lines().filter(in_plain) {
        assert!(line.starts_with("~types::plain;types::plain::{{closure}};types::spin"), "{line}");
    }
    let mut file = Vec::new();
    profile.write_pprof(&mut file).unwrap();
    assert_eq!(folded(&Profile::from_pprof(&file[..]).unwrap()), stacks);
}

#[test]
fn a_single_thread_runs_local_tasks_and_one_that_it_waits_for() {
    let _alone = alone();
    let Some(profile) = sampled(on_one_thread) else { return };
    check(&profile, "~types::local", SHARE_MS, Some("async fn local()"));
    check(&profile, "~types::on_one_thread", SHARE_MS, None);
}

#[test]
fn smols_tasks_have_types_too() {
    let _alone = alone();
    let Some(profile) = sampled(|| {
        let executor = smol::Executor::new();
        let task = executor.spawn(of_smol());
        smol::block_on(executor.run(beside(task)));
    }) else {
        return;
    };
    check(&profile, "~types::of_smol", SHARE_MS, Some("async fn of_smol()"));
    check(&profile, "~types::beside", SHARE_MS, Some("async fn beside("));
}

#[test]
fn a_task_with_a_name_keeps_it() {
    let _alone = alone();
    let Some(profile) = sampled(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { tokio::spawn(plain().task("named")).await.unwrap() });
    }) else {
        return;
    };
    assert!(row(&profile, "named").0 > ms(SHARE_MS) / 2);
    // Only what tokio does before and after the poll of the future that has the name.
    assert!(row(&profile, "~types::plain").0 < ms(SHARE_MS) / 4);
}

#[test]
fn a_thread_that_runs_no_task_has_none() {
    let _alone = alone();
    let Some(profile) = sampled(|| thread::spawn(|| spin(SHARE_MS)).join().unwrap()) else {
        return;
    };
    let by_type = |subject: &Subject| matches!(subject, Subject::Site { .. } | Subject::Runtime(_));
    let rows = profile.summary(&GroupBy::Site).rows;
    let wrong: Vec<_> =
        rows.iter().filter(|row| by_type(&row.subject) && row.own.time_ns > ms(5)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
