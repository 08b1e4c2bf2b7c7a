//! Answers to requests that a server of the program itself has read: axum's, hyper's, or any other that has the types of the crate `http`.

use super::asked::Refusal;
use super::limits;
use super::routes::Routes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use pertask_agent::{Answer, Body, Caller, Presence, Service as _};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

/// The paths that are answered. What else an agent answers is for its own user alone.
const PATHS: [&str; 2] = ["/metrics", "/debug/pprof/"];

/// Answers a request for `/metrics` or a path below `/debug/pprof/`, and all others with 404.
///
/// The answer is made on a thread of its own, so no runtime waits while it samples, and it comes also while all workers are
/// blocked. At most 16 answers are made at a time; others are 429. If the future is dropped, as when the caller leaves, sampling ends. Whoever may call the server may ask: put the paths where your own people alone are.
///
/// ```no_run
/// use axum::{Router, body::Body, extract::Request, routing::get};
///
/// async fn pertask(request: Request) -> axum::response::Response {
///     pertask::agent::respond(&request).await.map(Body::from)
/// }
///
/// let app: Router = Router::new()
///     .route("/metrics", get(pertask))
///     .route("/debug/pprof/", get(pertask))
///     .route("/debug/pprof/{*path}", get(pertask));
/// ```
pub fn respond<B>(request: &Request<B>) -> Responding {
    let (caller, presence) = Caller::elsewhere();
    let shared = Arc::new(Mutex::new(Shared::default()));
    let started = start(Asked::of(request), caller, Arc::clone(&shared));
    if let Err(refused) = started {
        Shared::finish(&shared, refused.into_answer());
    }
    Responding { shared, _presence: presence }
}

/// Starts a thread that answers, unless there are as many as there may be.
fn start(asked: Asked, caller: Caller, shared: Arc<Mutex<Shared>>) -> Result<(), Refusal> {
    let permit = limits::ANSWERS.take()?;
    let thread = thread::Builder::new().name("pertask-caller".to_owned());
    let started = thread.spawn(move || {
        let made = catch_unwind(AssertUnwindSafe(|| asked.answer(&caller)));
        drop(permit);
        // Whatever happens, somebody waits.
        let failed = |_| Answer::refused(500, "answering has panicked; this is a bug");
        Shared::finish(&shared, made.unwrap_or_else(failed));
    });
    let none = |why| Refusal::new(503, format!("there is no thread for it: {why}"));
    started.map(drop).map_err(none)
}

/// The answer that [`respond`] returns.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct Responding {
    shared: Arc<Mutex<Shared>>,
    _presence: Presence,
}

#[derive(Debug, Default)]
struct Shared {
    answer: Option<Answer>,
    waker: Option<Waker>,
}

/// A request, without its body.
struct Asked {
    method: String,
    target: String,
    accept: Option<String>,
}

impl Asked {
    fn of<B>(request: &Request<B>) -> Self {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let accept = request.headers().get_all(http::header::ACCEPT).iter();
        let accept: Vec<_> = accept.filter_map(|accept| accept.to_str().ok()).collect();
        Self {
            method: request.method().to_string(),
            target: target.to_owned(),
            accept: (!accept.is_empty()).then(|| accept.join(",")),
        }
    }

    fn answer(&self, caller: &Caller) -> Answer {
        let Self { method, target, accept } = self;
        let path = target.split('?').next().unwrap_or_default();
        if !PATHS.iter().any(|known| path.starts_with(known)) {
            return Answer::refused(404, &format!("there is no {path} here"));
        }
        let headers = accept.iter().map(|accept| ("accept", &**accept)).collect();
        Routes.answer(&pertask_agent::Request::new(method, target, headers, caller))
    }
}

impl Shared {
    fn finish(shared: &Mutex<Self>, answer: Answer) {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.answer = Some(answer);
        let waker = shared.waker.take();
        drop(shared);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Future for Responding {
    type Output = Response<Vec<u8>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        match shared.answer.take() {
            Some(answer) => Poll::Ready(response(answer)),
            None => {
                shared.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn response(answer: Answer) -> Response<Vec<u8>> {
    let body = match answer.body {
        Body::Whole(bytes) => bytes,
        // These paths have none.
        Body::Parts(parts) => parts.flatten().collect(),
    };
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
            headers.insert(name, value);
        }
    }
    response
}
