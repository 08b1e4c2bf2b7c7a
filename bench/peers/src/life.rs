//! The life of a task: spawned, polled once, joined.

use crate::{clock, tool, variant, variant::Variant};
use std::hint::black_box;
use tokio::runtime::Builder;

const TASKS: u32 = 200_000;

/// The process's CPU time for each task, in nanoseconds.
pub fn measure(variant: &Variant) -> f64 {
    let mut builder = Builder::new_multi_thread();
    let mut at_work = tool::start(variant, builder.worker_threads(1).enable_all());
    let runtime = at_work.runtime.take().expect("a runtime");
    let lives = Lives::of(variant);
    let ns = runtime.block_on(async move {
        tokio::spawn(async move {
            lives.run(TASKS / 10).await;
            let before = clock::process_cpu_ns();
            lives.run(TASKS).await;
            (clock::process_cpu_ns() - before) as f64 / f64::from(TASKS)
        })
        .await
        .expect("no panic")
    });
    runtime.shutdown_background();
    ns
}

/// How a variant makes a task.
enum Lives {
    Bare,
    Pertask,
    Labeled,
    #[cfg(feature = "peers")]
    TokioMetrics(tokio_metrics::TaskMonitor),
    #[cfg(feature = "peers")]
    Fastrace,
    #[cfg(feature = "peers")]
    Tracing,
}

impl Lives {
    fn of(variant: &Variant) -> Self {
        match variant.name {
            "off" | "agent" | "session" | "wakes" | "lives" => Self::Pertask,
            "labels" | "labels-off" | "published" => Self::Labeled,
            name if name.starts_with("pertask-") => Self::Pertask,
            #[cfg(feature = "peers")]
            "tokio-metrics" => Self::TokioMetrics(tokio_metrics::TaskMonitor::new()),
            #[cfg(feature = "peers")]
            "fastrace" => Self::Fastrace,
            #[cfg(feature = "peers")]
            "tracing" => Self::Tracing,
            _ => Self::Bare,
        }
    }

    async fn run(&self, tasks: u32) {
        for n in 0..tasks {
            let life = async move { black_box(n) };
            let joined = match self {
                Self::Bare => tokio::spawn(life),
                Self::Pertask => tokio::spawn(pertask::TaskExt::task(life, "life")),
                Self::Labeled => {
                    let task = pertask::TaskExt::task(life, "life");
                    tokio::spawn(task.labels([("tenant", variant::tenant(n as usize))]))
                }
                #[cfg(feature = "peers")]
                Self::TokioMetrics(monitor) => tokio::spawn(monitor.instrument(life)),
                #[cfg(feature = "peers")]
                Self::Fastrace => {
                    use fastrace::future::FutureExt as _;
                    use fastrace::prelude::{Span, SpanContext};
                    tokio::spawn(life.in_span(Span::root("life", SpanContext::random())))
                }
                #[cfg(feature = "peers")]
                Self::Tracing => {
                    use tracing::Instrument;
                    tokio::spawn(life.instrument(tracing::info_span!("life")))
                }
            };
            black_box(joined.await.expect("no panic"));
        }
    }
}
