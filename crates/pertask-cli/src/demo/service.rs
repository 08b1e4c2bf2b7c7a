//! The demo's service: what a user's own axum service looks like with pertask in it.
//!
//! The lines marked `pertask 1/3` to `3/3` (the last is in the module above) are all that the measuring needs.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::Method,
    middleware::{self, Next},
    response::Response,
    serve::ListenerExt,
};
use pertask::TaskExt; // pertask 1/3: `.task(..)` on any future
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time};

use crate::{demo::routes, error::Error, output::note};

/// How long open connections may take to end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// A service that listens.
pub struct Service {
    address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

impl Service {
    /// Listens on loopback and serves from then on.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] where the port is taken or not allowed.
    pub async fn start(port: u16) -> Result<Self, Error> {
        let (listener, address) = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        // Without this, small answers would wait for the client's delayed acknowledgement.
        let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));

        let app: Router = routes::router().layer(middleware::from_fn(name_by_route));
        let (shutdown, asked) = oneshot::channel();
        let serve =
            axum::serve(listener, app).with_graceful_shutdown(async move { drop(asked.await) });
        let served = tokio::spawn(async move { serve.await }.task("accept connections"));
        Ok(Self { address, shutdown, served })
    }

    /// Where it listens, with the port that the kernel chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers the requests under way and ends, but does not wait for ever.
    pub async fn stop(self) {
        // Fails only where the service has ended by itself.
        let _ = self.shutdown.send(());
        if time::timeout(SHUTDOWN_LIMIT, self.served).await.is_err() {
            // Not the demo's own clients, which are gone: somebody else was calling, and the report is not affected.
            note(format_args!("connections were still open after {SHUTDOWN_LIMIT:?} and are cut"));
        }
    }
}

/// Runs each request as a task named after its route.
///
/// By the route's pattern (`/users/{id}`) and not the request's path, and by a method only where that is a usual one:
/// a report has a row for each name and room for so many, so callers must not be able to invent them.
async fn name_by_route(request: Request, next: Next) -> Response {
    let name = match (request.method(), request.extensions().get::<MatchedPath>()) {
        (method @ (&Method::GET | &Method::HEAD), Some(path)) => {
            format!("{method} {}", path.as_str())
        }
        _ => "no such route".to_owned(),
    };
    next.run(request).task(name).await // pertask 2/3: one task for each request
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let refused = |cause| Error::Listen { address, cause };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}
