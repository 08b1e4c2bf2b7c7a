//! On TCP, where anybody may call but web pages.

mod support;

use pertask_agent::{Options, Server};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use support::*;

fn listen_tcp(address: &str, options: Options) -> Server {
    let address: SocketAddr = address.parse().expect("an address");
    Server::listen_tcp(address, options, Arc::new(By(echo))).expect("a server")
}

/// Asks with these headers, and returns the status.
fn status(server: &Server, headers: &str) -> u16 {
    let mut stream = TcpStream::connect(server.address().expect("an address")).expect("a place");
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes()).unwrap();
    parts(&rest(&mut stream)).0
}

#[test]
fn requests_for_this_host_are_answered() {
    let mut options = few(64);
    options.hosts.push("build7.example".into());
    let server = listen_tcp("127.0.0.1:0", options);
    assert_ne!(server.address().expect("an address").port(), 0);
    assert_eq!(server.path(), None);
    let hosts = [
        "127.0.0.1",
        "127.0.0.1:6060",
        "10.1.2.3:80",
        "localhost",
        "LOCALHOST:6060",
        "[::1]",
        "[::1]:6060",
        "Build7.Example:6060",
    ];
    for host in hosts {
        assert_eq!(status(&server, &format!("Host: {host}\r\n")), 200, "{host}");
    }
}

#[test]
fn requests_of_web_pages_are_refused() {
    let server = listen_tcp("127.0.0.1:0", few(64));
    for host in ["evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example", ":80", ""] {
        assert_eq!(status(&server, &format!("Host: {host}\r\n")), 421, "{host}");
    }
    assert_eq!(status(&server, ""), 421);
    let own = "Host: localhost\r\n";
    for origin in ["http://evil.example", "http://localhost", "null"] {
        assert_eq!(status(&server, &format!("{own}Origin: {origin}\r\n")), 403, "{origin}");
    }
    for (site, expected) in [("cross-site", 403), ("same-site", 403), ("none", 200)] {
        let got = status(&server, &format!("{own}Sec-Fetch-Site: {site}\r\n"));
        assert_eq!(got, expected, "{site}");
    }
}

#[test]
fn a_port_is_used_again_at_once() {
    let server = listen_tcp("127.0.0.1:0", few(64));
    let address = server.address().expect("an address");
    // The server closes first, so its side is in TIME_WAIT.
    assert_eq!(status(&server, "Host: localhost\r\n"), 200);
    let taken = Server::listen_tcp(address, few(1), Arc::new(By(echo))).expect_err("taken");
    assert!(taken.to_string().contains(&address.to_string()), "{taken}");
    server.stop();
    let server = listen_tcp(&address.to_string(), few(64));
    assert_eq!(status(&server, "Host: localhost\r\n"), 200);
}

#[test]
fn too_many_are_told_so() {
    let server = listen_tcp("127.0.0.1:0", few(0));
    let got = status(&server, "Host: localhost\r\n");
    // The word is lost if the request comes after it.
    assert!([503, 0].contains(&got), "{got}");
    until_true("a refusal", || server.refused() == 1);
}
