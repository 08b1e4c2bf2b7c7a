//! Opening the door: the process's one agent, and its endpoints on TCP.

use super::limits;
use super::recording::Recording;
use super::routes::Routes;
use super::running;
use super::setting::{Setting, VARIABLE};
use pertask_agent::{Directory, Options, Server};
use std::fmt;
use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The process's agent, as [`init`] has started it.
#[derive(Clone, Debug)]
pub struct Agent(Arc<State>);

#[derive(Debug)]
struct State {
    door: Door,
    /// `None` if nobody has asked for one.
    recording: Option<Result<Recording, String>>,
}

#[derive(Debug)]
enum Door {
    Off,
    Open(Server),
    Refused(String),
}

/// The agent, and the process that has it: a forked child has a copy of it, and none of its threads.
static AGENT: Mutex<Option<(u32, Agent)>> = Mutex::new(None);

/// Starts the process's agent, unless the environment variable `PERTASK` says otherwise.
///
/// Returns at once. A second call returns the agent of the first. If the agent cannot listen, the result says why, and the program
/// goes on without one. The result may be dropped.
///
/// With `PERTASK=record,PATH` it returns when sampling has begun, which takes some 60 ms.
///
/// ```no_run
/// let agent = pertask::init();
/// match agent.path() {
///     Some(path) => println!("the agent listens at {}", path.display()),
///     None => println!("{agent}"),
/// }
/// ```
pub fn init() -> Agent {
    let mut agent = AGENT.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    match &*agent {
        Some((owner, agent)) if *owner == process => agent.clone(),
        _ => {
            // Before the child's own agent answers anybody: what a caller has taken must not be forgotten, and then be given back.
            if agent.is_some() {
                limits::reset();
                running::reset();
            }
            let started = Agent(Arc::new(State::start()));
            if let Some((_, parents)) = agent.replace((process, started.clone())) {
                // Its end is its own process's business.
                std::mem::forget(parents);
            }
            started
        }
    }
}

impl State {
    fn start() -> Self {
        let value = pertask_agent::variable(VARIABLE);
        let setting = Setting::parse(value.as_deref());
        let door = match &setting {
            Ok(setting) => Door::by(setting),
            Err(wrong) => Door::Refused(wrong.clone()),
        };
        let recording = match &setting {
            Ok(Setting::Record(wanted)) => Some(Recording::start(wanted)),
            _ => None,
        };
        if value.is_some() {
            // Whoever has set the variable waits for them.
            if let Door::Refused(why) = &door {
                say(&format!("no agent: {why}"));
            }
            if let Some(Err(why)) = &recording {
                say(&format!("no recording: {why}"));
            }
        }
        Self { door, recording }
    }
}

fn say(what: &str) {
    // `eprintln` would end a program that has no stderr.
    let _ = writeln!(std::io::stderr(), "pertask: {what}");
}

impl Door {
    fn by(setting: &Setting) -> Self {
        let (options, routes) = (Options::default(), Arc::new(Routes));
        let server = match setting {
            Setting::Off => return Self::Off,
            Setting::On | Setting::Record(_) => {
                match Directory::open_or_create(&Directory::default_path()) {
                    Ok(directory) => Server::listen(&directory, options, routes),
                    Err(why) => return Self::Refused(why.to_string()),
                }
            }
            Setting::Listen(path) => Server::listen_at(path, options, routes),
            Setting::Connect(path) => Server::connect_to(path, options, routes),
        };
        server.map_or_else(|why| Self::Refused(why.to_string()), Self::Open)
    }
}

impl Agent {
    /// Where it listens, or to whom it connects. `None` if there is no agent.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0.door {
            Door::Open(server) => server.path(),
            Door::Off | Door::Refused(_) => None,
        }
    }

    /// Why there is no agent although one was wanted.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        match &self.0.door {
            Door::Refused(why) => Some(why),
            Door::Off | Door::Open(_) => None,
        }
    }

    /// The file to which the program is recorded since this agent began, by `PERTASK=record,PATH`.
    #[must_use]
    pub fn recording(&self) -> Option<&Path> {
        self.0.recording.as_ref()?.as_ref().ok().map(Recording::path)
    }
}

/// A line for people to read.
impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.door {
            Door::Off => write!(f, "pertask: no agent: {VARIABLE} is off"),
            Door::Refused(why) => write!(f, "pertask: no agent: {why}"),
            Door::Open(server) => match server.path() {
                Some(path) => write!(f, "pertask: agent at {}", path.display()),
                None => write!(f, "pertask: agent"),
            },
        }?;
        match &self.0.recording {
            Some(Ok(recording)) => write!(f, "; recording to {}", recording.path().display()),
            Some(Err(why)) => write!(f, "; no recording: {why}"),
            None => Ok(()),
        }
    }
}

/// The agent's paths on TCP: what [`serve`] has started. They end when this is dropped.
#[derive(Debug)]
pub struct Endpoints(Server);

/// Answers on TCP what the agent answers: `/debug/pprof/` for `go tool pprof` and continuous profilers, and the rest.
///
/// Give it an address of the host itself, such as `127.0.0.1:6060`: everybody who can reach the address may ask, and a profile costs the
/// program CPU time. It answers only requests for a host that is a number or `localhost`, and none that a web page has sent.
///
/// ```
/// let endpoints = pertask::agent::serve("127.0.0.1:0")?;
/// println!("go tool pprof http://{}/debug/pprof/profile?seconds=5", endpoints.address());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// Returns why it cannot listen there.
pub fn serve(address: impl ToSocketAddrs) -> std::io::Result<Endpoints> {
    let mut failed = None;
    for address in address.to_socket_addrs()? {
        match Server::listen_tcp(address, Options::default(), Arc::new(Routes)) {
            Ok(server) => return Ok(Endpoints(server)),
            Err(why) => failed = Some(why),
        }
    }
    let nowhere =
        || std::io::Error::new(std::io::ErrorKind::InvalidInput, "the name has no address");
    Err(failed.map_or_else(nowhere, std::io::Error::other))
}

impl Endpoints {
    /// The address with the port that was chosen, if it was 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address().expect("a server on TCP has an address")
    }
}
