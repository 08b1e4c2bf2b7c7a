//! What pertask and other tools cost an axum service that answers "hello", in CPU time for each request, and a task's life.
//!
//! ```text
//! cargo run --release -- [ROUNDS [OTHERS]]   pertask alone, 9 rounds by default
//! ../peers.sh [ROUNDS [OTHERS]]              with the other tools, each in the build that it wants
//! ```
//!
//! OTHERS is how many other programs want a CPU all the time beside the service; none by default.
//!
//! Each measurement has a process of its own. The service has one worker thread, and eight clients keep it busy. In each round all
//! variants run in turn, and each is compared with that round's run without a tool in the same build.

mod clock;
mod life;
#[path = "../../src/quartiles.rs"]
mod quartiles;
mod service;
mod tool;
mod variant;

use quartiles::Quartiles;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use variant::{Build, VARIANTS, Variant};

const CLIENTS: usize = 8;
const TIME: Duration = Duration::from_millis(1_000);

/// What is measured.
#[derive(Clone, Copy)]
enum What {
    Request,
    Life,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let variant = || {
        let name = arguments.get(2).expect("a variant");
        VARIANTS.into_iter().find(|variant| variant.name == *name).expect("a known variant")
    };
    match arguments.get(1).map(|it| &**it) {
        Some("serve") => service::serve(&variant()),
        Some("life") => println!("{}", life::measure(&variant())),
        Some("other") => loop {
            std::hint::black_box(());
        },
        rounds => {
            let number = |text: &str| text.parse().expect("a number");
            let others = arguments.get(2).map_or(0, |it| number(it));
            compare(rounds.map_or(9, number), others);
        }
    }
}

/// The program of a build, which the environment names for all but this one.
fn program(build: Build) -> Option<PathBuf> {
    let named = |variable| std::env::var_os(variable).map(PathBuf::from);
    match build {
        Build::Plain => std::env::current_exe().ok(),
        Build::Console => named("PEERS_CONSOLE"),
        Build::Dial9 => named("PEERS_DIAL9"),
    }
}

/// Whether this run has what the variant needs.
fn is_here(variant: &Variant) -> bool {
    let is_peer = variant.build == Build::Plain && variant.package().is_some();
    program(variant.build).is_some() && (cfg!(feature = "peers") || !is_peer)
}

/// A program that wants a CPU until this is dropped.
struct Other(Child);

impl Other {
    fn start() -> Self {
        let this = std::env::current_exe().expect("this program");
        Self(Command::new(this).arg("other").spawn().expect("a process"))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn compare(rounds: usize, others: usize) {
    let _others: Vec<_> = (0..others).map(|_| Other::start()).collect();
    let variants: Vec<_> = VARIANTS.into_iter().filter(is_here).collect();
    let uname =
        |field| std::fs::read_to_string(format!("/proc/sys/kernel/{field}")).unwrap_or_default();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let [axum, tokio] = ["axum", "tokio"].map(version);
    println!(
        "Linux {}, {cpus} CPUs, {others} other programs that want one, axum {axum}, tokio {tokio}; {rounds} rounds of {TIME:?}",
        uname("osrelease").trim()
    );
    let mut requests = vec![Vec::new(); variants.len()];
    let mut lives = requests.clone();
    let mut handlers = vec![Vec::new(); variants.len()];
    for round in 0..rounds {
        // Each variant comes first once.
        for turn in 0..variants.len() {
            let which = (round + turn) % variants.len();
            let (microseconds, handler) = microseconds_a_request(&variants[which]);
            requests[which].push(microseconds);
            handlers[which].extend(handler);
            lives[which].push(nanoseconds_a_life(&variants[which]));
        }
    }
    table(What::Request, &variants, &requests);
    table(What::Life, &variants, &lives);
    for (variant, own) in variants.iter().zip(handlers).filter(|(_, own)| !own.is_empty()) {
        let of = |quantile: fn(&(f64, f64)) -> f64| {
            Quartiles::of(own.iter().map(quantile).collect()).map_or(f64::NAN, |it| it.median)
        };
        let (median, p99) = (of(|it| it.0), of(|it| it.1));
        println!("\n{}: its signal handler takes {median:.1} µs, at p99 {p99:.1} µs", variant.what);
    }
}

fn table(what: What, variants: &[Variant], times: &[Vec<f64>]) {
    let (title, unit) = match what {
        What::Request => ("a request for \"hello\"", "µs of CPU"),
        What::Life => ("a task: spawned, polled once, joined", "ns of CPU"),
    };
    println!("\n{title:44} {unit:>10} {:>12} {:>20}", "over nothing", "quartiles");
    for (variant, own) in variants.iter().zip(times) {
        let bare = variants.iter().position(|other| other.name == variant.build.bare());
        let Some(bare) = bare.map(|at| &times[at]) else { continue };
        let over = own.iter().zip(bare).map(|(own, bare)| match what {
            What::Request => 100.0 * (own / bare - 1.0),
            What::Life => own - bare,
        });
        let over = Quartiles::of(over.collect());
        let Some((own, Quartiles { first, median, third })) = Quartiles::of(own.clone()).zip(over)
        else {
            continue;
        };
        let name = variant.package().map_or(variant.what.to_owned(), |package| {
            variant.what.to_owned() + " (" + version(package) + ")"
        });
        match what {
            What::Request => println!(
                "{name:44} {:>10.2} {median:>+11.1}% {first:>+11.1}..{third:+.1}%",
                own.median
            ),
            What::Life => {
                println!(
                    "{name:44} {:>10.0} {median:>+12.0} {first:>+11.0}..{third:+.0}",
                    own.median
                );
            }
        }
    }
}

/// The version of a package in this program.
fn version(package: &str) -> &'static str {
    const LOCK: &str = include_str!("../Cargo.lock");
    let begin = format!("name = \"{package}\"\nversion = \"");
    let found = LOCK.split_once(&begin).and_then(|(_, rest)| rest.split_once('"'));
    found.map_or("?", |(version, _)| version)
}

fn nanoseconds_a_life(variant: &Variant) -> f64 {
    let program = program(variant.build).expect("a program");
    let mut service = Command::new(program);
    let service = service.args(["life", variant.name]).stdout(Stdio::piped()).stderr(Stdio::null());
    let service = service.spawn().expect("a process");
    let number = service.id();
    let output = service.wait_with_output().expect("its output");
    remove_traces(number);
    assert!(output.status.success(), "{}: {}", variant.name, output.status);
    // Some tools say something at the end, too.
    let told = String::from_utf8_lossy(&output.stdout);
    told.lines().find_map(|line| line.parse().ok()).expect("a figure")
}

/// Removes what dial9 has written in a process.
fn remove_traces(process: u32) {
    let _ = std::fs::remove_dir_all(variant::traces_of(process));
}

/// The CPU time of a service for each request, and the median and the 99th percentile of its signal handler if it has one.
fn microseconds_a_request(variant: &Variant) -> (f64, Option<(f64, f64)>) {
    let mut service = Command::new(program(variant.build).expect("a program"))
        .args(["serve", variant.name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
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
    let handler = line();
    let handler =
        handler.split_once(' ').and_then(|(median, p99)| median.parse().ok().zip(p99.parse().ok()));
    service.wait().expect("it ends");
    remove_traces(service.id());
    (microseconds, handler)
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
