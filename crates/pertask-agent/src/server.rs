//! The server, as the program has it: it answers until it is dropped.

use crate::acceptor::Acceptor;
use crate::answer::Answer;
use crate::bell::Bell;
use crate::callers::Callers;
use crate::dialer::Dialer;
use crate::directory::Directory;
use crate::listener::{Listener, Place};
use crate::request::Request;
use crate::serve_error::ServeError;
use crate::signals::leave_signals_to_the_program;
use rustix::net::{Shutdown, shutdown};
use std::fmt;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What a server allows its callers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The most callers at a time. Each has a thread.
    pub max_callers: usize,
    /// The time in which a request has come.
    pub request_timeout: Duration,
    /// The time in which a caller takes some of what it is sent.
    pub write_timeout: Duration,
    /// The most bytes of a request.
    pub max_head_bytes: usize,
    /// On TCP: names of this host, beside `localhost` and addresses.
    pub hosts: Vec<String>,
}

/// What answers.
pub trait Service: Send + Sync + 'static {
    /// Answers a request. It is called on the caller's own thread, which it may keep as long as the answer takes.
    fn answer(&self, request: &Request<'_>) -> Answer;
}

/// A server. It ends when it is dropped.
///
/// In a forked child it is nothing: it serves nobody, and dropping it there neither ends nor removes anything of the parent's.
pub struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    place: Where,
    /// The process whose server it is.
    owner: u32,
}

#[derive(Debug)]
enum Where {
    Listens(Arc<Listener>),
    ConnectsTo(PathBuf),
}

/// What the threads of a server share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) service: Arc<dyn Service>,
    pub(crate) callers: Arc<Callers>,
    pub(crate) bell: Bell,
    pub(crate) refused: AtomicU64,
}

/// The thread that waits for callers needs little.
const STACK: usize = 128 << 10;

/// The time in which the callers' threads may end when the server does.
const PATIENCE: Duration = Duration::from_millis(200);

impl Default for Options {
    fn default() -> Self {
        Self {
            max_callers: 16,
            request_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            max_head_bytes: 8 << 10,
            hosts: Vec::new(),
        }
    }
}

impl Server {
    /// Listens in a private directory, where [`connect`](crate::connect()) finds this process. Removes sockets there whose process is gone.
    ///
    /// # Errors
    /// Returns [`ServeError`] if this process listens there already, or if the kernel refuses something.
    pub fn listen(
        directory: &Directory,
        options: Options,
        service: Arc<dyn Service>,
    ) -> Result<Self, ServeError> {
        Self::accept(Listener::in_directory(directory)?, options, service)
    }

    /// Listens at a path. Who can enter its directory is the user's choice; the socket itself is this user's alone.
    ///
    /// # Errors
    /// Returns [`ServeError`] if something is at the path, unless it is a socket at which nobody listens, or if the kernel refuses
    /// something.
    pub fn listen_at(
        path: &Path,
        options: Options,
        service: Arc<dyn Service>,
    ) -> Result<Self, ServeError> {
        Self::accept(Listener::at_path(path)?, options, service)
    }

    /// Listens on TCP. Everybody may call who can reach the address, except web pages.
    ///
    /// # Errors
    /// Returns [`ServeError`] if it cannot listen there.
    pub fn listen_tcp(
        address: SocketAddr,
        options: Options,
        service: Arc<dyn Service>,
    ) -> Result<Self, ServeError> {
        Self::accept(Listener::on_tcp(address)?, options, service)
    }

    /// Connects to a tool that listens at a path, and answers what it asks. While there is none, it tries again, at most every 30
    /// seconds, for ever.
    ///
    /// # Errors
    /// Returns [`ServeError`] if the path has no name or no directory, or if there can be no thread. That nobody listens is no error.
    pub fn connect_to(
        path: &Path,
        options: Options,
        service: Arc<dyn Service>,
    ) -> Result<Self, ServeError> {
        // A tool that is there later may make the directory, too.
        if path.file_name().is_none() {
            return Err(ServeError::NoName { path: path.to_owned() });
        }
        let shared = Shared::new(options, service)?;
        let dialer = Dialer::new(Arc::clone(&shared), path.to_owned());
        let place = Where::ConnectsTo(path.to_owned());
        Self::start(shared, place, move || dialer.run())
    }

    fn accept(
        listener: Listener,
        options: Options,
        service: Arc<dyn Service>,
    ) -> Result<Self, ServeError> {
        let listener = Arc::new(listener);
        let started = Shared::new(options, service).and_then(|shared| {
            let acceptor = Acceptor::new(Arc::clone(&shared), Arc::clone(&listener))?;
            let place = Where::Listens(Arc::clone(&listener));
            Self::start(shared, place, move || acceptor.run())
        });
        if let (Err(_), Place::Entry(entry)) = (&started, &listener.place) {
            entry.remove();
        }
        started
    }

    fn start(
        shared: Arc<Shared>,
        place: Where,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<Self, ServeError> {
        let thread = thread::Builder::new().name("pertask-agent".into()).stack_size(STACK);
        let run = || {
            leave_signals_to_the_program();
            run();
        };
        let thread = thread.spawn(run).map_err(|why| no_resources("start the thread of", why))?;
        Ok(Self { shared, thread: Some(thread), place, owner: std::process::id() })
    }

    /// The path at which it listens, or to which it connects. `None` on TCP.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Where::ConnectsTo(path) => Some(path),
            Where::Listens(listener) => match &listener.place {
                Place::Entry(entry) => Some(&entry.path),
                Place::Port(_) => None,
            },
        }
    }

    /// The address at which it listens, with the port that was chosen if it was 0. `None` if it is not on TCP.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.place {
            Where::Listens(listener) => match listener.place {
                Place::Port(address) => Some(address),
                Place::Entry(_) => None,
            },
            Where::ConnectsTo(_) => None,
        }
    }

    /// The number of callers that were not served, because they were too many, or other users, or this process had no descriptor or
    /// thread for them.
    #[must_use]
    pub fn refused(&self) -> u64 {
        // Relaxed: the number alone counts, and it orders nothing.
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Ends it, which takes at most some hundreds of milliseconds. Callers get no more of their answers.
    pub fn stop(self) {
        drop(self);
    }
}

impl Shared {
    fn new(options: Options, service: Arc<dyn Service>) -> Result<Arc<Self>, ServeError> {
        let bell = Bell::new().map_err(|why| no_resources("get a descriptor for", why))?;
        let callers = Callers::new(options.max_callers);
        Ok(Arc::new(Self { options, service, callers, bell, refused: AtomicU64::new(0) }))
    }

    pub(crate) fn count_refused(&self) {
        // Relaxed: the number alone counts, and it orders nothing.
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

fn no_resources(what: &'static str, cause: io::Error) -> ServeError {
    ServeError::Io { what, place: "an agent".into(), cause }
}

impl Drop for Server {
    fn drop(&mut self) {
        let thread = self.thread.take();
        if std::process::id() != self.owner {
            // The parent's threads are not here to be joined, and one of them may have held the lock of `callers`.
            mem::forget(thread);
            return;
        }
        if let Where::Listens(listener) = &self.place
            && let Place::Entry(entry) = &listener.place
        {
            entry.remove();
        }
        if let Where::Listens(listener) = &self.place {
            // A forked child may have a copy, at which nobody would answer.
            let _ = shutdown(&listener.socket, Shutdown::Both);
        }
        self.shared.bell.ring();
        self.shared.callers.end();
        // It answers nobody itself, so it ends at once. It does not panic.
        let _ = thread.map(JoinHandle::join);
        self.shared.callers.wait_until_none(PATIENCE);
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("place", &self.place).finish_non_exhaustive()
    }
}
