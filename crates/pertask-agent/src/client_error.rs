//! Why a tool does not reach a process, or gets no answer.

use crate::directory::DirectoryError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a tool does not reach a process, or gets no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no such process.
    NoProcess {
        /// Its number.
        pid: u32,
    },
    /// It is another user's.
    NotAllowed {
        /// Its number.
        pid: u32,
        /// Its program.
        program: String,
        /// Its user.
        user: u32,
    },
    /// It has no agent, or none that is found.
    NoAgent {
        /// Its number.
        pid: u32,
        /// Its program.
        program: String,
        /// The user that asks.
        user: u32,
        /// A directory in which it could have been, but which is not used.
        refused: Option<DirectoryError>,
    },
    /// Nobody listens at its socket, or so many wait that there is no place for another.
    Refused {
        /// Its number.
        pid: u32,
        /// The path of the socket.
        path: PathBuf,
        /// What the kernel says.
        cause: io::Error,
    },
    /// Another process listens at its socket.
    Impostor {
        /// Its number.
        pid: u32,
        /// The path of the socket.
        path: PathBuf,
        /// The number of the process that listens.
        found: u32,
        /// The user of that process.
        found_user: u32,
    },
    /// No answer came in time.
    TimedOut {
        /// Its number.
        pid: u32,
        /// The time.
        after: Duration,
    },
    /// What came is no answer.
    BadAnswer {
        /// Its number.
        pid: u32,
        /// What has come.
        found: String,
    },
    /// Something else was refused.
    Io {
        /// Its number.
        pid: u32,
        /// What was tried.
        what: &'static str,
        /// What the kernel says.
        cause: io::Error,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProcess { pid } => {
                write!(f, "there is no process {pid}; ps lists the processes")
            }
            Self::NotAllowed { pid, program, user } => write!(
                f,
                "process {pid} ({program}) is user {user}'s, and you may not look at it: ask as that user, or as root"
            ),
            Self::NoAgent { pid, program, user, refused } => {
                write!(
                    f,
                    "process {pid} ({program}) has no agent that user {user} can reach: add `pertask::init()` to its main, or, if it has it, see whether PERTASK is off"
                )?;
                refused.as_ref().map_or(Ok(()), |why| write!(f, "; {why}"))
            }
            Self::Refused { pid, path, cause } => write!(
                f,
                "the agent of process {pid} does not answer at {}: {cause}; try again, and start the process anew if that does not help",
                path.display()
            ),
            Self::Impostor { pid, path, found, found_user } => write!(
                f,
                "at the socket of process {pid}, {}, listens process {found} of user {found_user}, which was not asked; remove the socket",
                path.display()
            ),
            Self::TimedOut { pid, after } => write!(
                f,
                "process {pid} has not answered for {} s; if it is stopped, let it go on, and ask again",
                after.as_secs_f64()
            ),
            Self::BadAnswer { pid, found } => write!(
                f,
                "process {pid} gave no valid answer: it sent {found}; ask again, with the tool of the version that the program was built with"
            ),
            Self::Io { pid, what, cause } => write!(f, "cannot {what} process {pid}: {cause}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused { cause, .. } | Self::Io { cause, .. } => Some(cause),
            Self::NoAgent { refused: Some(why), .. } => Some(why),
            _ => None,
        }
    }
}
