//! A server that connects to a tool.

mod support;

use pertask_agent::{Options, Server};
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use support::*;

fn connect_to(path: &Path, options: Options) -> Server {
    Server::connect_to(path, options, Arc::new(By(echo))).expect("a server")
}

fn next(listener: &UnixListener) -> UnixStream {
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

#[test]
fn a_tool_that_is_there_asks_one_question_after_the_other() {
    let place = Place::new();
    let path = place.path("tool.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = connect_to(&path, Options::default());
    assert_eq!(server.path(), Some(&*path));
    // The first is still being answered when the next connection comes.
    let mut waits = next(&listener);
    waits.write_all(b"GET /wait HTTP/1.1\r\n\r\n").unwrap();
    for turn in 0..5 {
        let question = format!("GET /{turn} HTTP/1.1\r\n\r\n");
        let answer = send(&mut next(&listener), question.as_bytes());
        assert_eq!(parts(&answer), (200, format!("GET /{turn} ")));
    }
    // One that waits for a question ends with the server, and so does one that waits for its answer.
    let mut idle = next(&listener);
    server.stop();
    assert_eq!((rest(&mut idle), rest(&mut waits)), (String::new(), String::new()));
    assert!(path.exists(), "it is the tool's");
}

#[test]
fn a_tool_may_come_late_and_come_again() {
    let place = Place::new();
    let path = place.path("later/tool.sock");
    let server = connect_to(&path, Options::default());
    std::fs::create_dir(place.path("later")).unwrap();
    for turn in 0..2 {
        let listener = UnixListener::bind(&path).unwrap();
        let answer = send(&mut next(&listener), b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(parts(&answer).0, 200, "{turn}");
        drop(listener);
        std::fs::remove_file(&path).unwrap();
    }
    // While it pauses, too.
    server.stop();
}

#[test]
fn a_tool_that_hangs_up_does_not_keep_it_busy() {
    let place = Place::new();
    let path = place.path("tool.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let _server = connect_to(&path, Options::default());
    let began = std::time::Instant::now();
    for _ in 0..3 {
        drop(next(&listener));
    }
    // Pauses of one second, and of two.
    assert!(began.elapsed().as_secs() >= 3, "{:?}", began.elapsed());
}

#[test]
fn a_path_without_a_name_is_refused() {
    let server = Server::connect_to("/".as_ref(), Options::default(), Arc::new(By(echo)));
    assert!(server.is_err());
}
