//! A small axum service with pertask in it: the three marked lines are all it takes.
//!
//! ```text
//! cargo run -p pertask --features json --example axum              serves until Ctrl-C, and prints what to call
//! cargo run -p pertask --features json --example axum -- --once    calls itself a few times and prints the report
//! ```

use std::{error::Error, hint::black_box, net::SocketAddr, sync::Arc, thread, time::Duration};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use pertask::{Session, TaskExt}; // pertask 1/3
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    signal,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let session = Arc::new(Session::start()?); // pertask 2/3: from here on, every task of the process is measured

    let service = Router::new()
        .route("/compute", get(compute))
        .route("/wait", get(wait))
        .route("/blocking", get(blocking))
        .route("/report", get(report))
        .with_state(Arc::clone(&session))
        .layer(middleware::from_fn(name_by_route));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(async { axum::serve(listener, service).await });

    if std::env::args().any(|argument| argument == "--once") {
        call_everything(address).await?;
    } else {
        println!("Call it:       curl http://{address}/compute   (or /wait, /blocking)");
        println!("See who spent: curl http://{address}/report");
        println!("Ctrl-C prints the report and ends.");
        signal::ctrl_c().await?;
    }
    serving.abort();
    println!("{}", session.snapshot());
    Ok(())
}

/// Runs each request as a task named after its route, as in "GET /users/{id}".
///
/// Names are for kinds of requests. Take care that callers cannot invent them: use the route's pattern, not the path,
/// and only the methods that you serve.
async fn name_by_route(request: Request, next: Next) -> Response {
    let name = match (request.method(), request.extensions().get::<MatchedPath>()) {
        (&Method::GET, Some(path)) => format!("GET {}", path.as_str()),
        _ => "no such route".to_owned(),
    };
    next.run(request).task(name).await // pertask 3/3
}

/// The report so far, as JSON. In a real service, keep such a route to yourself.
async fn report(State(session): State<Arc<Session>>) -> String {
    session.snapshot().to_json()
}

/// Spends CPU time.
async fn compute() -> String {
    let sum =
        (0..2_000_000_u64).fold(0, |sum: u64, n| black_box(sum.wrapping_mul(31).wrapping_add(n)));
    format!("{sum}\n")
}

/// Spends next to none: its thread runs other tasks meanwhile.
async fn wait() -> &'static str {
    tokio::time::sleep(Duration::from_millis(20)).await;
    "waited\n"
}

/// Spends next to none either, but keeps its thread. The report tells them apart: by the longest poll.
async fn blocking() -> &'static str {
    thread::sleep(Duration::from_millis(20));
    "blocked\n"
}

/// What a person with curl would do.
async fn call_everything(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    for path in ["/compute", "/wait", "/blocking"].repeat(10) {
        let mut connection = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        if !answer.starts_with("HTTP/1.1 200") {
            return Err(format!("GET {path} was answered: {answer}").into());
        }
    }
    Ok(())
}
