//! The agent: through it a terminal and other tools measure this process while it runs.
//!
//! One line in `main` is enough:
//!
//! ```no_run
//! eprintln!("{}", pertask::init());
//! ```
//!
//! A thread of its own then listens at a Unix socket, in a directory that only this user can enter. Until somebody calls, it
//! sleeps, and nothing is measured. It needs no runtime, so it answers also while all of a runtime's workers are blocked.
//!
//! `pertask ps` lists the processes that have an agent; `pertask top`, `pertask stat`, `pertask tasks` and `pertask record` call it. So can
//! anybody with `curl --unix-socket`: it speaks HTTP/1.1, and `GET /` says what can be asked for. See [the guide][agent].
//!
//! Whoever starts the program decides what the agent does, by the environment variable `PERTASK`:
//!
//! | `PERTASK=` | |
//! | --- | --- |
//! | `on`, or not set | it listens in `$PERTASK_DIR`, else in `$XDG_RUNTIME_DIR/pertask` if that folder is the user's, else in `/tmp/pertask-UID` |
//! | `off` | there is no agent |
//! | `PATH,listen` | it listens at this path |
//! | `PATH,connect` | it connects to a tool that listens at this path, again and again, and never waits for it |
//! | `record,PATH` | as `on`, and samples of the program from here on are written to this file; see [the guide][agent] |
//!
//! Only the same user and root may call. An agent never stops the program: what fails is said, and the program goes on.
//!
//! [agent]: https://github.com/pertask/pertask/blob/main/docs/AGENT.md

mod about;
mod asked;
mod blocked;
mod door;
mod limits;
mod measure;
mod metrics;
mod part;
mod pprof;
mod profile;
mod recording;
mod report;
#[cfg(feature = "http")]
mod respond;
mod route;
mod routes;
mod running;
mod setting;
mod tasks;

pub use door::{Agent, Endpoints, init, serve};
#[cfg(feature = "http")]
pub use respond::{Responding, respond};
pub use tasks::{LiveTask, LiveTasks};
