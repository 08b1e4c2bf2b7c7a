//! The service, beside a tool.

use crate::{clock, tool, variant, variant::Variant};
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::{Router, routing::get};
use pertask::TaskExt;
use std::io::BufRead;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::runtime::Builder;

static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Tells its port, and between the two lines that it reads its CPU time for each request, in microseconds. In the end it tells how
/// long pertask's signal handler takes, if there is one.
pub fn serve(variant: &Variant) {
    let mut builder = Builder::new_multi_thread();
    // Held while it serves.
    let mut at_work = tool::start(variant, builder.worker_threads(1).enable_all());
    let runtime = at_work.runtime.take().expect("a runtime");
    let router = layered(variant, Router::new().route("/hello", get(async || "hello")));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    println!("{}", listener.local_addr().expect("a port").port());
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        axum::serve(listener, router).await
    });
    let mut lines = std::io::stdin().lock().lines();
    lines.next();
    let (cpu_ns, requests) = (clock::process_cpu_ns(), REQUESTS.load(Relaxed));
    lines.next();
    let (cpu_ns, requests) = (clock::process_cpu_ns() - cpu_ns, REQUESTS.load(Relaxed) - requests);
    println!("{}", cpu_ns as f64 / requests as f64 / 1e3);
    // The clients go on until they are told.
    lines.next();
    if let Some((median, p99)) = at_work.handler_us() {
        println!("{median} {p99}");
    }
    std::process::exit(0);
}

/// The router with the layer by which a tool sees requests, or one that does nothing.
fn layered(variant: &Variant, router: Router) -> Router {
    match variant.name {
        "off" | "agent" | "session" | "wakes" | "lives" => router.layer(from_fn(as_task)),
        name if name.starts_with("pertask-") => router.layer(from_fn(as_task)),
        "labels" | "labels-off" | "published" => router.layer(from_fn(as_labeled_task)),
        #[cfg(feature = "peers")]
        "tokio-metrics" => {
            let monitor = tokio_metrics::TaskMonitor::new();
            router.layer(from_fn(move |request: Request, next: Next| {
                let monitor = monitor.clone();
                async move {
                    count(&request);
                    monitor.instrument(next.run(request)).await
                }
            }))
        }
        #[cfg(feature = "peers")]
        "fastrace" => router.layer(from_fn(async |request: Request, next: Next| {
            use fastrace::future::FutureExt as _;
            use fastrace::prelude::{Span, SpanContext};
            let span = Span::root(count(&request), SpanContext::random());
            next.run(request).in_span(span).await
        })),
        #[cfg(feature = "peers")]
        "tracing" => router.layer(from_fn(async |request: Request, next: Next| {
            use tracing::Instrument;
            let span = tracing::info_span!("request", route = count(&request));
            next.run(request).instrument(span).await
        })),
        _ => router.layer(from_fn(nothing)),
    }
}

async fn nothing(request: Request, next: Next) -> Response {
    std::hint::black_box(count(&request));
    next.run(request).await
}

async fn as_task(request: Request, next: Next) -> Response {
    let name = count(&request);
    next.run(request).task(name).await
}

async fn as_labeled_task(request: Request, next: Next) -> Response {
    let name = count(&request);
    let tenant = variant::tenant(REQUESTS.load(Relaxed) as usize);
    next.run(request).task(name).labels([("tenant", tenant)]).await
}

/// Counts a request, and returns the pattern of its route, as a service names its requests.
fn count(request: &Request) -> String {
    REQUESTS.fetch_add(1, Relaxed);
    let pattern = request.extensions().get::<MatchedPath>();
    pattern.map_or("no such route", |pattern| pattern.as_str()).to_owned()
}
