//! A connection to a process's agent: for one question.

use crate::as_user::as_user;
use crate::client_error::ClientError;
use crate::entry;
use crate::peer::Peer;
use crate::reply::Reply;
use crate::stream::{Stream, after};
use crate::target::{Socket, Target};
use rustix::process::geteuid;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// A connection to the agent of a process.
#[derive(Debug)]
pub struct Client {
    pid: u32,
    stream: Stream,
}

/// The time in which a process with many callers has a place for another.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often somebody looks whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// The time in which something more of a body comes, beyond that in which its head does.
const BETWEEN: Duration = Duration::from_secs(60);

/// Connects to the agent of a process.
///
/// # Errors
/// Returns [`ClientError`] if there is no such process, if this user may not ask it, or if it has no agent.
pub fn connect(pid: u32) -> Result<Client, ClientError> {
    let target = Target::read(pid).map_err(|why| unreadable(pid, why))?;
    let (mut refused, mut failed) = (None, None);
    for socket in target.sockets() {
        match socket {
            Err(why) => refused = refused.or(Some(why)),
            Ok(socket) => match call(&target, &socket) {
                Ok(client) => return Ok(client),
                Err(why) => failed = failed.or(Some(why)),
            },
        }
    }
    let (user, program) = (geteuid().as_raw(), target.program.clone());
    Err(match failed {
        Some(why) => why,
        None if target.user != user && !target.is_open() => {
            ClientError::NotAllowed { pid, program, user: target.user }
        }
        None => ClientError::NoAgent { pid, program, user, refused },
    })
}

fn call(target: &Target, socket: &Socket) -> Result<Client, ClientError> {
    let (pid, path) = (target.pid, || socket.path.clone());
    let stream = match geteuid().is_root() && target.has_other_users() {
        // There, root outside is nobody.
        true => as_user(target.user, target.group, || reach(socket)),
        false => reach(socket),
    };
    let stream = stream.map_err(|cause| ClientError::Refused { pid, path: path(), cause })?;
    let what = "find out who listens for";
    let peer = Peer::of(&stream.0).map_err(|cause| ClientError::Io { pid, what, cause })?;
    if peer != (Peer { pid, user: target.user }) {
        let (found, found_user) = (peer.pid, peer.user);
        return Err(ClientError::Impostor { pid, path: path(), found, found_user });
    }
    Ok(Client { pid, stream })
}

/// Connects. The kernel does not wait for a place among those who wait.
fn reach(socket: &Socket) -> io::Result<Stream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match entry::connect_to(&socket.directory, &socket.name) {
            Err(why) if why.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(LOOK);
            }
            connected => return connected,
        }
    }
}

fn unreadable(pid: u32, cause: io::Error) -> ClientError {
    match (cause.kind(), rustix::io::Errno::from_io_error(&cause)) {
        // It has ended while it was read.
        (io::ErrorKind::NotFound, _) | (_, Some(rustix::io::Errno::SRCH)) => {
            ClientError::NoProcess { pid }
        }
        _ => ClientError::Io { pid, what: "look at", cause },
    }
}

impl Client {
    /// Asks for a path, which may have parameters: `/v1/tasks?limit=10`. The head of the answer must come within the time-out, and then
    /// something of the body within every minute more than that.
    ///
    /// # Errors
    /// Returns [`ClientError`] if no answer comes in time, or what comes is none.
    pub fn get(self, path: &str, timeout: Duration) -> Result<Reply, ClientError> {
        self.ask("GET", path, timeout)
    }

    /// Asks for something to be done. It is otherwise as [`get`](Self::get).
    ///
    /// # Errors
    /// Returns [`ClientError`] if no answer comes in time, or what comes is none.
    pub fn post(self, path: &str, timeout: Duration) -> Result<Reply, ClientError> {
        self.ask("POST", path, timeout)
    }

    fn ask(self, method: &str, path: &str, timeout: Duration) -> Result<Reply, ClientError> {
        let (pid, deadline) = (self.pid, after(timeout));
        if !path.starts_with('/') || path.contains(|it: char| it.is_control() || it == ' ') {
            let cause = io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} is no path"));
            return Err(ClientError::Io { pid, what: "ask", cause });
        }
        let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: pertask\r\nConnection: close\r\n{length}\r\n"
        );
        let failed = |cause: io::Error| match cause.kind() {
            io::ErrorKind::TimedOut => ClientError::TimedOut { pid, after: timeout },
            io::ErrorKind::InvalidData => ClientError::BadAnswer { pid, found: cause.to_string() },
            _ => ClientError::Io { pid, what: "ask", cause },
        };
        match self.stream.send_all(head.as_bytes(), timeout) {
            // It has answered before it was asked, that it cannot.
            Err(why)
                if matches!(
                    why.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) => {}
            sent => sent.map_err(failed)?,
        }
        Reply::read(self.stream, deadline, timeout.saturating_add(BETWEEN)).map_err(failed)
    }
}
