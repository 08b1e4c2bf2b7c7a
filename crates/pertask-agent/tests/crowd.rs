//! Many callers at a time, and a program without descriptors.

mod support;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use support::*;

/// Calls that wait until they are dropped.
fn waiting(path: &Path, number: usize, told: &mpsc::Receiver<()>) -> Vec<UnixStream> {
    let mut streams: Vec<_> = (0..number).map(|_| call(path)).collect();
    for stream in &mut streams {
        stream.write_all(b"GET /wait HTTP/1.1\r\n\r\n").unwrap();
        told.recv_timeout(LONG).expect("a question");
    }
    streams
}

#[test]
fn more_than_may_be_are_told_so_while_the_others_go_on() {
    let place = Place::new();
    let (tell, told) = mpsc::channel();
    let server = listen_with(&place.path("a.sock"), few(3), move |request| {
        let _ = tell.send(());
        echo(request)
    });
    let path = server.path().expect("a path");
    let mut streams = waiting(path, 3, &told);
    for _ in 0..50 {
        let answer = rest(&mut call(path));
        assert_eq!(parts(&answer).0, 503, "{answer}");
        assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
    }
    assert_eq!(server.refused(), 50);
    assert!(told.try_recv().is_err());
    drop(streams.pop());
    assert_eq!(ask_patiently(path, "/").0, 200);
    // The two others are still there.
    server.stop();
    for mut stream in streams {
        assert_eq!(rest(&mut stream), "");
    }
}

#[test]
fn a_thousand_one_after_the_other_leave_nothing_behind() {
    let place = Place::new();
    let server = listen(&place.path("a.sock"));
    let path = server.path().expect("a path");
    for turn in 0..1_000 {
        let target = format!("/{turn}");
        assert_eq!(ask_patiently(path, &target), (200, format!("GET {target} ")));
    }
    drop(server);
}

#[test]
fn a_thousand_at_once_are_all_answered_or_told() {
    const CLIENTS: usize = 20;
    let place = Place::new();
    let server = listen(&place.path("a.sock"));
    let path = server.path().expect("a path");
    let (served, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                // All are connected before any has asked.
                let streams: Vec<_> = (0..1_000 / CLIENTS).map(|_| call(path)).collect();
                for mut stream in streams {
                    match parts(&send(&mut stream, b"GET / HTTP/1.1\r\n\r\n")).0 {
                        200 => served.fetch_add(1, Ordering::Relaxed),
                        503 => refused.fetch_add(1, Ordering::Relaxed),
                        // A busy machine may take longer than the server waits for a request.
                        408 => 0,
                        other => panic!("{other}"),
                    };
                }
            });
        }
    });
    let (served, refused) = (served.into_inner(), refused.into_inner());
    assert!(served > 0 && served + refused <= 1_000, "{served} {refused}");
    assert_eq!(server.refused(), refused as u64);
    assert_eq!(ask_patiently(path, "/").0, 200);
}

const STARVED: &str = "the_program_without_descriptors";

#[test]
fn a_program_without_descriptors_is_reached_again_when_it_has_some() {
    let place = Place::new();
    let path = place.path("a.sock");
    let mut command = program(STARVED);
    command.env("SOCKET", &path);
    let status = command.status().expect("a program");
    assert!(status.success(), "{status}");
}

#[test]
fn the_program_without_descriptors() {
    if !is_program(STARVED) {
        return;
    }
    let path = PathBuf::from(std::env::var_os("SOCKET").expect("a path"));
    let server = listen(&path);
    // Each end of a connection to itself needs one.
    set_limit(40);
    let mut callers = vec![UnixStream::connect(&path).expect("a connection")];
    let mut taken = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        taken.push(file);
    }
    // For this one the client has a descriptor, and the server has none.
    taken.pop();
    let before = processor_time();
    callers.push(UnixStream::connect(&path).expect("a connection"));
    // It is dropped, and not left to wait.
    assert_eq!(rest(&mut callers[1]), "");
    until_true("a refusal", || server.refused() > 0);
    thread::sleep(Duration::from_millis(300));
    let used = processor_time() - before;
    assert!(used < Duration::from_millis(200), "the server has not slept: {used:?}");
    // The server's reserve is there again: the program has no more descriptors than before.
    callers.pop();
    drop(taken);
    assert_eq!(ask_patiently(&path, "/").0, 200);
    drop(callers);
    set_limit(0);
    // Nothing can be waited for any more, and it ends nevertheless.
    server.stop();
}

fn set_limit(most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: 1_024 };
    // SAFETY: The limit lives while it is read.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: The time lives while it is written.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
