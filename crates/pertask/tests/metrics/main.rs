//! Answers to scrapes, as a reader sees them: a strict reader of our own, Prometheus's `promtool`, and Prometheus itself.

#[path = "../support/mod.rs"]
mod support;

mod page;
mod prometheus;

use page::{Page, Series};
use pertask::metrics::{Metrics, MetricsOptions};
use pertask::{LifeReport, Session, SessionOptions, SiteReport, TaskExt};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use support::{alone, loudly, ms, poll_once, spin, yield_once};

const OPEN_METRICS: Option<&str> = Some("application/openmetrics-text; version=1.0.0");
const TEXT: Option<&str> = Some("text/plain; version=0.0.4");
const FORMATS: [Option<&str>; 2] = [TEXT, OPEN_METRICS];

/// Whatever a format could trip over.
const HOSTILE: &str = "q\" b\\ \\n \\\" n\n# EOF\n# TYPE x counter\nx{a=\"b\"} 1\r\t\0 }=, é 漢 \u{1f600}\u{feff}\u{2028}";

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

fn with_waits_and_lives() -> Metrics {
    let options = MetricsOptions { wake_latency: true, life: true, ..MetricsOptions::default() };
    options.start().unwrap()
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

const LIFE: &str = "pertask_task_life_seconds_total";

/// The nanoseconds in each state, by the label's value.
fn states(page: &Page, name: &str) -> BTreeMap<String, u64> {
    let samples = page.samples.iter();
    let of_task = samples.filter(|((it, labels), _)| it == LIFE && labels["name"] == name);
    of_task.map(|((_, labels), value)| (labels["state"].clone(), ns(*value))).collect()
}

fn states_in_report(life: &LifeReport) -> BTreeMap<String, u64> {
    let LifeReport { on_cpu_ns, blocked_ns, ready_ns, waiting_ns, unknown_ns, inside_ns, new_ns } =
        *life;
    let states = [
        ("on_cpu", on_cpu_ns),
        ("blocked", blocked_ns),
        ("ready", ready_ns),
        ("waiting", waiting_ns),
        ("unknown", unknown_ns),
        ("inside", inside_ns),
        ("new", new_ns),
    ];
    states.map(|(state, ns)| (state.to_owned(), ns)).into()
}

/// The page is read between two reports, so it has at least what the first has, and at most what the last has.
#[test]
fn lives_are_those_of_a_report_and_their_states_add_up() {
    let _turn = alone();
    let session = SessionOptions { life: true, ..SessionOptions::default() }.start().unwrap();
    let (metrics, without) = (with_waits_and_lives(), with_waits());
    let mut waits = Box::pin(std::future::pending::<()>().task("waits"));
    let _ = poll_once(waits.as_mut());
    polls("ends", 5);
    support::run(async { spin(20) }.task("spins"));
    support::run(async { std::thread::sleep(Duration::from_millis(20)) }.task("blocks"));
    support::run(async { polls("inner", 4) }.task("outer"));
    let before = session.snapshot();
    let page = Page::of(&metrics.answer(OPEN_METRICS));
    let after = session.stop();
    for name in ["waits", "ends", "spins", "blocks", "inner", "outer"] {
        let life = |report| support::row(report, name).life.clone().unwrap();
        let (least, most, shown) = (life(&before), life(&after), states(&page, name));
        let all: u64 = shown.values().sum();
        assert!((least.life_ns()..=most.life_ns()).contains(&all), "{name}: {shown:?}");
        for ((state, least), most) in
            states_in_report(&least).into_iter().zip(states_in_report(&most).into_values())
        {
            assert!((least..=most).contains(&shown[&state]), "{name} {state}: {shown:?}");
        }
        assert_eq!(least == most, name != "waits", "the others have ended");
    }
    assert!(states(&page, "spins")["on_cpu"] >= ms(19), "{page:#?}");
    assert!(states(&page, "blocks")["blocked"] >= ms(19), "{page:#?}");
    assert!(states(&page, "waits")["waiting"] >= ms(38), "{page:#?}");
    assert!(states(&page, "outer")["inside"] > 0, "{page:#?}");
    assert!(!self::page(&without).families.contains_key("pertask_task_life_seconds"));
}

#[test]
fn lives_of_sites_beyond_the_limit_share_series() {
    let _turn = alone();
    let options = MetricsOptions { life: true, max_sites: 1, ..MetricsOptions::default() };
    let metrics = options.start().unwrap();
    polls("kept", 2);
    page(&metrics);
    for round in 1..=3 {
        (0..9).for_each(|number| polls(&format!("late {number}"), 3));
        let page = page(&metrics);
        let series = page.samples.keys().filter(|(name, _)| name == LIFE).count();
        assert_eq!(series, 14, "seven states of one site, and of all others");
        let polled: u64 =
            ["on_cpu", "blocked"].map(|state| states(&page, "(other)")[state]).iter().sum();
        let wall_ns = ns(page.of_task("pertask_task_poll_seconds_total", "(other)"));
        assert_eq!(polled, wall_ns, "round {round}");
    }
}

/// Many short tasks on a runtime, and no figure falls for either of two scrapers, nor does a series go.
#[test]
fn no_counter_falls_and_no_series_goes_while_tasks_come_and_go() {
    let _turn = alone();
    let metrics = with_waits_and_lives();
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

/// The text of `docs/METRICS.md`.
fn manual() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/METRICS.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_manual_has_each_family_and_no_other() {
    let _turn = alone();
    let options = MetricsOptions { wake_latency: true, life: true, ..MetricsOptions::default() };
    #[cfg(feature = "sampler")]
    let options = MetricsOptions { blocked: Some(Duration::from_secs(3600)), ..options };
    let metrics = options.start().unwrap();
    polls("plain", 3);
    let manual = manual();
    let is_here = |line: &&str| cfg!(feature = "sampler") || !line.contains("blocking");
    let rows = manual.lines().filter(is_here).filter_map(|line| line.strip_prefix("| `pertask"));
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

#[cfg(feature = "sampler")]
#[test]
fn polls_that_block_their_worker_are_counted_where_that_is_wanted() {
    let _turn = alone();
    let blocked = Some(Duration::from_millis(5));
    let metrics = MetricsOptions { blocked, ..MetricsOptions::default() }.start().unwrap();
    let counted = |what: &str| {
        let page = Page::of(&metrics.answer(OPEN_METRICS));
        let mut values = page.samples.iter().filter(|((name, labels), _)| {
            name == what && labels.get("name").is_some_and(|it| it == "blocks")
        });
        values.next().map_or(0.0, |(_, value)| *value)
    };
    let polls = || counted("pertask_task_blocking_polls_total");
    // However busy the machine is, the watch sees it at some time.
    let blocks = async {
        while polls() == 0.0 {
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    support::run(blocks.task("blocks"));
    assert_eq!(polls(), 1.0);
    assert!(counted("pertask_task_blocking_poll_seconds_total") >= 0.005);
}

/// What a scrape costs. Not a test: `cargo test --release … -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_a_scrape_costs() {
    let _turn = alone();
    for (options, what) in [
        (MetricsOptions::default(), "without waits"),
        (MetricsOptions { wake_latency: true, ..MetricsOptions::default() }, "with waits"),
        (MetricsOptions { life: true, ..MetricsOptions::default() }, "with lives"),
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
