//! The thread of a server that does not listen, but connects to a tool and waits for its questions.

use crate::acceptor::welcome;
use crate::bell::Woken;
use crate::entry;
use crate::listener::parent;
use crate::peer::Peer;
use crate::server::Shared;
use crate::stream::Stream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What the thread has.
pub(crate) struct Dialer {
    shared: Arc<Shared>,
    path: PathBuf,
}

/// The first pause after a failure. Each further one is twice as long.
const SHORTEST: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

impl Dialer {
    pub(crate) fn new(shared: Arc<Shared>, path: PathBuf) -> Self {
        Self { shared, path }
    }

    /// Connects, waits for a question, and connects again for the next one, until the bell rings.
    pub(crate) fn run(self) {
        let mut pause = SHORTEST;
        loop {
            let stream = self.dial();
            let woken = match &stream {
                Some(stream) => self.shared.bell.sleep_until_ready(&stream.0),
                None => Woken::TimeIsUp,
            };
            match (woken, stream) {
                (Woken::Rung, _) => return,
                (Woken::Closed, stream) => return self.abandon(stream),
                (Woken::Ready, Some(stream)) => match has_question(&stream) {
                    Ok(true) => {
                        welcome(&self.shared, stream, false);
                        pause = SHORTEST;
                        continue;
                    }
                    // The descriptor is not this thread's any more.
                    Err(Errno::BADF | Errno::NOTSOCK) => return self.abandon(Some(stream)),
                    // The tool has gone.
                    Ok(false) | Err(_) => {}
                },
                // There is no tool.
                _ => {}
            }
            match self.shared.bell.sleep(pause) {
                Woken::TimeIsUp => pause = (pause * 2).min(LONGEST),
                Woken::Closed => return self.abandon(None),
                Woken::Rung | Woken::Ready => return,
            }
        }
    }

    /// Leaves the descriptors as they are: the program has closed some, and their numbers may be other files' by now.
    fn abandon(self, stream: Option<Stream>) {
        std::mem::forget((self, stream));
    }

    /// Connects to the tool, if it is this user's or root's.
    fn dial(&self) -> Option<Stream> {
        let (directory, name) = parent(&self.path).ok()?;
        let stream = entry::connect_to(&directory, &name).ok()?;
        Peer::of(&stream.0).is_ok_and(Peer::is_trusted).then_some(stream)
    }
}

/// Whether what has come is a question, and not the end.
fn has_question(stream: &Stream) -> Result<bool, Errno> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    recv(&stream.0, &mut [0; 1][..], flags).map(|(bytes, _)| bytes > 0)
}
