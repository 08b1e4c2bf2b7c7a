//! A tool's side: what it makes of answers, whole and otherwise. An agent of the test's own says exactly what the test wants.

mod support;

use pertask_agent::{Client, ClientError, Directory, Identity, Reply, connect};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use support::*;

/// The socket at which this process is found, and the right to have it alone, which ends with it.
fn own_socket() -> (UnixListener, Place, MutexGuard<'static, ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Place::new();
    // SAFETY: Nobody in this process reads the environment but through the standard library.
    unsafe { std::env::set_var("PERTASK_DIR", place.path("private")) };
    let directory = place.directory();
    assert_eq!(directory.path(), Directory::default_path());
    let name = Identity::of_this_process().expect("/proc").socket_name();
    (UnixListener::bind(directory.path().join(name)).expect("a socket"), place, alone)
}

fn client() -> Client {
    connect(std::process::id()).expect("a connection")
}

/// What the client makes of these bytes, and what it has asked.
fn reply_to(bytes: &[u8]) -> (Result<Reply, ClientError>, String) {
    let (listener, _place, _alone) = own_socket();
    let client = client();
    let (mut stream, _) = listener.accept().expect("the client");
    thread::scope(|scope| {
        let asked = scope.spawn(move || {
            let mut asked = [0; 1_000];
            let size = stream.read(&mut asked).expect("a question");
            // It may have gone before the end.
            let _ = stream.write_all(bytes);
            String::from_utf8_lossy(&asked[..size]).into_owned()
        });
        (client.get("/x?y", LONG), asked.join().expect("a question"))
    })
}

fn body_of(bytes: &[u8]) -> Result<String, std::io::Error> {
    let reply = reply_to(bytes).0.expect("a head");
    reply.into_bytes(1 << 20).map(|bytes| String::from_utf8(bytes).expect("text"))
}

#[test]
fn a_question_is_plain_http() {
    let (reply, asked) =
        reply_to(b"HTTP/1.1 418 I'm a teapot\r\nX-A: b\r\nContent-Length: 2\r\n\r\nhi!!");
    assert_eq!(asked, "GET /x?y HTTP/1.1\r\nHost: pertask\r\nConnection: close\r\n\r\n");
    let reply = reply.expect("an answer");
    assert_eq!((reply.status, reply.header("x-A")), (418, Some("b")));
    assert_eq!(reply.into_bytes(2).expect("a body"), b"hi");
}

#[test]
fn a_question_that_would_be_two_is_not_asked() {
    let (_listener, _place, _alone) = own_socket();
    for path in ["", "x", "/a b", "/a\r\nX: y", "/\0"] {
        let why = client().get(path, LONG).expect_err(path);
        assert!(matches!(why, ClientError::Io { .. }), "{why}");
    }
}

#[test]
fn all_lengths_of_bodies_are_understood() {
    let whole = "HTTP/1.1 200 OK\r\n";
    for (rest, expected) in [
        ("Content-Length: 5\r\n\r\nhello", "hello"),
        ("Content-Length: 0\r\n\r\n", ""),
        ("\r\nhello", "hello"),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""),
        (
            "Transfer-Encoding: Chunked\r\n\r\n2\r\nhe\r\n003;x=y\r\nllo\r\n0\r\nA: b\r\n\r\n",
            "hello",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\nA\n0123456789\n0\n\n",
            "0123456789",
        ),
    ] {
        let got = body_of(format!("{whole}{rest}").as_bytes());
        assert_eq!(got.expect(rest), expected, "{rest}");
    }
    assert_eq!(body_of(b"HTTP/1.1 204 No Content\r\n\r\n").expect("nothing"), "");
}

#[test]
fn a_body_that_is_cut_off_is_never_taken_for_whole() {
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
    let known = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    for answer in [chunked, known] {
        let head = answer.find("\r\n\r\n").expect("a head") + 4;
        for size in head..answer.len() {
            let why = body_of(&answer.as_bytes()[..size]).expect_err("a part of a body");
            assert_eq!(why.kind(), ErrorKind::UnexpectedEof, "{size} {why}");
        }
        assert_eq!(body_of(answer.as_bytes()).expect("all of it"), "hello");
        for size in 0..head {
            let why = reply_to(&answer.as_bytes()[..size]).0.expect_err("a part of a head");
            assert!(matches!(why, ClientError::BadAnswer { .. }), "{size} {why}");
        }
    }
}

#[test]
fn chunks_that_are_none_are_refused() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = "1".repeat(5_000);
    for body in ["x\r\n", "\r\n\r\n", "-1\r\n", "ffffffffffffffff\r\n", "2\r\nhello\r\n", &long] {
        let why = body_of(format!("{head}{body}").as_bytes()).expect_err(body);
        assert_eq!(why.kind(), ErrorKind::InvalidData, "{why}");
    }
}

#[test]
fn an_error_of_a_body_stays_one() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nx\r\n0\r\n\r\n";
    let mut body = reply_to(answer.as_bytes()).0.expect("a head").body;
    let mut got = Vec::new();
    assert!(body.read_to_end(&mut got).is_err());
    assert_eq!(got, b"a");
    assert!(body.read_to_end(&mut got).is_err(), "it is not whole by reading on");
}

#[test]
fn heads_that_are_none_are_refused_with_what_came() {
    let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(100_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(100));
    let coding = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n";
    let length = "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n";
    for (answer, found) in [
        ("", "nothing"),
        ("SSH-2.0-OpenSSH\r\n", "no HTTP"),
        (&endless, "64 KiB"),
        (&many, "no HTTP"),
        (coding, "gzip"),
        (length, "-1"),
    ] {
        let why = reply_to(answer.as_bytes()).0.expect_err(found);
        assert!(matches!(why, ClientError::BadAnswer { .. }), "{why}");
        assert!(why.to_string().contains(found), "{why}");
    }
}

#[test]
fn more_than_was_wanted_is_refused() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let reply = reply_to(answer).0.expect("a head");
    assert_eq!(reply.into_bytes(4).expect_err("too much").kind(), ErrorKind::FileTooLarge);
    let reply = reply_to(answer).0.expect("a head");
    assert_eq!(reply.into_bytes(5).expect("enough"), b"hello");
}

#[test]
fn who_does_not_answer_is_not_waited_for() {
    let (listener, _place, _alone) = own_socket();
    let (client, began) = (client(), Instant::now());
    let why = client.post("/", Duration::from_millis(50)).expect_err("no answer");
    assert!(matches!(why, ClientError::TimedOut { .. }), "{why}");
    assert!(began.elapsed() >= Duration::from_millis(50));
    let asked = rest(&mut listener.accept().expect("the client").0);
    assert!(asked.starts_with("POST / HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("\r\nContent-Length: 0\r\n"), "{asked}");
}

#[test]
fn a_refusal_without_reading_is_read() {
    let (listener, _place, _alone) = own_socket();
    let client = client();
    let (mut stream, _) = listener.accept().expect("the client");
    stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy").unwrap();
    drop(stream);
    let reply = client.get("/", LONG).expect("an answer");
    assert_eq!((reply.status, reply.into_bytes(9).expect("a body")), (503, b"busy".to_vec()));
}

#[test]
fn a_stream_is_read_while_it_comes() {
    let (listener, _place, _alone) = own_socket();
    let client = client();
    let (mut stream, _) = listener.accept().expect("the client");
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    // The head is there, and nothing else.
    let reply = client.get("/", LONG).expect("a head");
    let mut lines = BufReader::new(reply.body).lines();
    for line in ["one", "two"] {
        stream.write_all(format!("{:x}\r\n{line}\n\r\n", line.len() + 1).as_bytes()).unwrap();
        assert_eq!(lines.next().expect("a line").expect("a whole one"), line);
    }
    drop(stream);
    assert!(lines.next().expect("an end").is_err());
}
