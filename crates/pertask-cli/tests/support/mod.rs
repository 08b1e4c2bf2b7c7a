//! The demo while it runs: started, listened to, asked and stopped.
//!
//! How much a demo gets done in a second is up to the machine. A test that looks at what was counted therefore asks the demo
//! itself, and stops it when it has answered: [`after_requests`].
#![allow(dead_code, reason = "each file of tests uses a part of it")]

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    process::{Child, ChildStderr, Command, Output, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// A seccomp filter that refuses these system calls with EPERM.
pub fn filter(refused: &[libc::c_long]) -> BpfProgram {
    let rules = refused.iter().map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().expect("a known architecture");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).expect("a filter");
    filter.try_into().expect("a program")
}

/// Longer than any test, so that only a signal ends it.
pub const NEVER_OVER: &str = "10m";

/// The names of the demo's requests.
pub const ROUTES: [&str; 5] =
    ["GET /hash", "GET /render", "GET /wait", "GET /fanout", "GET /blocking"];

/// How long a command may take to end that was told to. Far beyond what it needs on a busy machine: only a hang lasts longer.
const PATIENCE: Duration = Duration::from_secs(300);

/// What `command`, the demo without its duration, says when it has answered so many requests to each route while it measured.
/// They are the test's own, beside those of the demo's clients.
pub fn after_requests(count: usize, command: &mut Command) -> Output {
    let mut demo = Running::start(command.args(["--duration", NEVER_OVER]));
    let address = demo.wait_for("serving on http://");
    demo.wait_for("measuring");
    thread::scope(|scope| {
        for route in ROUTES {
            let address = &address;
            scope.spawn(move || {
                for _ in 0..count {
                    let answer = ask(address, route);
                    assert!(answer.starts_with("HTTP/1.1 200"), "{route}: {answer}");
                }
            });
        }
    });
    demo.signal(libc::SIGINT);
    demo.finish()
}

/// Sends one request, such as `GET /hash`, and returns its answer.
pub fn ask(address: &str, method_and_path: &str) -> String {
    let mut connection = TcpStream::connect(address).expect("to connect");
    let head =
        format!("{method_and_path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(head.as_bytes()).expect("to send");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    answer
}

/// The command while it runs. Killed when dropped, so that a failed test leaves nothing behind.
pub struct Running {
    pub child: Child,
    pub stderr: Option<BufReader<ChildStderr>>,
    seen: Vec<u8>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = loop {
            match command.spawn() {
                // A fork by another test may hold a copy of the binary open for a moment, as written.
                Err(busy) if busy.kind() == ErrorKind::ExecutableFileBusy => thread::yield_now(),
                child => break child.expect("pertask to start"),
            }
        };
        let stderr = child.stderr.take().map(BufReader::new);
        Self { child, stderr, seen: Vec::new() }
    }

    /// Reads stderr up to the line that begins so, and returns the rest of that line.
    pub fn wait_for(&mut self, beginning: &str) -> String {
        let stderr = self.stderr.as_mut().expect("stderr is open");
        loop {
            let mut line = String::new();
            let length = stderr.read_line(&mut line).expect("to read stderr");
            assert_ne!(
                length,
                0,
                "no line {beginning:?} in {:?}",
                String::from_utf8_lossy(&self.seen)
            );
            self.seen.extend(line.as_bytes());
            if let Some(rest) = line.trim_end().strip_prefix(beginning) {
                return rest.to_owned();
            }
        }
    }

    pub fn signal(&self, signal: libc::c_int) {
        let id = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: `kill` touches no memory; the child is not reaped before `finish`, so the id is still its own.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
    }

    /// Waits for the end, which every caller has brought about, and fails if it does not come.
    pub fn finish(mut self) -> Output {
        let deadline = Instant::now() + PATIENCE;
        let mut stderr = std::mem::take(&mut self.seen);
        // Read meanwhile: a report may be longer than a pipe has room for.
        let rest = (self.child.stdout.take().map(read), self.stderr.take().map(read));
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("to wait") {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "pertask did not end: {:?}",
                String::from_utf8_lossy(&stderr)
            );
            thread::sleep(Duration::from_millis(5));
        };
        let all = |reads: Option<JoinHandle<Vec<u8>>>| {
            reads.map(|reads| reads.join().expect("to read")).unwrap_or_default()
        };
        stderr.extend(all(rest.1));
        Output { status, stdout: all(rest.0), stderr }
    }
}

/// Reads all that comes, on a thread of its own.
fn read(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("to read");
        bytes
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails where the child has ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Said although the test passes.
pub fn loudly(message: &str) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "{message}");
}
