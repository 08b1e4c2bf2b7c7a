//! The one thread of a server that is always there. It sleeps until somebody calls, and gives each caller a thread.

use crate::answer::Answer;
use crate::bell::Woken;
use crate::callers::{Entered, Place};
use crate::connection;
use crate::listener::Listener;
use crate::peer::Peer;
use crate::serve_error::ServeError;
use crate::server::Shared;
use crate::stream::Stream;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_nodelay,
};
use rustix::net::{SocketFlags, accept_with};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// What the thread has.
pub(crate) struct Acceptor {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    /// A descriptor that is of no use but to be closed when the program has used up all others.
    reserve: Option<OwnedFd>,
}

/// A service may do much on a caller's thread, such as looking up symbols. What it does not use is only address space.
const CALLERS_STACK: usize = 2 << 20;

/// How long a caller on TCP may be silent until the kernel asks whether he is there, and then between its questions.
const ALIVE: Duration = Duration::from_secs(10);

/// The pause when the program has no descriptors left.
const PAUSE: Duration = Duration::from_secs(1);

impl Acceptor {
    pub(crate) fn new(shared: Arc<Shared>, listener: Arc<Listener>) -> Result<Self, ServeError> {
        Ok(Self { shared, listener, reserve: reserve() })
    }

    /// Accepts callers until the bell rings.
    pub(crate) fn run(mut self) {
        loop {
            match self.shared.bell.sleep_until_ready(&self.listener.socket) {
                Woken::Ready => {}
                Woken::TimeIsUp => continue,
                Woken::Rung => return,
                Woken::Closed => return self.abandon(),
            }
            match self.accept() {
                Ok(stream) => self.admit(stream),
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.drop_one();
                    _ = self.shared.bell.sleep(PAUSE);
                    self.reserve = self.reserve.take().or_else(reserve);
                }
                // The descriptor is not the listener's any more.
                Err(Errno::BADF | Errno::INVAL | Errno::NOTSOCK) => return self.abandon(),
                // The caller has gone before it was accepted.
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                // Whatever it is, this thread does not keep a CPU busy with it.
                Err(_) => _ = self.shared.bell.sleep(PAUSE),
            }
        }
    }

    /// Leaves the descriptors as they are: the program has closed some, and their numbers may be other files' by now.
    fn abandon(self) {
        std::mem::forget(self);
    }

    fn accept(&self) -> Result<Stream, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        accept_with(&self.listener.socket, flags).map(Stream)
    }

    fn admit(&self, stream: Stream) {
        let is_tcp = self.listener.is_tcp();
        if is_tcp {
            // Without it, a short answer would wait for the caller's word that it has the head.
            let _ = set_tcp_nodelay(&stream.0, true);
            // A caller whose machine is gone says nothing.
            let _ = set_socket_keepalive(&stream.0, true);
            let _ = set_tcp_keepidle(&stream.0, ALIVE);
            let _ = set_tcp_keepintvl(&stream.0, ALIVE);
        } else if !Peer::of(&stream.0).is_ok_and(Peer::is_trusted) {
            self.shared.count_refused();
            let reason = "this process answers its own user and root, and nobody else";
            return connection::refuse(&stream, Answer::refused(403, reason));
        }
        welcome(&self.shared, stream, is_tcp);
    }

    /// Accepts a caller, with the descriptor that was kept for this, and drops it: or else it would wait in vain, and this thread would
    /// not sleep.
    fn drop_one(&mut self) {
        self.shared.count_refused();
        if self.reserve.take().is_some() {
            drop(self.accept());
            self.reserve = reserve();
        }
    }
}

/// Gives a caller a thread, or says that there is none.
pub(crate) fn welcome(shared: &Arc<Shared>, stream: Stream, is_tcp: bool) {
    let place = match shared.callers.enter(stream) {
        Entered::Place(place) => place,
        Entered::Ended => return,
        Entered::Full(stream) => {
            shared.count_refused();
            return connection::refuse(&stream, busy());
        }
    };
    let serving = Arc::clone(shared);
    let thread = thread::Builder::new().name("pertask-caller".into()).stack_size(CALLERS_STACK);
    if thread.spawn(move || serve(&serving, &place, is_tcp)).is_err() {
        // The caller went with the closure.
        shared.count_refused();
    }
}

fn serve(shared: &Shared, place: &Place, is_tcp: bool) {
    connection::serve(&place.stream, &shared.options, &*shared.service, is_tcp);
}

fn busy() -> Answer {
    let mut busy = Answer::refused(503, "there are as many callers as there may be; try again");
    busy.headers.push(("Retry-After", "1".into()));
    busy
}

fn reserve() -> Option<OwnedFd> {
    open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}
