//! What the tests share: places, services, questions in plain bytes, and programs in other processes.

#![allow(dead_code, reason = "each file of tests uses a part of it")]

use pertask_agent::{Answer, Directory, Options, Request, Server, Service, Waited};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

/// A directory of its own for a test.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("pertask-agent-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn directory(&self) -> Directory {
        Directory::open_or_create(&self.path("private")).expect("a private directory")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A service that is a function.
pub struct By<F>(pub F);

impl<F: Fn(&Request<'_>) -> Answer + Send + Sync + 'static> Service for By<F> {
    fn answer(&self, request: &Request<'_>) -> Answer {
        self.0(request)
    }
}

/// Answers what it was asked, and some paths otherwise.
pub fn echo(request: &Request<'_>) -> Answer {
    match request.path() {
        "/panic" => panic!("as the test wants"),
        "/lines" => Answer::lines("text/plain", (0..3).map(|it| format!("{it}\n").into_bytes())),
        "/lines/panic" => {
            Answer::lines("text/plain", (0..3).map(|it| [b"a\n".to_vec()][it].clone()))
        }
        "/large" => Answer::bytes("application/octet-stream", vec![b'x'; 8 << 20]),
        "/wait" => match request.caller().wait(LONG) {
            Waited::Gone => Answer::text("gone".into()),
            _ => Answer::text("time is up".into()),
        },
        path => {
            let query: Vec<_> =
                request.query().map(|(name, value)| format!("{name}={value}")).collect();
            Answer::text(format!("{} {path} {}", request.method(), query.join(",")))
        }
    }
}

pub fn listen(path: &Path) -> Server {
    listen_with(path, Options::default(), echo)
}

pub fn listen_with(
    path: &Path,
    options: Options,
    service: impl Fn(&Request<'_>) -> Answer + Send + Sync + 'static,
) -> Server {
    Server::listen_at(path, options, Arc::new(By(service))).expect("a server")
}

pub fn few(max_callers: usize) -> Options {
    let mut options = Options::default();
    options.max_callers = max_callers;
    options
}

/// Connects. While too many wait, it tries again, as clients do.
pub fn call(path: &Path) -> UnixStream {
    let stream = until("a connection", || UnixStream::connect(path).ok());
    stream.set_read_timeout(Some(LONG)).expect("a time-out");
    stream
}

/// Sends bytes, and returns all that comes.
pub fn send(stream: &mut UnixStream, bytes: &[u8]) -> String {
    // It may have been refused already.
    let _ = stream.write_all(bytes);
    rest(stream)
}

/// Reads to the end, or to where the connection breaks.
pub fn rest(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => panic!("no end for {LONG:?}"),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

/// Asks as a client does, and returns the status and the body.
pub fn ask(path: &Path, target: &str) -> (u16, String) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: agent\r\n\r\n");
    parts(&send(&mut call(path), request.as_bytes()))
}

/// Asks until there is a place.
pub fn ask_patiently(path: &Path, target: &str) -> (u16, String) {
    until("a place", || Some(ask(path, target)).filter(|(status, _)| ![0, 503].contains(status)))
}

/// The status and the body of an answer; 0 if there is none.
pub fn parts(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or(0), body.to_owned())
}

/// Looks until something is there.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Some(found) => return found,
            None if began.elapsed() > LONG => panic!("no {what} for {LONG:?}"),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

pub fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}

/// This test program once more, in which only this test runs, and is told to be a program of the test.
pub fn program(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env("PERTASK_AGENT_TEST_ROLE", test);
    for variable in ["PERTASK", "PERTASK_DIR", "XDG_RUNTIME_DIR"] {
        command.env_remove(variable);
    }
    command
}

/// Whether this process is such a program.
pub fn is_program(test: &str) -> bool {
    std::env::var_os("PERTASK_AGENT_TEST_ROLE").is_some_and(|role| role == test)
}

/// A program that has said it is ready, and goes on until its stdin is closed.
pub struct Running(pub Child);

impl Running {
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a program");
        let mut said = String::new();
        let out = child.stdout.as_mut().expect("its stdout");
        while !said.contains("ready\n") {
            let mut byte = [0];
            match out.read(&mut byte) {
                Ok(1) => said.push(char::from(byte[0])),
                _ => panic!("the program said only {said:?}"),
            }
        }
        Self(child)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What such a program does when it is ready.
pub fn stay() {
    println!("ready");
    let _ = rest(&mut std::io::stdin());
}

pub fn is_root() -> bool {
    // SAFETY: It only returns a number.
    unsafe { libc::geteuid() == 0 }
}

/// Says aloud that a test has not been done.
pub fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// Ends the sending half, as a client does that has no more to say.
pub fn end_sending(stream: &UnixStream) {
    let _ = stream.shutdown(Shutdown::Write);
}
