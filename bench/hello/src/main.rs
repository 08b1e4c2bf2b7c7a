//! What pertask costs an axum service that answers "hello": its CPU time for each request, in each state of pertask.
//!
//! ```text
//! cargo run --release -- [ROUNDS]      9 rounds by default, some seconds each
//! ```
//!
//! The service is a process of its own, on one worker thread, and eight clients keep it busy. In each round all variants run in
//! turn, and each is compared with that round's service whose layer does nothing.

#[path = "../../src/quartiles.rs"]
mod quartiles;
mod service;

use quartiles::Quartiles;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// What is compared, and what it is called in the table.
const VARIANTS: [(&str, &str); 5] = [
    ("bare", "a layer that does nothing"),
    ("off", "each request a task, no session"),
    ("session", "a session for all tasks"),
    ("99", "samples at 99 Hz"),
    ("999", "samples at 999 Hz"),
];

const CLIENTS: usize = 8;
const TIME: Duration = Duration::from_millis(1_000);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(|it| &**it) {
        Some("serve") => service::serve(arguments.get(2).expect("a variant")),
        rounds => compare(rounds.map_or(9, |rounds| rounds.parse().expect("a number of rounds"))),
    }
}

fn compare(rounds: usize) {
    let uname =
        |field| std::fs::read_to_string(format!("/proc/sys/kernel/{field}")).unwrap_or_default();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let [axum, tokio] = ["axum", "tokio"].map(version);
    println!(
        "Linux {}, {cpus} CPUs, axum {axum}, tokio {tokio}; {rounds} rounds of {TIME:?}",
        uname("osrelease").trim()
    );
    let mut times = vec![Vec::new(); VARIANTS.len()];
    for round in 0..rounds {
        // Each variant comes first once.
        for turn in 0..VARIANTS.len() {
            let which = (round + turn) % VARIANTS.len();
            times[which].push(microseconds_a_request(VARIANTS[which].0));
        }
    }
    println!("{:34} {:>12} {:>10} {:>20}", "", "µs a request", "over bare", "quartiles");
    for ((_, what), own) in VARIANTS.iter().zip(&times) {
        let over = own.iter().zip(&times[0]).map(|(own, bare)| 100.0 * (own / bare - 1.0));
        let Some((own, over)) = Quartiles::of(own.clone()).zip(Quartiles::of(over.collect()))
        else {
            continue;
        };
        let Quartiles { first, median, third } = over;
        println!("{what:34} {:>12.2} {median:>+9.1}% {first:>+11.1}..{third:+.1}%", own.median);
    }
}

/// The version of a package in this program.
fn version(package: &str) -> &'static str {
    const LOCK: &str = include_str!("../Cargo.lock");
    let begin = format!("name = \"{package}\"\nversion = \"");
    let found = LOCK.split_once(&begin).and_then(|(_, rest)| rest.split_once('"'));
    found.map_or("?", |(version, _)| version)
}

/// The CPU time of a service for each request.
fn microseconds_a_request(variant: &str) -> f64 {
    let program = std::env::current_exe().expect("this program");
    let mut service = Command::new(program)
        .args(["serve", variant])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut said = BufReader::new(service.stdout.take().expect("piped"));
    let mut line = || {
        let mut line = String::new();
        said.read_line(&mut line).expect("the service tells");
        line.trim().to_owned()
    };
    let port: u16 = line().parse().expect("a port");
    let done = AtomicBool::new(false);
    let microseconds = thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| call(port, &done));
        }
        // Until all is warm.
        thread::sleep(TIME / 4);
        let input = service.stdin.as_mut().expect("piped");
        input.write_all(b"begin\n").expect("the service listens");
        thread::sleep(TIME);
        input.write_all(b"end\n").expect("the service listens");
        let told = line();
        done.store(true, Ordering::Relaxed);
        told.parse().expect("a figure")
    });
    drop(service.stdin.take());
    service.wait().expect("it ends");
    microseconds
}

/// Asks again and again over one connection.
fn call(port: u16, done: &AtomicBool) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the service listens");
    stream.set_nodelay(true).expect("a socket");
    let mut answer = [0; 1_024];
    while !done.load(Ordering::Relaxed) {
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").expect("a request");
        let mut got = 0;
        while !answer[..got].ends_with(b"hello") {
            got += stream.read(&mut answer[got..]).expect("an answer");
        }
    }
}
