//! The demo's load: HTTP clients that call each route over TCP, check every answer, and count them.

use std::{
    error::Error as StdError,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    body::Bytes,
    http::{StatusCode, Uri},
};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::{Client as HttpClient, connect::HttpConnector};
use pertask::TaskExt;
use pertask_text::human::counted;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time,
};

use crate::{
    demo::routes::{ROUTES, Route},
    error::Error,
};

/// The longest time that an answer may take. The slowest route needs far less, so reaching it means overload.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The running clients.
pub struct Clients {
    running: JoinSet<()>,
    counts: Arc<Counts>,
    /// Receives how a first request failed. It is closed when every client has had its first answer.
    warming: mpsc::Receiver<String>,
    stop: watch::Sender<bool>,
}

impl Clients {
    /// Starts `per_route` clients for each route, each with its own connection.
    pub fn start(service: SocketAddr, per_route: u16) -> Self {
        let counts = Arc::new(Counts::default());
        let (warm, warming) = mpsc::channel(1);
        let (stop, stopped) = watch::channel(false);
        let mut running = JoinSet::new();
        for route in ROUTES.iter().flat_map(|route| (0..per_route).map(move |_| *route)) {
            let client = Client { route, http: connection(), counts: Arc::clone(&counts) };
            running.spawn(client.call(service, warm.clone(), stopped.clone()).task("client"));
        }
        Self { running, counts, warming, stop }
    }

    /// Waits until every client has had its first answer.
    ///
    /// # Errors
    ///
    /// Returns [`Error::NotReady`] as soon as a first request fails, because the others would hardly do better.
    pub async fn warmed_up(&mut self) -> Result<(), Error> {
        self.warming.recv().await.map_or(Ok(()), |first| Err(Error::NotReady { first }))
    }

    /// Returns the tally so far.
    pub fn tally(&self) -> Tally {
        self.counts.tally()
    }

    /// Lets each client finish its current request, and stops it.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Requests`] if any request has failed since the start.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.stop.send_replace(true);
        while self.running.join_next().await.is_some() {}
        let tally = self.counts.tally();
        match self.counts.first_failure.get() {
            None => Ok(()),
            Some(first) => Err(Error::Requests {
                failed: tally.failed,
                total: tally.total(),
                first: first.clone(),
            }),
        }
    }
}

/// The number of requests that ended, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests with the right answer.
    pub answered: u64,
    /// Requests with a wrong answer or no answer.
    pub failed: u64,
}

impl Tally {
    /// Returns the number of all requests that ended.
    pub fn total(&self) -> u64 {
        self.answered + self.failed
    }

    /// Returns what was added since an earlier tally.
    pub fn since(&self, earlier: &Self) -> Self {
        Self { answered: self.answered - earlier.answered, failed: self.failed - earlier.failed }
    }
}

/// The tally that all clients add to.
#[derive(Default)]
struct Counts {
    // Relaxed: these are counts, and no other memory depends on them.
    answered: AtomicU64,
    failed: AtomicU64,
    first_failure: OnceLock<String>,
}

impl Counts {
    fn add(&self, outcome: &Result<(), String>) {
        match outcome {
            Ok(()) => self.answered.fetch_add(1, Relaxed),
            Err(failure) => {
                self.first_failure.get_or_init(|| failure.clone());
                self.failed.fetch_add(1, Relaxed)
            }
        };
    }

    fn tally(&self) -> Tally {
        Tally { answered: self.answered.load(Relaxed), failed: self.failed.load(Relaxed) }
    }
}

/// One client, which sends a request, checks the answer, pauses, and starts again.
struct Client {
    route: Route,
    http: HttpClient<HttpConnector, Empty<Bytes>>,
    counts: Arc<Counts>,
}

impl Client {
    async fn call(
        self,
        service: SocketAddr,
        warm: mpsc::Sender<String>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let expected = (self.route.answer)();
        if let Err(failure) = self.request(service, &expected).await {
            // The channel refuses only if another failure is waiting in it, and one is enough.
            let _ = warm.try_send(failure);
        }
        drop(warm);
        while self.think(&mut stopped).await {
            // The tally counts failures, and the run goes on.
            let _ = self.request(service, &expected).await;
        }
    }

    /// Pauses, and returns whether to go on.
    async fn think(&self, stopped: &mut watch::Receiver<bool>) -> bool {
        tokio::select! {
            _ = stopped.changed() => false,
            () = time::sleep(self.route.think) => true,
        }
    }

    /// Sends a request and counts its outcome.
    async fn request(&self, service: SocketAddr, expected: &str) -> Result<(), String> {
        let outcome = time::timeout(ANSWER_LIMIT, self.ask(service, expected)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {ANSWER_LIMIT:?}")));
        let outcome = outcome.map_err(|why| format!("GET {}: {why}", self.route.path));
        self.counts.add(&outcome);
        outcome
    }

    /// Sends a request without a time limit. Returns the reason if the answer is not the expected one.
    async fn ask(&self, service: SocketAddr, expected: &str) -> Result<(), String> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(service.to_string())
            .path_and_query(self.route.path)
            .build();
        let response = self.http.get(uri.map_err(|e| chain(&e))?).await.map_err(|e| chain(&e))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|e| chain(&e))?.to_bytes();
        match status {
            StatusCode::OK if body == expected => Ok(()),
            StatusCode::OK => {
                Err(format!("a wrong answer of {}", counted(body.len() as u64, "byte")))
            }
            status => Err(format!("status {status}")),
        }
    }
}

/// Returns an HTTP client that keeps its connection.
fn connection() -> HttpClient<HttpConnector, Empty<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    HttpClient::builder(TrackingExecutor).build(connector)
}

/// An executor that makes hyper's own tasks visible in the report.
///
/// Any library that takes an executor can be given one like this.
#[derive(Clone, Copy, Debug)]
struct TrackingExecutor;

impl<F> hyper::rt::Executor<F> for TrackingExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, connection: F) {
        tokio::spawn(connection.task("client connection"));
    }
}

/// Returns an error with its causes, because hyper's own message is only "client error (Connect)".
fn chain(error: &dyn StdError) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
