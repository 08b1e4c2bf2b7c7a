//! Answers to scrapes, as a reader sees them: a strict reader of our own, Prometheus's `promtool`, and Prometheus itself.

mod support;

use pertask::metrics::{Metrics, MetricsAnswer, MetricsOptions};
use pertask::{Session, SessionOptions, SiteReport, TaskExt};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{alone, loudly, ms, poll_once, spin, wait_until, yield_once};

const OPEN_METRICS: Option<&str> = Some("application/openmetrics-text; version=1.0.0");
const TEXT: Option<&str> = Some("text/plain; version=0.0.4");
const FORMATS: [Option<&str>; 2] = [TEXT, OPEN_METRICS];

/// Whatever a format could trip over.
const HOSTILE: &str = "q\" b\\ \\n \\\" n\n# EOF\n# TYPE x counter\nx{a=\"b\"} 1\r\t\0 }=, é 漢 \u{1f600}\u{feff}\u{2028}";

/// A page that was read, and that keeps all the rules of its format.
#[derive(Debug, Default)]
struct Page {
    /// The families, by the name that their samples begin with, without `_total` and `_info`.
    families: BTreeMap<String, Family>,
    samples: BTreeMap<Series, f64>,
}

#[derive(Debug, Default, PartialEq)]
struct Family {
    kind: String,
    unit: Option<String>,
    help: String,
}

type Labels = BTreeMap<String, String>;

/// A sample's name and its labels.
type Series = (String, Labels);

impl Page {
    /// Reads an answer. Panics where it breaks a rule.
    fn of(answer: &MetricsAnswer) -> Self {
        let open = match answer.content_type {
            "text/plain; version=0.0.4; charset=utf-8" => false,
            "application/openmetrics-text; version=1.0.0; charset=utf-8" => true,
            other => panic!("{other}"),
        };
        let body = match open {
            true => answer.body.strip_suffix("# EOF\n").expect("an end"),
            false => &answer.body,
        };
        let mut page = Self::default();
        let mut closed = BTreeSet::new();
        let mut current = String::new();
        for line in body.strip_suffix('\n').expect("a last line that ends").split('\n') {
            if let Some(comment) = line.strip_prefix("# ") {
                let name = page.describe(comment, open);
                if name != current {
                    assert!(closed.insert(name.clone()), "described twice: {name}");
                    current = name;
                }
                assert!(!page.has_samples_of(&current), "described after its samples: {line}");
            } else {
                let (series, value) = sample(line);
                assert_eq!(page.family_of(&series.0), current, "{line}");
                let sum = page.samples.insert(series, value);
                assert!(sum.is_none(), "twice: {line}");
            }
        }
        page.check_histograms(open);
        page
    }

    /// Reads a comment, and returns its family's name.
    fn describe(&mut self, comment: &str, open: bool) -> String {
        let mut words = comment.splitn(3, ' ');
        let (keyword, name, text) =
            (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        // The text format calls a family what its samples are called.
        let bare = ["_total", "_info"].iter().find_map(|suffix| name.strip_suffix(suffix));
        assert!(!open || bare.is_none(), "{comment}");
        let is_total = name.ends_with("_total");
        let name = bare.unwrap_or(name);
        assert!(is_name(name) && name.starts_with("pertask"), "{comment}");
        let family = self.families.entry(name.to_owned()).or_default();
        let text = text.to_owned();
        match keyword {
            "TYPE" => {
                let kinds = ["counter", "gauge", "histogram", "info"];
                assert!(kinds[..if open { 4 } else { 3 }].contains(&text.as_str()), "{comment}");
                assert!(family.kind.is_empty(), "{comment}");
                assert_eq!(is_total, !open && text == "counter", "{comment}");
                family.kind = text;
            }
            "HELP" => {
                assert!(family.help.is_empty() && text.ends_with('.'), "{comment}");
                assert!(!text.contains(['\\', '"']), "{comment}");
                family.help = text;
            }
            "UNIT" => {
                assert!(open && name.ends_with(&format!("_{text}")), "{comment}");
                assert!(family.unit.replace(text).is_none(), "{comment}");
            }
            _ => panic!("{comment}"),
        }
        name.to_owned()
    }

    /// The name of the family that a sample belongs to by its own name.
    fn family_of(&self, sample: &str) -> String {
        let of_kind = |kind: &str, suffix: &str| {
            let name = sample.strip_suffix(suffix)?;
            let family = self.families.get(name)?;
            let is_info = suffix == "_info" && family.kind == "gauge";
            (family.kind == kind || is_info).then(|| name.to_owned())
        };
        of_kind("counter", "_total")
            .or_else(|| of_kind("info", "_info"))
            .or_else(|| of_kind("histogram", "_bucket"))
            .or_else(|| of_kind("histogram", "_count"))
            .or_else(|| of_kind("gauge", ""))
            .unwrap_or_else(|| panic!("a sample of no family: {sample}"))
    }

    fn has_samples_of(&self, family: &str) -> bool {
        self.samples.keys().any(|(name, _)| self.family_of(name) == family)
    }

    fn check_histograms(&self, open: bool) {
        for name in self.families.iter().filter(|(_, it)| it.kind == "histogram").map(|(it, _)| it)
        {
            let mut all_bounds: BTreeSet<Vec<String>> = BTreeSet::new();
            for (labels, buckets) in self.histograms(name) {
                all_bounds.insert(buckets.iter().map(|(_, text, _)| text.clone()).collect());
                let counts: Vec<_> = buckets.iter().map(|(.., count)| *count).collect();
                assert!(counts.is_sorted(), "not cumulative: {labels:?} {buckets:?}");
                let (bound, text, all) = buckets.last().unwrap();
                assert!(bound.is_infinite() && text == "+Inf", "{buckets:?}");
                // OpenMetrics has a count only if it has a sum, and so has neither.
                let count = self.samples.get(&(format!("{name}_count"), labels));
                assert_eq!(count, if open { None } else { Some(all) });
            }
            assert!(all_bounds.len() <= 1, "{all_bounds:?}");
        }
        assert!(self.samples.keys().all(|(name, _)| !name.ends_with("_sum")), "not measured");
    }

    /// The buckets of each histogram: bound, its text, and count, in the order of the bounds.
    fn histograms(&self, name: &str) -> BTreeMap<Labels, Vec<(f64, String, f64)>> {
        let bucket = format!("{name}_bucket");
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((_, labels), count) in self.samples.iter().filter(|((it, _), _)| *it == bucket) {
            let mut labels = labels.clone();
            let text = labels.remove("le").expect("a bucket has a bound");
            all.entry(labels).or_default().push((text.parse::<f64>().unwrap(), text, *count));
        }
        all.values_mut().for_each(|buckets| buckets.sort_by(|a, b| a.0.total_cmp(&b.0)));
        all
    }

    /// A sample's value.
    #[track_caller]
    fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let series = (name.to_owned(), labels.collect());
        *self.samples.get(&series).unwrap_or_else(|| panic!("no {series:?}: {self:#?}"))
    }

    /// The value of the one series of that name of tasks.
    #[track_caller]
    fn of_task(&self, name: &str, task: &str) -> f64 {
        let values = self.all_of_task(name, task);
        assert_eq!(values.len(), 1, "{name} of {task:?}: {self:#?}");
        values[0]
    }

    fn all_of_task(&self, name: &str, task: &str) -> Vec<f64> {
        let samples = self.samples.iter();
        let of_task = samples.filter(|((it, labels), _)| it == name && labels["name"] == task);
        of_task.map(|(_, value)| *value).collect()
    }

    fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|((it, _), _)| it == name).map(|(_, value)| value).sum()
    }

    /// What must not fall: counters, buckets, and the longest polls.
    fn rising(&self) -> impl Iterator<Item = (&Series, f64)> {
        let is_rising = |(name, _): &Series| {
            name.ends_with("_total") || name.ends_with("_bucket") || name.contains("longest")
        };
        self.samples
            .iter()
            .filter(move |it| is_rising(it.0))
            .map(|(series, value)| (series, *value))
    }
}

fn is_name(name: &str) -> bool {
    name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
        && !name.starts_with(|char: char| char.is_ascii_digit())
}

/// Reads a line that is a sample.
fn sample(line: &str) -> (Series, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest),
        None => (BTreeMap::new(), rest),
    };
    let value = value.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    assert!(value.chars().all(|char| char.is_ascii_digit() || char == '.'), "{line}");
    ((name.to_owned(), labels), value.parse().unwrap())
}

/// Reads labels up to their brace, and returns them and the rest.
fn labels(mut rest: &str) -> (Labels, &str) {
    let mut labels = BTreeMap::new();
    loop {
        let (name, after) = rest.split_once("=\"").expect("a label");
        assert!(is_name(name), "{name}");
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect("a label's end") {
                (_, '\\') => value.push(match chars.next().expect("an escape").1 {
                    'n' => '\n',
                    char @ ('\\' | '"') => char,
                    other => panic!("no escape: {other:?}"),
                }),
                (at, '"') => break at,
                (_, char) => value.push(char),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "twice: {name}");
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (labels, rest.strip_prefix('}').expect("a brace")),
        }
    }
}

fn page(metrics: &Metrics) -> Page {
    Page::of(&metrics.answer(TEXT))
}

/// Runs a task of so many polls to its end.
fn polls(name: &str, polls: usize) {
    let work = async move {
        for _ in 1..polls {
            yield_once().await;
        }
    };
    support::run(work.task(name));
}

/// Seconds as nanoseconds, exactly: they have fewer digits than an `f64`.
fn ns(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

fn with_waits() -> Metrics {
    MetricsOptions { wake_latency: true, ..MetricsOptions::default() }.start().unwrap()
}

#[test]
fn both_formats_keep_their_rules_and_say_the_same_whatever_tasks_are_called() {
    let _turn = alone();
    let metrics = with_waits();
    polls(HOSTILE, 3);
    polls("", 2);
    support::run(yield_once().task("plain"));
    let [text, open] = FORMATS.map(|format| Page::of(&metrics.answer(format)));
    assert_eq!(text.of_task("pertask_task_polls_total", HOSTILE), 3.0);
    assert_eq!(text.of_task("pertask_task_polls_total", ""), 2.0);
    let site = format!("{}:", file!());
    let sites = text.samples.keys().filter_map(|(_, labels)| labels.get("site"));
    assert!(sites.clone().count() > 0 && sites.clone().all(|it| it.starts_with(&site)));
    // The second answer comes later, so figures of the process may be higher.
    let of_tasks = |page: &Page| -> Vec<(Series, f64)> {
        let samples = page
            .samples
            .iter()
            .filter(|((name, labels), _)| labels.contains_key("site") && !name.ends_with("_count"));
        samples.map(|(series, value)| (series.clone(), *value)).collect()
    };
    assert_eq!(of_tasks(&text), of_tasks(&open));
    let kind = |page: &Page, family: &str| page.families[family].kind.clone();
    for (name, family) in &open.families {
        let in_text = if family.kind == "info" { "gauge" } else { &family.kind };
        assert_eq!((&*kind(&text, name), &text.families[name].help), (in_text, &family.help));
        assert_eq!(family.unit.is_some(), name.ends_with("_seconds") || name.ends_with("_bytes"));
    }
    assert_eq!(text.families.len(), open.families.len());
}

#[test]
fn an_answer_is_in_the_format_that_was_asked_for() {
    let _turn = alone();
    let metrics = Metrics::start().unwrap();
    let content_type = |accept| {
        let answer = metrics.answer(accept);
        assert_eq!(answer.body.ends_with("# EOF\n"), answer.content_type.contains("openmetrics"));
        answer.content_type.split(';').next().unwrap()
    };
    assert_eq!(content_type(None), "text/plain");
    assert_eq!(content_type(Some("*/*")), "text/plain");
    assert_eq!(content_type(OPEN_METRICS), "application/openmetrics-text");
    assert_eq!(content_type(Some("application/openmetrics-text;q=0.1, */*;q=0.2")), "text/plain");
}

#[test]
fn the_figures_are_those_of_a_report() {
    let _turn = alone();
    let mut born_before = Box::pin(std::future::pending::<()>().task("born before"));
    let _ = poll_once(born_before.as_mut());
    let session = SessionOptions { wake_latency: true, ..SessionOptions::default() };
    let session = session.start().unwrap();
    let metrics = with_waits();
    let mut lives = Box::pin(std::future::pending::<()>().task("lives"));
    let _ = poll_once(lives.as_mut());
    polls("ends", 5);
    polls("ends", 6);
    support::run(async { spin(20) }.task("spins"));
    support::run(async { polls("inner", 4) }.task("outer"));
    let (report, page) = (session.stop(), page(&metrics));
    assert_eq!(page.get("pertask_sites", &[]) as usize, report.sites.len());
    for row in &report.sites {
        check_row(&page, row);
    }
    assert_eq!(
        ns(page.get("pertask_cpu_seconds_total", &[("where", "tasks")])),
        report.tasks_cpu_ns
    );
    let (parts, all) = (
        ns(page.sum("pertask_cpu_seconds_total")),
        ns(page.sum("pertask_process_cpu_seconds_total")),
    );
    assert!(parts.abs_diff(all) <= support::glue_ns(all), "{parts} of {all}");
    assert!(all >= ms(20), "{all}");
    assert_eq!(page.sum("pertask_lost_total"), 0.0);
    assert!(page.get("pertask_threads", &[("kind", "worker")]) >= 1.0, "this thread");
}

/// Checks what the page has of a report's row.
fn check_row(page: &Page, row: &SiteReport) {
    let name = row.site.name.as_deref().unwrap();
    let of = |metric| page.of_task(metric, name);
    assert_eq!(ns(of("pertask_task_cpu_seconds_total")), row.usage.cpu_ns, "{name}");
    assert_eq!(ns(of("pertask_task_poll_seconds_total")), row.usage.wall_ns, "{name}");
    assert_eq!(ns(of("pertask_task_longest_poll_seconds")), row.usage.max_poll_ns, "{name}");
    assert_eq!(of("pertask_task_polls_total") as u64, row.usage.polls, "{name}");
    assert_eq!(of("pertask_tasks_spawned_total") as u64, row.tasks_started, "{name}");
    assert_eq!(of("pertask_tasks_live") as u64, row.tasks_live, "{name}");
    let histograms = page.histograms("pertask_task_wake_latency_seconds");
    let Some(waits) = &row.wakes else {
        assert!(histograms.keys().all(|labels| labels["name"] != name), "{name}");
        return;
    };
    let (_, buckets) = histograms.iter().find(|(labels, _)| labels["name"] == name).unwrap();
    for (bound, text, count) in buckets {
        let is_within = |most_ns: u64| most_ns <= ns(*bound);
        let within = waits.histogram.iter().filter(|bucket| bucket.most_ns.is_some_and(is_within));
        let expected = match bound.is_infinite() {
            true => waits.count,
            false => within.map(|bucket| bucket.count).sum(),
        };
        assert_eq!(*count as u64, expected, "{name} within {text}");
    }
}

#[test]
fn waits_are_there_only_where_they_are_measured() {
    let _turn = alone();
    let (without, with) = (Metrics::start().unwrap(), with_waits());
    polls("yields", 11);
    const WAITS: &str = "pertask_task_wake_latency_seconds";
    assert!(!page(&without).families.contains_key(WAITS));
    let page = page(&with);
    assert_eq!(page.of_task("pertask_task_wake_latency_seconds_count", "yields"), 10.0);
    let histograms = page.histograms(WAITS);
    let (_, buckets) = histograms.iter().find(|(labels, _)| labels["name"] == "yields").unwrap();
    assert_eq!((buckets.len(), &*buckets[0].1), (14, "1.024e-06"));
}

/// Many short tasks on a runtime, and no figure falls for either of two scrapers, nor does a series go.
#[test]
fn no_counter_falls_and_no_series_goes_while_tasks_come_and_go() {
    let _turn = alone();
    let metrics = with_waits();
    let stop = support::StopOnDrop::default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    for name in ["a", "b", "c"] {
        let stop = stop.flag();
        runtime.spawn(async move {
            while !stop.load(SeqCst) {
                let nested = async {
                    spin(1);
                    tokio::task::yield_now().await;
                };
                let _ = tokio::spawn(nested.task(name)).await;
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        });
    }
    let scrapes = |format| {
        let mut last = Page::default();
        let mut rises = 0;
        for _ in 0..60 {
            let now = Page::of(&metrics.answer(format));
            for (series, before) in last.rising() {
                let after = now.samples.get(series);
                let after = after.unwrap_or_else(|| panic!("gone: {series:?}"));
                assert!(*after >= before, "{series:?} fell from {before} to {after}");
                rises += usize::from(*after > before);
            }
            last = now;
        }
        assert!(rises > 0);
        last
    };
    std::thread::scope(|scope| {
        let scrapers = FORMATS.map(|format| scope.spawn(move || scrapes(format)));
        for scraper in scrapers {
            assert!(scraper.join().unwrap().sum("pertask_tasks_spawned_total") > 0.0);
        }
    });
}

#[test]
fn a_poll_under_way_does_not_make_a_counter_fall_when_it_ends() {
    let _turn = alone();
    let metrics = Metrics::start().unwrap();
    let puppet = support::Puppet::new("polls");
    let end = Arc::new(AtomicBool::new(false));
    let ending = Arc::clone(&end);
    let done = puppet.begins(move || {
        let long = async move {
            while !ending.load(SeqCst) {
                spin(1);
            }
        };
        support::run(long.task("long"));
    });
    puppet.clock.wait_for(5);
    let mut last_ns = 0;
    let mut cpu_ns = || {
        let now_ns = ns(page(&metrics).of_task("pertask_task_cpu_seconds_total", "long"));
        assert!(now_ns >= last_ns, "{last_ns} {now_ns}");
        last_ns = now_ns;
        now_ns
    };
    let under_way = (0..20).map(|_| cpu_ns()).min().unwrap();
    assert!(under_way >= ms(2), "{under_way}");
    end.store(true, SeqCst);
    done.recv().unwrap();
    (0..3).for_each(|_| assert!(cpu_ns() >= under_way));
    puppet.ends();
}

#[test]
fn what_a_thread_used_before_its_first_task_stays_with_the_other_threads() {
    let _turn = alone();
    let metrics = Metrics::start().unwrap();
    let puppet = support::Puppet::new("late");
    let outside = || {
        let page = page(&metrics);
        ["other_threads", "workers"]
            .map(|place| ns(page.get("pertask_cpu_seconds_total", &[("where", place)])))
    };
    puppet.does(|| spin(60));
    let [others, workers] = outside();
    assert!(others >= ms(59), "{others}");
    puppet.does(|| support::run(async { spin(1) }.task("first")));
    let [others_later, workers_later] = outside();
    assert!(others_later >= others, "{others} {others_later}");
    assert!(workers_later - workers < ms(30), "{workers} {workers_later}");
    puppet.does(|| spin(60));
    let [_, workers_latest] = outside();
    assert!(workers_latest - workers_later >= ms(59), "{workers_later} {workers_latest}");
    puppet.ends();
    let [others_last, workers_last] = outside();
    assert!(others_last >= others_later && workers_last >= workers_latest);
}

#[test]
fn sites_beyond_the_limit_share_series_for_good() {
    let _turn = alone();
    let metrics = MetricsOptions { max_sites: 3, ..MetricsOptions::default() }.start().unwrap();
    let first = ["kept 0", "kept 1", "kept 2"];
    first.iter().for_each(|name| polls(name, 2));
    let before = page(&metrics);
    assert_eq!(before.get("pertask_sites_folded", &[]), 0.0);
    assert!(before.all_of_task("pertask_task_polls_total", "(other)").is_empty());
    for round in 1..=3 {
        (0..17).for_each(|number| polls(&format!("late {number}"), 100));
        first.iter().for_each(|name| polls(name, 2));
        let page = page(&metrics);
        let shown: BTreeSet<_> =
            page.samples.keys().filter_map(|(_, labels)| labels.get("name")).collect();
        assert_eq!(shown.len(), 4, "{shown:?}");
        for name in first {
            let polls = page.of_task("pertask_task_polls_total", name);
            assert_eq!(polls, f64::from(2 + 2 * round), "{name}");
        }
        let other = [("name", "(other)"), ("site", "")];
        assert_eq!(page.get("pertask_task_polls_total", &other), f64::from(1_700 * round));
        assert_eq!(page.get("pertask_tasks_spawned_total", &other), f64::from(17 * round));
        assert_eq!(page.get("pertask_sites", &[]), 3.0);
        assert_eq!(page.get("pertask_sites_folded", &[]), 17.0);
    }
}

#[test]
fn without_places_all_sites_share_series() {
    let _turn = alone();
    let metrics = MetricsOptions { max_sites: 0, ..MetricsOptions::default() }.start().unwrap();
    polls("one", 2);
    polls("(other)", 3);
    assert_eq!(page(&metrics).of_task("pertask_task_polls_total", "(other)"), 5.0);
}

#[test]
fn two_do_not_disturb_each_other_nor_a_session() {
    let _turn = alone();
    let session = Session::start().unwrap();
    let first = Metrics::start().unwrap();
    polls("shared", 5);
    let second = with_waits();
    polls("shared", 3);
    const POLLS: &str = "pertask_task_polls_total";
    assert_eq!(page(&first).of_task(POLLS, "shared"), 8.0);
    assert_eq!(page(&second).of_task(POLLS, "shared"), 3.0);
    drop(first);
    polls("shared", 2);
    assert_eq!(page(&second).of_task(POLLS, "shared"), 5.0);
    drop(second);
    assert_eq!(support::row(&session.stop(), "shared").usage.polls, 10);
}

#[test]
fn answers_are_counted_with_what_they_cost() {
    let _turn = alone();
    let metrics = Metrics::start().unwrap();
    let cost = |page: &Page| ns(page.get("pertask_scrapes_cpu_seconds_total", &[]));
    let first = page(&metrics);
    assert_eq!((first.get("pertask_scrapes_total", &[]), cost(&first)), (0.0, 0));
    let second = page(&metrics);
    assert_eq!(second.get("pertask_scrapes_total", &[]), 1.0);
    assert!(cost(&second) > 0);
    let mut lives = Box::pin(std::future::pending::<()>().task("has data"));
    let _ = poll_once(lives.as_mut());
    assert!(page(&metrics).get("pertask_task_data_bytes", &[]) > 0.0);
    let info = second.samples.keys().find(|(name, _)| name == "pertask_info").unwrap();
    assert_eq!(info.1["version"], env!("CARGO_PKG_VERSION"));
    assert!(info.1["clock"].contains("clock"));
}

#[test]
fn promtool_finds_nothing_to_say() {
    let _turn = alone();
    let metrics = with_waits();
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

/// The text of `docs/METRICS.md`.
fn manual() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/METRICS.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_manual_has_each_family_and_no_other() {
    let _turn = alone();
    let metrics = with_waits();
    polls("plain", 3);
    let manual = manual();
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| `pertask"));
    let documented: BTreeMap<String, String> = rows
        .map(|row| {
            let mut cells = row.split('|').map(str::trim);
            let name = cells.next().unwrap().trim_end_matches('`');
            (format!("pertask{name}"), cells.next().unwrap().to_owned())
        })
        .collect();
    let page = Page::of(&metrics.answer(OPEN_METRICS));
    let written: BTreeMap<String, String> = page
        .families
        .iter()
        .map(|(name, family)| {
            let suffix = match &*family.kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            (format!("{name}{suffix}"), family.kind.clone())
        })
        .collect();
    assert_eq!(documented, written);
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
    let server = Server::start(with_waits());
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

/// What a scrape costs. Not a test: `cargo test --release … -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_a_scrape_costs() {
    let _turn = alone();
    for (options, what) in [
        (MetricsOptions::default(), "without waits"),
        (MetricsOptions { wake_latency: true, ..MetricsOptions::default() }, "with waits"),
    ] {
        for (sites, tasks) in [(100, 1_000), (100, 10_000), (1_000, 10_000), (100, 100_000)] {
            let metrics = options.clone().start().unwrap();
            let idle = || async {
                yield_once().await;
                yield_once().await;
                std::future::pending::<()>().await;
            };
            let mut live: Vec<_> =
                (0..tasks).map(|task| Box::pin(idle().task(format!("{}", task % sites)))).collect();
            for task in &mut live {
                (0..3).for_each(|_| assert!(poll_once(task.as_mut()).is_pending()));
            }
            let mut costs: Vec<_> = (0..21)
                .map(|_| {
                    let began_ns = support::thread_cpu_ns();
                    let body = metrics.answer(OPEN_METRICS).body;
                    (support::thread_cpu_ns() - began_ns, body.len())
                })
                .collect();
            costs.sort_unstable();
            let ((least, _), (median, bytes)) = (costs[0], costs[10]);
            loudly(&format!(
                "{what}, {sites} sites, {tasks} tasks: {:.2} ms, at least {:.2} ms of CPU time; {} KiB",
                median as f64 / 1e6,
                least as f64 / 1e6,
                bytes / 1024
            ));
        }
    }
}
