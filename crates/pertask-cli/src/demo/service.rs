//! The demo's service: what a user's own axum service looks like with pertask in it.
//!
//! Measuring needs only the lines marked `pertask 1/3` to `3/3`. (The last one is in `demo/mod.rs`.)

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

/// The longest time that open connections may take to end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// The running service.
pub struct Service {
    address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

impl Service {
    /// Starts to serve on the loopback address.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Listen`] if the port is in use or not allowed.
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

    /// Starts the same service with no line of pertask in it.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Listen`] if the port is in use or not allowed.
    pub async fn start_plain(port: u16) -> Result<Self, Error> {
        let (listener, address) = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
        let (shutdown, asked) = oneshot::channel();
        let serve = axum::serve(listener, routes::plain_router())
            .with_graceful_shutdown(async move { drop(asked.await) });
        let served = tokio::spawn(async move { serve.await });
        Ok(Self { address, shutdown, served })
    }

    /// Returns the service's address, with the port that the kernel chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers the current requests and stops, after a time limit at the latest.
    pub async fn stop(self) {
        // This fails only if the service has ended by itself.
        let _ = self.shutdown.send(());
        if time::timeout(SHUTDOWN_LIMIT, self.served).await.is_err() {
            // The demo's own clients are gone, so somebody else was calling. The report is not affected.
            note(format_args!(
                "some connections were still open after {SHUTDOWN_LIMIT:?} and have been closed"
            ));
        }
    }
}

/// Runs each request as a task named after its route.
///
/// The name is the route's pattern (`/users/{id}`), never the request's path, and has a method only if that is a usual one.
/// A report has a row for each name and limited room, so callers must not be able to invent names.
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
