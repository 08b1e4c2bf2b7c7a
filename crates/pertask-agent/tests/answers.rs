//! What callers get, byte by byte.

mod support;

use pertask_agent::{Answer, Caller, Options, Waited};
use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::Duration;
use support::*;

#[test]
fn a_question_is_answered() {
    let place = Place::new();
    let server = listen(&place.path("a.sock"));
    let path = server.path().expect("a path");
    assert_eq!(ask(path, "/there?x=1%202&y"), (200, "GET /there x=1 2,y=".into()));
    let answer = send(&mut call(path), b"POST /there HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 12\r\n\r\nPOST /there ";
    assert_eq!(answer, expected);
    assert_eq!(server.address(), None);
    assert_eq!(server.refused(), 0);
}

#[test]
fn curl_understands_it() {
    let place = Place::new();
    let server = listen(&place.path("a.sock"));
    let mut curl = std::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--unix-socket"]);
    curl.arg(server.path().expect("a path"));
    match curl.args(["http://agent/lines", "http://agent/there"]).output() {
        Ok(done) => assert_eq!(String::from_utf8_lossy(&done.stdout), "0\n1\n2\nGET /there "),
        Err(why) => skip(&format!("there is no curl: {why}")),
    }
}

#[test]
fn lines_come_one_by_one() {
    let place = Place::new();
    let (give, lines) = mpsc::channel::<Vec<u8>>();
    let lines = std::sync::Mutex::new(Some(lines));
    let server = listen_with(&place.path("a.sock"), Options::default(), move |_| {
        Answer::lines("text/plain", lines.lock().unwrap().take().unwrap().into_iter())
    });
    let mut stream = call(server.path().expect("a path"));
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut next = |end: &str| {
        let mut got = String::new();
        while !got.ends_with(end) {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("more");
            got.push(char::from(byte[0]));
        }
        got
    };
    // The head comes before there is any line.
    assert!(next("\r\n\r\n").contains("Transfer-Encoding: chunked\r\n"));
    for line in ["one\n", "a second one\n"] {
        give.send(line.into()).unwrap();
        assert_eq!(next("\n\r\n"), format!("{:x}\r\n{line}\r\n", line.len()));
    }
    give.send(Vec::new()).unwrap(); // It is not taken for the end.
    drop(give);
    assert_eq!(next("\r\n\r\n"), "0\r\n\r\n");
}

#[test]
fn an_old_client_gets_lines_without_chunks() {
    let place = Place::new();
    let server = listen(&place.path("a.sock"));
    let path = server.path().expect("a path");
    let answer = send(&mut call(path), b"GET /lines HTTP/1.0\r\n\r\n");
    assert_eq!(parts(&answer), (200, "0\n1\n2\n".into()));
    assert!(!answer.contains("chunked"), "{answer}");
}

#[test]
fn a_panic_is_an_answer_and_the_next_one_is_served() {
    let place = Place::new();
    let server = listen(&place.path("a.sock"));
    let path = server.path().expect("a path");
    let (status, body) = ask(path, "/panic");
    assert!(status == 500 && body.contains("panicked"), "{status} {body}");
    let (status, body) = ask(path, "/lines/panic");
    // Without the end of the last chunk, every client sees that something is missing.
    assert_eq!((status, &*body), (200, "2\r\na\n\r\n"));
    assert_eq!(ask(path, "/").0, 200);
}

/// Tells when it is dropped.
struct Told(mpsc::Sender<&'static str>, Caller);

impl Iterator for Told {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        match self.1.wait(Duration::from_millis(1)) {
            Waited::TimeIsUp => Some(b"again\n".to_vec()),
            Waited::Gone => None,
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

#[test]
fn lines_end_when_their_caller_leaves() {
    let place = Place::new();
    let (tell, told) = mpsc::channel();
    let server = listen_with(&place.path("a.sock"), Options::default(), move |request| {
        Answer::lines("text/plain", Told(tell.clone(), request.caller().clone()))
    });
    let mut stream = call(server.path().expect("a path"));
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    stream.read_exact(&mut [0; 300]).expect("a head and some lines");
    assert!(told.try_recv().is_err());
    drop(stream);
    assert_eq!(told.recv_timeout(LONG), Ok("dropped"));
}

#[test]
fn a_wait_ends_when_the_caller_leaves() {
    let place = Place::new();
    let (tell, told) = mpsc::channel();
    let server = listen_with(&place.path("a.sock"), Options::default(), move |request| {
        assert!(!request.caller().is_gone());
        let _ = tell.send(None);
        let _ = tell.send(Some(request.caller().wait(Duration::MAX)));
        assert!(request.caller().is_gone());
        Answer::text("nobody reads this".into())
    });
    let mut stream = call(server.path().expect("a path"));
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok(None));
    drop(stream);
    assert_eq!(told.recv_timeout(LONG), Ok(Some(Waited::Gone)));
}

#[test]
fn stopping_ends_all_answers() {
    let place = Place::new();
    let (tell, told) = mpsc::channel();
    let server = listen_with(&place.path("a.sock"), Options::default(), move |request| {
        let _ = tell.send(());
        echo(request)
    });
    let path = server.path().expect("a path").to_owned();
    let mut streams: Vec<_> = (0..3).map(|_| call(&path)).collect();
    for stream in &mut streams {
        stream.write_all(b"GET /wait HTTP/1.1\r\n\r\n").unwrap();
        told.recv_timeout(LONG).expect("a question");
    }
    // One that asks nothing.
    streams.push(call(&path));
    server.stop();
    assert!(!path.exists());
    for mut stream in streams {
        assert_eq!(rest(&mut stream), "");
    }
    assert!(std::os::unix::net::UnixStream::connect(&path).is_err());
}

#[test]
fn a_slow_reader_delays_nobody_and_ends() {
    let place = Place::new();
    let mut options = few(2);
    options.write_timeout = Duration::from_millis(300);
    let server = listen_with(&place.path("a.sock"), options, echo);
    let path = server.path().expect("a path");
    let mut slow = call(path);
    slow.write_all(b"GET /large HTTP/1.1\r\n\r\n").unwrap();
    slow.read_exact(&mut [0; 16]).expect("a beginning");
    for _ in 0..20 {
        assert_eq!(ask_patiently(path, "/").0, 200);
    }
    // After the time-out it has its place no more: two others have one.
    let (mut one, mut other) = (call(path), call(path));
    for stream in [&mut one, &mut other] {
        until_true("a place", || {
            *stream = call(path);
            let _ = stream.write_all(b"GET /large HTTP/1.1\r\n\r\n");
            let mut status = [0; 12];
            stream.read_exact(&mut status).is_ok() && status.ends_with(b"200")
        });
    }
    let all = rest(&mut slow);
    assert!(all.len() < 8 << 20, "{}", all.len());
}

#[test]
fn no_header_begins_another() {
    let place = Place::new();
    let server = listen_with(&place.path("a.sock"), Options::default(), |_| {
        let mut answer = Answer::refused(429, "a \"reason\"");
        answer.headers.push(("X-Name", "a\r\nX-Other: b".into()));
        answer
    });
    let answer = send(&mut call(server.path().expect("a path")), b"GET / HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{answer}");
    assert!(answer.contains("\r\nX-Name: aX-Other: b\r\n"), "{answer}");
    assert!(answer.ends_with("{\"error\": \"a \\\"reason\\\"\"}\n"), "{answer}");
}
