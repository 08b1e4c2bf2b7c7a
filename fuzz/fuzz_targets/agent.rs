//! Any bytes, sent to an agent's socket: an answer with a status that says what is wrong, or that of the service. It never panics, and always answers
//! the next one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pertask_agent::{Answer, Options, Request, Server, Service};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Looks at all of a request.
struct Looks;

impl Service for Looks {
    fn answer(&self, request: &Request<'_>) -> Answer {
        let parameters: usize = request.query().map(|(name, value)| name.len() + value.len()).sum();
        let host = request.header("host").unwrap_or_default();
        Answer::text(format!("{} {} {parameters} {host}\n", request.method(), request.path()))
    }
}

static SERVER: LazyLock<(Server, PathBuf)> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("pertask-fuzz-{}.sock", std::process::id()));
    let mut options = Options::default();
    // A request that does not end is not waited for.
    options.request_timeout = Duration::from_millis(200);
    let server = Server::listen_at(&path, options, Arc::new(Looks)).expect("a socket");
    (server, path)
});

fuzz_target!(|request: &[u8]| {
    let mut stream = UnixStream::connect(&SERVER.1).expect("it listens");
    // It may have answered before it has read everything.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let head = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
    let known = ["200", "400", "408", "413", "431", "503"];
    let is_known = known.iter().any(|status| head == format!("HTTP/1.1 {status}"));
    assert!(is_known || answer.is_empty() && request.is_empty(), "{request:?}: {head}");
});
