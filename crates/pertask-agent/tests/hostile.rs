//! Callers that send no request, or none that ends, or none at all.

mod support;

use std::io::Write;
use std::time::Duration;
use support::*;

/// Numbers that are the same each time (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: u64) -> usize {
        (self.next() % limit) as usize
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next() as u8).collect()
    }
}

const WHOLE: &[u8] = b"GET /a?b=c HTTP/1.1\r\nHost: agent\r\nAccept: */*\r\n\r\n";

#[test]
fn garbage_is_refused_and_the_server_goes_on() {
    let place = Place::new();
    let server = listen(&place.path("a.sock"));
    let path = server.path().expect("a path");
    let mut numbers = Numbers(0x5EED);
    for turn in 0..3_000 {
        let bytes = match turn % 3 {
            0 => numbers.bytes(600),
            1 => changed(&mut numbers),
            _ => assembled(&mut numbers),
        };
        let mut stream = call(path);
        let _ = stream.write_all(&bytes);
        end_sending(&stream);
        let (status, _) = parts(&rest(&mut stream));
        let known = [200, 400, 413, 431, 503];
        // No answer is one only to those that have said nothing, or had gone.
        assert!(known.contains(&status) || status == 0 && bytes.is_empty(), "{status} {bytes:?}");
    }
    assert_eq!(ask_patiently(path, "/after").0, 200);
}

/// A request in which some bytes are others.
fn changed(numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = WHOLE.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() as u64);
        bytes[at] = numbers.next() as u8;
    }
    bytes
}

/// What has the parts of requests, in any order.
fn assembled(numbers: &mut Numbers) -> Vec<u8> {
    const PARTS: [&[u8]; 14] = [
        b"GET ",
        b"POST ",
        b"/",
        b"?",
        b"%zz&=",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\n",
        b"Host: a\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n",
        b"\n",
        b"\0",
        b":",
    ];
    (0..numbers.below(20)).flat_map(|_| PARTS[numbers.below(14)].to_vec()).collect()
}

#[test]
fn every_beginning_of_a_request_is_refused() {
    let place = Place::new();
    let server = listen(&place.path("a.sock"));
    let path = server.path().expect("a path");
    for size in 1..WHOLE.len() {
        let (status, body) = until("a place", || {
            let mut stream = call(path);
            let _ = stream.write_all(&WHOLE[..size]);
            end_sending(&stream);
            Some(parts(&rest(&mut stream))).filter(|(status, _)| *status != 503)
        });
        assert_eq!((status, body.contains("too early")), (400, true), "{size} {body}");
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let place = Place::new();
    let server = listen(&place.path("a.sock"));
    let mut stream = call(server.path().expect("a path"));
    for byte in WHOLE {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(parts(&rest(&mut stream)), (200, "GET /a b=c".into()));
}

#[test]
fn bare_line_feeds_end_a_request() {
    let place = Place::new();
    let server = listen(&place.path("a.sock"));
    let path = server.path().expect("a path");
    for request in ["GET / HTTP/1.1\n\n", "GET / HTTP/1.1\n\r\n", "GET / HTTP/1.1\r\nA: b\n\n"] {
        assert_eq!(parts(&send(&mut call(path), request.as_bytes())).0, 200, "{request:?}");
    }
}

#[test]
fn what_is_too_long_is_refused_with_the_reason() {
    let place = Place::new();
    let server = listen(&place.path("a.sock"));
    let path = server.path().expect("a path");
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(300_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
    for request in [long, many] {
        let (status, body) = parts(&send(&mut call(path), request.as_bytes()));
        assert_eq!(status, 431, "{body}");
    }
    let body = "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(parts(&send(&mut call(path), body.as_bytes())).0, 413);
    // Just as long as it may be.
    let fits = "GET / HTTP/1.1\r\nX: ".len() + 4;
    let fits = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat((8 << 10) - fits));
    assert_eq!(parts(&send(&mut call(path), fits.as_bytes())).0, 200);
}

#[test]
fn who_says_nothing_or_not_enough_loses_the_place() {
    let place = Place::new();
    let mut options = few(1);
    options.request_timeout = Duration::from_millis(200);
    let server = listen_with(&place.path("a.sock"), options, echo);
    let path = server.path().expect("a path");
    let mut silent = call(path);
    let (status, body) = parts(&rest(&mut silent));
    assert!(status == 408 && body.contains("in time"), "{status} {body}");
    assert_eq!(ask_patiently(path, "/").0, 200);
}

#[test]
fn half_a_connection_is_no_caller_that_waits() {
    let place = Place::new();
    let server = listen(&place.path("a.sock"));
    let mut stream = call(server.path().expect("a path"));
    stream.write_all(b"GET /wait HTTP/1.1\r\n\r\n").unwrap();
    end_sending(&stream);
    assert_eq!(parts(&rest(&mut stream)), (200, "gone".into()));
}
