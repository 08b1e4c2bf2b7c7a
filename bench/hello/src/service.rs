//! The service, in one of pertask's states.

use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::{Router, routing::get};
use pertask::sampler::{Sampler, SamplerOptions};
use pertask::{Session, TaskExt};
use std::io::BufRead;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Tells its port, and between the two lines that it reads its CPU time for each request, in microseconds.
pub fn serve(variant: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_io().build();
    let runtime = runtime.expect("a runtime");
    // Held while it serves.
    let _session = (variant == "session").then(|| Session::start().expect("a session"));
    let _sampler = variant.parse().ok().map(|hertz| {
        Sampler::start(SamplerOptions::with_frequency(hertz)).expect("something interrupts threads")
    });
    let router = Router::new().route("/hello", get(async || "hello"));
    let router = match variant {
        "bare" => router.layer(from_fn(nothing)),
        _ => router.layer(from_fn(as_task)),
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    println!("{}", listener.local_addr().expect("a port").port());
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        axum::serve(listener, router).await
    });
    let mut lines = std::io::stdin().lock().lines();
    lines.next();
    let (cpu_ns, requests) = (cpu_ns(), REQUESTS.load(Relaxed));
    lines.next();
    let (cpu_ns, requests) = (self::cpu_ns() - cpu_ns, REQUESTS.load(Relaxed) - requests);
    println!("{}", cpu_ns as f64 / requests as f64 / 1e3);
    // The clients go on until they are told.
    lines.next();
    runtime.shutdown_background();
    std::process::exit(0);
}

async fn nothing(request: Request, next: Next) -> Response {
    REQUESTS.fetch_add(1, Relaxed);
    std::hint::black_box(route(&request));
    next.run(request).await
}

async fn as_task(request: Request, next: Next) -> Response {
    REQUESTS.fetch_add(1, Relaxed);
    let name = route(&request);
    next.run(request).task(name).await
}

/// The pattern of its route, as a service names its requests.
fn route(request: &Request) -> String {
    let pattern = request.extensions().get::<MatchedPath>();
    pattern.map_or("no such route", |pattern| pattern.as_str()).to_owned()
}

/// CPU time of the process.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
