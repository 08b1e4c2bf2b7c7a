//! The agent's paths on a server of the program's own.

use axum::{Router, body::Body, extract::Request, routing::get};
use pertask::TaskExt;
use pertask::profile::Profile;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The process has a number of answers at a time, so one test after the other asks.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn pertask(request: Request) -> axum::response::Response {
    pertask::agent::respond(&request).await.map(Body::from)
}

fn request(path: &str) -> http::Request<()> {
    http::Request::get(path).body(()).expect("a request")
}

/// Gets a path: the head, and the body.
fn ask(port: u16, path: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("to connect");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("to ask");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("to read");
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").expect("a head") + 4;
    (String::from_utf8_lossy(&answer[..end]).into_owned(), answer[end..].to_vec())
}

#[test]
fn a_service_answers_scrapes_and_profilers() {
    let _alone = alone();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let port = runtime.block_on(async {
        let app: Router = Router::new()
            .route("/metrics", get(pertask))
            .route("/v1/report", get(pertask))
            .route("/debug/pprof/{*path}", get(pertask));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move { axum::serve(listener, app).await });
        tokio::spawn(
            async {
                loop {
                    std::hint::black_box((0..10_000_u64).sum::<u64>());
                    tokio::task::yield_now().await;
                }
            }
            .task("sums"),
        );
        port
    });
    let (head, _) = ask(port, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    // What this path does not know is left out, whatever other paths take it for.
    let (head, text) = ask(port, "/debug/pprof/tasks?seconds=0.3&task=999999999&site=none&each=x");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(String::from_utf8_lossy(&text).contains("sums"), "{text:?}");
    let (head, profile) = ask(port, "/debug/pprof/profile?seconds=0.5");
    if head.starts_with("HTTP/1.1 503 ") {
        eprintln!("SKIPPED: {}", String::from_utf8_lossy(&profile));
    } else {
        Profile::from_pprof(&*profile).expect("a profile");
    }
    // What is for the program's own user is not there.
    let (head, _) = ask(port, "/v1/report");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
}

#[test]
fn it_answers_on_any_executor() {
    let _alone = alone();
    let answer = futures::executor::block_on(pertask::agent::respond(&request("/debug/pprof/")));
    assert_eq!(answer.status(), 200);
    let answer =
        futures::executor::block_on(pertask::agent::respond(&request("/debug/pprof/heap")));
    assert_eq!(answer.status(), 404);
    let posted = http::Request::post("/debug/pprof/").body(()).expect("a request");
    assert_eq!(futures::executor::block_on(pertask::agent::respond(&posted)).status(), 405);
}

#[test]
fn who_no_longer_waits_ends_the_measurement() {
    let _alone = alone();
    // As many as there may be.
    let all: Vec<_> = (0..16)
        .map(|_| pertask::agent::respond(&request("/debug/pprof/tasks?seconds=86400")))
        .collect();
    // Not even one that measures nothing gets a thread.
    let refused = futures::executor::block_on(pertask::agent::respond(&request("/debug/pprof/")));
    assert_eq!(refused.status(), 429, "{:?}", String::from_utf8_lossy(refused.body()));
    drop(all);
    // Their threads have to notice first.
    let answer = loop {
        let asked = pertask::agent::respond(&request("/debug/pprof/tasks?seconds=0.01"));
        let answer = futures::executor::block_on(asked);
        if answer.status() != 429 {
            break answer;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(answer.status(), 200, "{:?}", String::from_utf8_lossy(answer.body()));
}
