//! Tools that ask other processes: where their sockets are, whose they are, and what becomes of them at fork.

mod support;

use pertask_agent::{Client, ClientError, Directory, Options, Server, connect, find};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use support::*;

const LISTENS: &str = "the_program_that_listens";

/// Does what `pertask::agent::init` does.
#[test]
fn the_program_that_listens() {
    if !is_program(LISTENS) {
        return;
    }
    if std::env::var_os("WAITS").is_some() {
        // It was blocked on the program's first thread, which only waits for this one.
        block(libc::SIG_UNBLOCK);
    }
    let service = Arc::new(By(echo));
    let chosen = std::env::var("PERTASK").ok();
    let server = match chosen.as_deref().and_then(|value| value.strip_suffix(",listen")) {
        Some(path) => Server::listen_at(Path::new(path), Options::default(), service),
        None => {
            let directory = Directory::open_or_create(&Directory::default_path());
            Server::listen(&directory.expect("a directory"), Options::default(), service)
        }
    };
    let server = server.expect("a server");
    if std::env::var_os("FORKS").is_some() {
        fork(server);
    } else if std::env::var_os("EXECS").is_some() {
        // Whoever is there then is another program, and the same process.
        let place = std::env::var_os("PERTASK_DIR").expect("a directory");
        let why = program(LISTENS).env("PERTASK_DIR", place).env_remove("EXECS").exec();
        panic!("{why}");
    } else if std::env::var_os("WAITS").is_some() {
        wait_for_a_signal();
    } else {
        stay();
    }
}

/// Blocks SIGTERM on this thread, or lets it come.
fn block(how: i32) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set, which is memory of this function's own, before other calls use it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::pthread_sigmask(how, set.as_ptr(), std::ptr::null_mut());
        set.assume_init()
    }
}

/// Blocks a signal, and has a thread wait for it. The kernel offers it first to the threads that were there before.
fn wait_for_a_signal() {
    let set = block(libc::SIG_BLOCK);
    let waits = move || {
        let mut signal = 0;
        println!("ready");
        // SAFETY: the set is initialised, and the signal lives while it is written.
        unsafe { libc::sigwait(&raw const set, &raw mut signal) };
        std::process::exit(5);
    };
    let _ = std::thread::spawn(waits).join();
}

fn listening(variable: &str, value: &Path) -> Running {
    let mut command = program(LISTENS);
    command.env(variable, value);
    Running::start(command)
}

fn answer_of(client: Client) -> String {
    let reply = client.get("/x?y=1", LONG).expect("an answer");
    String::from_utf8(reply.into_bytes(1_000).expect("a body")).expect("text")
}

#[test]
fn a_process_is_found_where_its_environment_says() {
    let place = Place::new();
    let private = place.directory();
    let chosen = PathBuf::from(format!("{},listen", place.path("any.sock").display()));
    for (variable, value, expected) in [
        ("PERTASK_DIR", private.path(), private.path().to_owned()),
        ("XDG_RUNTIME_DIR", private.path(), private.path().join("pertask")),
        ("PERTASK", &chosen, place.path("any.sock")),
    ] {
        let running = listening(variable, value);
        assert_eq!(answer_of(connect(running.pid()).expect(variable)), "GET /x y=1");
        let found = find().into_iter().find(|found| found.pid == running.pid());
        let found = found.expect(variable);
        assert!(found.path.starts_with(expected), "{found:?}");
        assert!(found.program.starts_with("processes"), "{found:?}");
    }
}

#[test]
fn the_default_is_found_without_any_environment() {
    let running = Running::start(program(LISTENS));
    assert_eq!(answer_of(connect(running.pid()).expect("an agent")), "GET /x y=1");
    let path = find().into_iter().find(|found| found.pid == running.pid()).expect("it").path;
    drop(running);
    // It was killed. The next one that begins there removes what it left, if nobody has before.
    let _next = Running::start(program(LISTENS));
    assert!(!path.exists());
}

#[test]
fn it_is_told_why_there_is_no_agent() {
    let why = connect(4_999_999).expect_err("no process");
    assert!(matches!(why, ClientError::NoProcess { pid: 4_999_999 }), "{why}");
    assert!(why.to_string().contains("4999999"), "{why}");

    let mut sleep = Running(Command::new("sleep").arg("1000").spawn().expect("sleep"));
    let comm = format!("/proc/{}/comm", sleep.pid());
    until_true("its name", || std::fs::read_to_string(&comm).unwrap() == "sleep\n");
    let why = connect(sleep.pid()).expect_err("no agent").to_string();
    assert!(why.contains("`pertask::init()`"), "{why}");
    assert!(why.contains(&format!("process {} (sleep)", sleep.pid())), "{why}");
    sleep.0.kill().unwrap();
    // Whether or not it has ended by now, and although nobody has waited for it.
    assert!(!find().iter().any(|found| found.pid == sleep.pid()));
    assert!(connect(sleep.pid()).is_err());
    sleep.0.wait().unwrap();
    assert!(matches!(connect(sleep.pid()), Err(ClientError::NoProcess { .. })));
    for pid in [0, u32::MAX] {
        assert!(matches!(connect(pid), Err(ClientError::NoProcess { .. })), "{pid}");
    }
}

#[test]
fn a_directory_that_others_can_enter_is_named() {
    let place = Place::new();
    let private = place.directory();
    let running = listening("PERTASK_DIR", private.path());
    std::fs::set_permissions(private.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let why = connect(running.pid()).expect_err("an open directory").to_string();
    assert!(why.contains("0755") && why.contains("pertask::init()"), "{why}");
    assert!(!find().iter().any(|found| found.pid == running.pid()));
}

#[test]
fn another_process_at_its_socket_is_not_asked() {
    let place = Place::new();
    let private = place.directory();
    let running = listening("PERTASK_DIR", private.path());
    let found = find().into_iter().find(|found| found.pid == running.pid()).expect("it");
    std::fs::remove_file(&found.path).unwrap();
    let _own = std::os::unix::net::UnixListener::bind(&found.path).unwrap();
    let why = connect(running.pid()).expect_err("another process");
    let own = std::process::id();
    assert!(matches!(why, ClientError::Impostor { found, .. } if found == own), "{why}");
}

#[test]
fn a_socket_at_which_nobody_listens_is_refused() {
    let place = Place::new();
    let private = place.directory();
    let running = listening("PERTASK_DIR", private.path());
    let found = find().into_iter().find(|found| found.pid == running.pid()).expect("it");
    std::fs::remove_file(&found.path).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&found.path).unwrap());
    let why = connect(running.pid()).expect_err("nobody");
    assert!(matches!(why, ClientError::Refused { .. }), "{why}");
}

/// Forks, and lets the child do all that could harm the parent.
fn fork(server: Server) {
    let path = server.path().expect("a path").to_owned();
    // SAFETY: The child does nothing that needs a thread it has not.
    match unsafe { libc::fork() } {
        0 => {
            drop(server);
            // SAFETY: Nothing is to be done before.
            unsafe { libc::_exit(if path.exists() { 0 } else { 1 }) }
        }
        child => {
            let mut status = -1;
            // SAFETY: The status lives while it is written.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(status, 0, "the child has harmed its parent, or has not ended");
            stay();
            // It ends as always.
            drop(server);
            assert!(!path.exists());
        }
    }
}

#[test]
fn a_forked_child_serves_and_removes_nothing() {
    let place = Place::new();
    let mut command = program(LISTENS);
    command.env("PERTASK_DIR", place.directory().path()).env("FORKS", "1");
    let mut running = Running::start(command);
    for _ in 0..20 {
        assert_eq!(answer_of(connect(running.pid()).expect("the parent")), "GET /x y=1");
    }
    drop(running.0.stdin.take());
    assert!(running.0.wait().expect("its end").success());
}

#[test]
fn signals_go_to_whoever_waits_for_them() {
    let place = Place::new();
    let mut command = program(LISTENS);
    command.env("PERTASK_DIR", place.directory().path()).env("WAITS", "1");
    // SAFETY: between fork and exec it makes one system call.
    unsafe {
        command.pre_exec(|| {
            block(libc::SIG_BLOCK);
            Ok(())
        });
    }
    let mut running = Running::start(command);
    assert_eq!(answer_of(connect(running.pid()).expect("an agent")), "GET /x y=1");
    // SAFETY: `kill` touches no memory; the child is not reaped yet, so the number is its own.
    unsafe { libc::kill(running.pid() as i32, libc::SIGTERM) };
    assert_eq!(running.0.wait().expect("its end").code(), Some(5));
}

#[test]
fn a_program_that_another_has_become_takes_the_place_of_its_socket() {
    let place = Place::new();
    let mut command = program(LISTENS);
    command.env("PERTASK_DIR", place.directory().path()).env("EXECS", "1");
    let running = Running::start(command);
    assert_eq!(answer_of(connect(running.pid()).expect("the second")), "GET /x y=1");
    let found = find();
    assert_eq!(found.iter().filter(|found| found.pid == running.pid()).count(), 1);
}

#[test]
fn another_user_gets_nothing() {
    if !is_root() {
        return skip("only root can be another user");
    }
    let place = Place::new();
    let server = listen(&place.path("a.sock"));
    let path = server.path().expect("a path");
    // Not even if the permissions allow it.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let curl = |user| {
        let mut curl = Command::new("curl");
        curl.uid(user).args(["--silent", "--max-time", "60", "--unix-socket"]).arg(path);
        let done = curl.args(["--write-out", " %{http_code}", "http://agent/"]).output();
        String::from_utf8(done.expect("curl").stdout).expect("text")
    };
    assert_eq!(curl(0), "GET /  200");
    let refused = curl(65_534);
    // If curl sends after it was refused, it may see only that.
    assert!(refused.ends_with(" 403") || refused.ends_with(" 000"), "{refused}");
    assert!(!refused.contains("GET"), "{refused}");
    assert_eq!(server.refused(), 1);
}

const ASKS: &str = "the_program_that_asks";

#[test]
fn the_program_that_asks() {
    if is_program(ASKS) {
        let pid = std::env::var("TARGET").expect("a pid").parse().expect("a number");
        let text = connect(pid).map_or_else(|why| why.to_string(), answer_of);
        let is_found = find().iter().any(|found| found.pid == pid);
        println!("said: {text}; found: {is_found}");
    }
}

fn asked_by(user: u32, target: &Running) -> String {
    let mut command = program(ASKS);
    let done = command.uid(user).env("TARGET", target.pid().to_string()).output();
    String::from_utf8(done.expect("a program").stdout).expect("text")
}

#[test]
fn root_reaches_other_users_and_they_reach_only_themselves() {
    if !is_root() {
        return skip("only root can be another user");
    }
    let mut command = program(LISTENS);
    command.uid(65_534).gid(65_534);
    let theirs = Running::start(command);
    assert_eq!(answer_of(connect(theirs.pid()).expect("theirs")), "GET /x y=1");
    assert!(find().iter().any(|found| found.pid == theirs.pid()));
    let said = asked_by(65_534, &theirs);
    assert!(said.contains("said: GET /x y=1; found: true"), "{said}");

    let place = Place::new();
    let ours = listening("PERTASK_DIR", place.directory().path());
    let said = asked_by(65_534, &ours);
    assert!(said.contains("is user 0's") && said.contains("found: false"), "{said}");
}

/// A container, as far as this is concerned: other numbers of processes, and other files.
#[test]
fn a_process_with_its_own_numbers_and_files_is_reached() {
    if !is_root() {
        return skip("only root can make namespaces");
    }
    let (place, mut command) = (Place::new(), Command::new("unshare"));
    let (inner, within) = (program(LISTENS), place.path("within"));
    std::fs::create_dir(&within).unwrap();
    let line = "mount -t tmpfs none $WITHIN && mkdir $WITHIN/real && ln -s $WITHIN/real $WITHIN/link && exec \"$0\" \"$@\"";
    command.args(["--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "sh", "-c", line]);
    command.arg(inner.get_program()).args(inner.get_args()).env("WITHIN", &within);
    command.env("PERTASK_AGENT_TEST_ROLE", LISTENS).env_remove("PERTASK");
    // The link's whole path leads somewhere only inside.
    command.env("PERTASK_DIR", within.join("link/private"));
    let probe = Command::new("unshare").args(["--pid", "--mount", "--fork", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return skip("there is no unshare, or it is not allowed");
    }
    let unshare = Running::start(command);
    let children = format!("/proc/{0}/task/{0}/children", unshare.pid());
    let children = std::fs::read_to_string(children).expect("its children");
    let pid = children.trim().parse().expect("one child");
    assert_eq!(answer_of(connect(pid).expect("the one inside")), "GET /x y=1");
    let found = find().into_iter().find(|found| found.pid == pid).expect("it");
    let within = within.strip_prefix("/").expect("a whole path");
    let outside = Path::new("/proc").join(pid.to_string()).join("root").join(within);
    assert!(found.path.starts_with(outside), "{found:?}");
}

/// A container without rights: its root is an ordinary user outside.
#[test]
fn a_process_with_its_own_users_is_reached() {
    if !is_root() {
        return skip("only root can be another user");
    }
    let place = Place::new();
    std::fs::set_permissions(&place.0, std::fs::Permissions::from_mode(0o777)).unwrap();
    let probe = ["--user", "--map-root-user", "true"];
    if !Command::new("unshare").args(probe).uid(65_534).status().is_ok_and(|it| it.success()) {
        return skip("there is no unshare, or it is not allowed");
    }
    let (mut command, inner) = (Command::new("unshare"), program(LISTENS));
    command.args(["--user", "--map-root-user"]).arg(inner.get_program()).args(inner.get_args());
    command.uid(65_534).gid(65_534).env("PERTASK_DIR", place.path("private"));
    command.env("PERTASK_AGENT_TEST_ROLE", LISTENS).env_remove("PERTASK");
    let running = Running::start(command);
    assert_eq!(answer_of(connect(running.pid()).expect("the one inside")), "GET /x y=1");
    assert!(find().iter().any(|found| found.pid == running.pid()));
}
