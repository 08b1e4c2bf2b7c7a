//! A door from outside: a private Unix socket at which a running process answers its user's tools, and the tools' side of it.
//!
//! ```
//! use pertask_agent::{Answer, Directory, Options, Request, Server, Service};
//! use std::sync::Arc;
//!
//! struct Hello;
//!
//! impl Service for Hello {
//!     fn answer(&self, request: &Request<'_>) -> Answer {
//!         Answer::text(format!("hello from {}\n", request.path()))
//!     }
//! }
//!
//! # let place = std::env::temp_dir().join(format!("pertask-agent-doc-{}", std::process::id()));
//! let directory = Directory::open_or_create(&place)?;
//! let server = Server::listen(&directory, Options::default(), Arc::new(Hello))?;
//! // curl --unix-socket PATH http://agent/there
//! println!("listening at {}", server.path().expect("a path").display());
//! # drop(server);
//! # std::fs::remove_dir(place)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The crate knows nothing of what is asked and answered. [`pertask`](https://docs.rs/pertask) uses it for its agent.
//!
//! # What it never does
//!
//! It never disturbs its process. One thread sleeps until somebody calls; each caller then has a thread, and there are at most
//! [`Options::max_callers`]. It takes none of the process's signals, sends none, and lets none be sent (`SIGPIPE`), passes no descriptor on at `exec`, takes no
//! descriptor that the program needs, and a forked child serves nothing.
//!
//! # Who may call
//!
//! Sockets are in a directory of mode 0700 that the user owns and that is no link, have mode 0600, and ask the kernel for the
//! caller's user: the same, or root. A process in a user namespace does not know root outside, so a tool of root's becomes that process's
//! user while it connects. On TCP anybody may call who can reach the address, except web pages.

#![deny(unsafe_code)]

mod directory;
mod entry;
mod identity;
#[allow(unsafe_code)]
mod peer;
mod stream;

#[cfg(feature = "server")]
mod acceptor;
#[cfg(feature = "server")]
mod answer;
#[cfg(feature = "server")]
mod bell;
#[cfg(feature = "server")]
mod caller;
#[cfg(feature = "server")]
mod callers;
#[cfg(feature = "server")]
mod connection;
#[cfg(feature = "server")]
mod dialer;
#[cfg(feature = "server")]
mod listener;
#[cfg(feature = "server")]
mod request;
#[cfg(feature = "server")]
mod serve_error;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
#[allow(unsafe_code)]
mod signals;

#[cfg(feature = "client")]
mod as_user;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod client_error;
#[cfg(feature = "client")]
mod find;
#[cfg(feature = "client")]
mod reply;
#[cfg(feature = "client")]
mod target;

pub use directory::{Directory, DirectoryError, variable};
pub use identity::Identity;

#[cfg(feature = "server")]
pub use answer::{Answer, Body};
#[cfg(feature = "server")]
pub use caller::{Caller, Presence, Waited};
#[cfg(feature = "server")]
pub use request::{Query, Request};
#[cfg(feature = "server")]
pub use serve_error::ServeError;
#[cfg(feature = "server")]
pub use server::{Options, Server, Service};
#[cfg(feature = "server")]
pub use signals::leave_signals_to_the_program;

#[cfg(feature = "client")]
pub use client::{Client, connect};
#[cfg(feature = "client")]
pub use client_error::ClientError;
#[cfg(feature = "client")]
pub use find::{Found, find};
#[cfg(feature = "client")]
pub use reply::{Reply, ReplyBody};
