//! Programs that close all descriptors while a server runs, as a daemon does that begins late, and use their numbers for files of their own.

mod support;

use pertask_agent::{Options, Server};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use support::*;

const LISTENS: &str = "the_program_that_listens";
const CONNECTS: &str = "the_program_that_connects";

#[test]
fn the_program_that_listens() {
    if is_program(LISTENS) {
        let service = Arc::new(By(echo));
        close_all_of(Server::listen_at(&socket(), Options::default(), service).expect("a server"));
    }
}

#[test]
fn the_program_that_connects() {
    if is_program(CONNECTS) {
        let service = Arc::new(By(echo));
        let server = Server::connect_to(&socket(), Options::default(), service);
        let server = server.expect("a server");
        until_true("a connection", || is_connected() && is_asleep());
        close_all_of(server);
    }
}

fn socket() -> PathBuf {
    std::env::var_os("SOCKET").expect("a path").into()
}

/// Whether the server has a connection, and the directory no more in which it was made.
fn is_connected() -> bool {
    let all = std::fs::read_dir("/proc/self/fd").expect("the descriptors").flatten();
    let all: Vec<_> = all.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
    let directory = socket().parent().map(PathBuf::from).expect("a directory");
    all.iter().any(|file| file.to_string_lossy().starts_with("socket:"))
        && !all.contains(&directory)
}

/// Whether the server's thread sleeps.
fn is_asleep() -> bool {
    let stat = the_servers_threads().next().map(|thread| thread.join("stat"));
    let stat = std::fs::read_to_string(stat.expect("a thread")).expect("its state");
    stat.contains(") S ")
}

/// Closes all, opens files of its own, and says whether they were left alone until the server's thread has ended.
fn close_all_of(server: Server) {
    std::mem::forget(server);
    // SAFETY: The descriptors are the server's and this function's. That the server has to bear this is what is tested.
    assert_eq!(unsafe { libc::close_range(3, u32::MAX, 0) }, 0);
    let own: Vec<_> = (0..32).map(|_| File::open("/dev/null").expect("a file")).collect();
    println!("ready");
    let is_own = |file: &File| {
        let file = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        file.is_ok_and(|file| file.as_os_str() == "/dev/null")
    };
    let is_left_alone = || own.iter().all(is_own);
    until_true("end", || !is_left_alone() || the_servers_threads().next().is_none());
    println!("{}", if is_left_alone() { "left alone" } else { "closed" });
    std::io::stdout().flush().expect("stdout");
    // The files are not closed: where one is gone, that would be an error of its own.
    std::process::exit(0);
}

fn the_servers_threads() -> impl Iterator<Item = PathBuf> {
    let all = std::fs::read_dir("/proc/self/task").expect("the threads").flatten();
    all.map(|thread| thread.path()).filter(|thread| {
        let name = std::fs::read_to_string(thread.join("comm"));
        name.is_ok_and(|name| name.starts_with("pertask-"))
    })
}

fn start(role: &str, place: &Place) -> (Command, PathBuf) {
    let (mut command, path) = (program(role), place.path("any.sock"));
    command.env("SOCKET", &path);
    (command, path)
}

fn says(mut running: Running) -> String {
    rest(running.0.stdout.as_mut().expect("its stdout"))
}

#[test]
fn who_listens_leaves_the_files_alone() {
    let place = Place::new();
    let (command, path) = start(LISTENS, &place);
    let running = Running::start(command);
    // This wakes the server.
    drop(UnixStream::connect(path));
    assert!(says(running).contains("left alone"));
}

#[test]
fn who_connects_leaves_the_files_alone() {
    let place = Place::new();
    let (command, path) = start(CONNECTS, &place);
    let listener = UnixListener::bind(path).expect("a socket");
    let running = Running::start(command);
    // This wakes the server.
    drop(listener.accept().expect("a connection"));
    assert!(says(running).contains("left alone"));
}
