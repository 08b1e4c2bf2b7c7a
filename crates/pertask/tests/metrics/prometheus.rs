//! Prometheus, and its `promtool`, as readers.

use crate::support::{self, alone, loudly, wait_until};
use crate::{HOSTILE, TEXT, manual, polls, with_waits_and_lives};
use pertask::metrics::{Metrics, MetricsAnswer};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn promtool_finds_nothing_to_say() {
    let _turn = alone();
    let metrics = with_waits_and_lives();
    polls(HOSTILE, 3);
    polls("plain", 3);
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        return loudly("SKIPPED: promtool reads the metrics: it is not installed");
    };
    let body = metrics.answer(TEXT).body;
    promtool.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = promtool.wait_with_output().unwrap();
    let said = [stdout, stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(status.success() && said.concat().is_empty(), "{status}: {said:?}\n{body}");
}

/// Serves metrics to whoever asks on a port of this machine, until it is dropped.
struct Server {
    port: u16,
    served: Arc<Mutex<BTreeSet<&'static str>>>,
    stop: support::StopOnDrop,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(metrics: Metrics) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (served, stop) = (Arc::<Mutex<BTreeSet<_>>>::default(), support::StopOnDrop::default());
        let (types, flag) = (Arc::clone(&served), stop.flag());
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if flag.load(SeqCst) {
                    return;
                }
                // A scraper that goes away is no matter.
                if let Ok(content_type) = answer(&metrics, &connection) {
                    types.lock().unwrap().insert(content_type);
                }
            }
        });
        Self { port, served, stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.flag().store(true, SeqCst);
        // The thread looks at the flag when it next has a connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Answers one request, with HTTP in its simplest form.
fn answer(metrics: &Metrics, mut connection: &TcpStream) -> std::io::Result<&'static str> {
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut accept = None;
    for line in BufReader::new(connection).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let header = line.split_once(':');
        if let Some((_, value)) = header.filter(|(name, _)| name.eq_ignore_ascii_case("accept")) {
            accept = Some(value.trim().to_owned());
        }
    }
    let MetricsAnswer { content_type, body } = metrics.answer(accept.as_deref());
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    connection.write_all((head + &body).as_bytes())?;
    Ok(content_type)
}

/// Prometheus, in a directory of its own. It ends when it is dropped.
struct Prometheus {
    process: Child,
    port: u16,
    directory: PathBuf,
}

impl Prometheus {
    /// Starts it on a free port. `None` if it is not installed.
    fn start(target: u16) -> Option<Self> {
        let directory =
            std::env::temp_dir().join(format!("pertask-metrics-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs: [{{job_name: pertask, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
        );
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        // Nobody takes the port between these two lines, or the test says that Prometheus ended.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let started = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.join("log")).unwrap())
            .spawn();
        Some(Self { process: started.ok()?, port, directory })
    }

    /// The values of a query's result. `None` while Prometheus does not answer.
    fn query(&mut self, query: &str) -> Option<Vec<f64>> {
        let ended = self.process.try_wait().unwrap();
        assert!(ended.is_none(), "Prometheus ended: {}", self.log());
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let request = format!("GET /api/v1/query?query={encoded} HTTP/1.0\r\n\r\n");
        connection.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        if answer.contains(" 503 ") {
            return None;
        }
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let json: serde_json::Value = serde_json::from_str(body).expect(&answer);
        assert_eq!(json["status"], "success", "{query}: {answer}");
        let result = json["data"]["result"].as_array().unwrap();
        Some(result.iter().map(|row| row["value"][1].as_str().unwrap().parse().unwrap()).collect())
    }

    /// Waits until a query's result is as it should be.
    fn wait_for(&mut self, query: &str, is_right: impl Fn(&[f64]) -> bool) {
        wait_until(query, || {
            std::thread::sleep(Duration::from_millis(100));
            self.query(query).is_some_and(|values| is_right(&values))
        });
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn prometheus_scrapes_what_was_measured() {
    let _turn = alone();
    let server = Server::start(with_waits_and_lives());
    let Some(mut prometheus) = Prometheus::start(server.port) else {
        return loudly("SKIPPED: Prometheus scrapes the metrics: it is not installed");
    };
    polls("exact", 7);
    polls(HOSTILE, 3);
    prometheus.wait_for("pertask_task_polls_total{name=\"exact\"}", |values| values == [7.0]);
    prometheus.wait_for("up{job=\"pertask\"}", |values| values == [1.0]);
    let hostile = format!("pertask_task_polls_total{{name={HOSTILE:?}}}")
        .replace("\\0", "\\u0000")
        .replace("\\u{feff}", "\u{feff}")
        .replace("\\u{2028}", "\u{2028}");
    prometheus.wait_for(&hostile, |values| values == [3.0]);
    prometheus
        .wait_for("pertask_task_wake_latency_seconds_bucket{name=\"exact\",le=\"+Inf\"}", |it| {
            it == [6.0]
        });
    // As many samples as there are states.
    let states = "pertask_task_life_seconds_total{name=\"exact\"}";
    prometheus.wait_for(states, |values| values.len() == 7);
    // The manual's queries, beside tasks that use the CPU.
    let stop = support::StopOnDrop::default();
    let stopped = stop.flag();
    let worker = std::thread::spawn(move || {
        while !stopped.load(SeqCst) {
            polls("works", 10);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let manual = manual();
    let queries: Vec<_> = manual.split("```promql\n").skip(1).collect();
    assert!(queries.len() >= 3);
    for query in queries {
        let (query, _) = query.split_once("```").unwrap();
        prometheus.wait_for(query, |values| values.iter().any(|value| value.is_finite()));
    }
    let served = server.served.lock().unwrap().clone();
    assert!(served.iter().all(|it| it.starts_with("application/openmetrics-text")), "{served:?}");
    drop(stop);
    worker.join().unwrap();
}
