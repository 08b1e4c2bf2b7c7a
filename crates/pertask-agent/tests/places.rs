//! Where a server listens: in private directories, at paths, and under whose name.

mod support;

use pertask_agent::{Directory, DirectoryError, Identity, Options, ServeError, Server};
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use support::*;

fn listen_in(directory: &Directory) -> Result<Server, ServeError> {
    Server::listen(directory, Options::default(), Arc::new(By(echo)))
}

fn entries(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path).expect("a directory").map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

fn own_user() -> u32 {
    fs::metadata("/proc/self").expect("/proc").uid()
}

#[test]
fn the_socket_has_the_process_name_and_is_private() {
    let place = Place::new();
    let directory = place.directory();
    let server = listen_in(&directory).expect("a server");
    let own = Identity::of_this_process().expect("/proc");
    assert_eq!(entries(directory.path()), [format!("{}-{}.sock", own.pid, own.start_time)]);
    let socket = fs::metadata(server.path().expect("a path")).expect("a socket");
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(directory.path()).unwrap().mode() & 0o7777, 0o700);

    let second = listen_in(&directory).expect_err("a second one");
    assert!(matches!(&second, ServeError::AlreadyListening { .. }), "{second}");
    // The attempt has not harmed the first.
    assert_eq!(ask(server.path().expect("a path"), "/").0, 200);
    drop(server);
    assert!(entries(directory.path()).is_empty());
    drop(listen_in(&directory).expect("one after the first"));
}

#[test]
fn what_is_no_private_directory_is_refused() {
    let place = Place::new();
    let private = place.directory();
    symlink(private.path(), place.path("link")).unwrap();
    fs::write(place.path("file"), "").unwrap();
    fs::create_dir(place.path("open")).unwrap();
    fs::set_permissions(place.path("open"), Permissions::from_mode(0o711)).unwrap();

    for link in ["link", "link/", "link/.", "file"] {
        let why = Directory::open_or_create(&place.path(link)).expect_err(link);
        assert!(matches!(why, DirectoryError::NoDirectory { .. }), "{link}: {why}");
    }
    let why = Directory::open_or_create(&place.path("open")).expect_err("open");
    assert!(matches!(why, DirectoryError::Open { mode: 0o711, .. }), "{why}");
    assert!(why.to_string().contains("chmod 700"), "{why}");
    let why = Directory::open_or_create(&place.path("no/where")).expect_err("no/where");
    assert!(matches!(why, DirectoryError::Io { .. }), "{why}");
    let why = Directory::open(private.path(), own_user() + 1).expect_err("another's");
    assert!(matches!(why, DirectoryError::Anothers { .. }), "{why}");
    assert!(why.to_string().contains("PERTASK_DIR"), "{why}");
}

#[test]
fn anothers_directory_is_refused() {
    if !is_root() {
        return skip("only root can give a directory to another user");
    }
    let place = Place::new();
    let private = place.directory();
    std::os::unix::fs::chown(private.path(), Some(65_534), None).unwrap();
    let why = Directory::open_or_create(private.path()).expect_err("another's");
    assert!(matches!(why, DirectoryError::Anothers { owner: 65_534, .. }), "{why}");
}

#[test]
fn a_path_may_be_long() {
    let place = Place::new();
    let deep = place.path(&["a".repeat(60), "b".repeat(60), "c".repeat(60)].join("/"));
    fs::create_dir_all(&deep).unwrap();
    let directory = Directory::open_or_create(&deep.join("private")).expect("a directory");
    let server = listen_in(&directory).expect("a server");
    assert!(server.path().expect("a path").as_os_str().len() > 200);
    let chosen = listen(&deep.join("chosen.sock"));
    for server in [server, chosen] {
        let path = server.path().expect("a path");
        let short = place.path("short");
        let _ = fs::remove_file(&short);
        symlink(path, &short).unwrap();
        assert_eq!(ask(&short, "/x"), (200, "GET /x ".into()));
    }
}

#[test]
fn a_name_that_is_too_long_is_refused() {
    let place = Place::new();
    let path = place.path(&"x".repeat(100));
    let why = Server::listen_at(&path, Options::default(), Arc::new(By(echo))).expect_err("long");
    assert!(why.to_string().contains("at most 80 bytes"), "{why}");
    for none in ["/", "..", ""] {
        let server = Server::listen_at(none.as_ref(), Options::default(), Arc::new(By(echo)));
        assert!(matches!(server, Err(ServeError::NoName { .. })), "{server:?}");
    }
}

#[test]
fn sockets_of_dead_processes_are_removed_and_others_never() {
    let place = Place::new();
    let directory = place.directory();
    let at = |name: &str| directory.path().join(name);
    // The number of no process: greater than the kernel gives any.
    let (dead, live) = ("4999999-1.sock", "4999999-2.sock");
    let own = Identity::of_this_process().expect("/proc");
    let starting = Identity { start_time: own.start_time + 1, ..own }.socket_name();
    for gone in [dead, &starting, "notes.sock", &own.socket_name()] {
        drop(UnixListener::bind(at(gone)).unwrap());
    }
    // In another namespace, a process may have any number.
    let listener = UnixListener::bind(at(live)).unwrap();
    fs::write(at("4999999-3.sock"), "no socket").unwrap();
    fs::write(at("notes.txt"), "").unwrap();

    let server = listen_in(&directory).expect("a server");
    let mut left = entries(directory.path());
    left.sort();
    let mut expected =
        [live, "4999999-3.sock", "notes.sock", "notes.txt", &own.socket_name()].map(str::to_owned);
    expected.sort();
    assert_eq!(left, expected);
    assert_eq!(ask(server.path().expect("a path"), "/").0, 200);
    drop(listener);
}

#[test]
fn nothing_but_a_dead_socket_is_replaced() {
    let place = Place::new();
    let try_at = |path: &Path| Server::listen_at(path, Options::default(), Arc::new(By(echo)));
    fs::write(place.path("file"), "precious").unwrap();
    fs::create_dir(place.path("folder")).unwrap();
    symlink(place.path("nowhere"), place.path("link")).unwrap();
    let listener = UnixListener::bind(place.path("live")).unwrap();
    for name in ["file", "folder", "link", "live"] {
        let why = try_at(&place.path(name)).expect_err(name);
        assert!(matches!(why, ServeError::InUse { .. }), "{name}: {why}");
        assert!(fs::symlink_metadata(place.path(name)).is_ok(), "{name}");
    }
    assert_eq!(fs::read_to_string(place.path("file")).unwrap(), "precious");
    drop(listener);
    let server = try_at(&place.path("live")).expect("nobody listens there any more");
    assert_eq!(ask(server.path().unwrap(), "/").0, 200);
    let mut left = entries(&place.0);
    left.sort();
    assert_eq!(left, ["file", "folder", "link", "live"]);
    let why = try_at(&place.path("no/where")).expect_err("no directory");
    assert!(why.to_string().contains("make its directory"), "{why}");
}

#[test]
fn what_has_taken_the_name_stays_when_the_server_ends() {
    let place = Place::new();
    let path = place.path("a.sock");
    let server = listen(&path);
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(server);
    assert!(path.exists());
}

#[test]
fn a_directory_that_has_moved_is_still_the_one() {
    let place = Place::new();
    let directory = place.directory();
    fs::rename(directory.path(), place.path("moved")).unwrap();
    fs::create_dir(directory.path()).unwrap();
    let server = listen_in(&directory).expect("a server");
    assert_eq!(entries(&place.path("moved")).len(), 1);
    assert!(entries(directory.path()).is_empty());
    drop(server);
    assert!(entries(&place.path("moved")).is_empty());
}
