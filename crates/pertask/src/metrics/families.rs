//! The families of metrics, and the page that has them all.

use super::exposition::{Exposition, Family, Kind, Seconds, labels};
use super::figures::Figures;
use super::format::Format;
use super::life::Lives;
use super::sites::{Series, Sites};
use super::threads::ThreadTimes;
use crate::os::clock::Choice;
use crate::pmus::cpu_time::CpuTime;
use crate::pmus::life::Life;
use crate::pmus::wake::WakeLatency;
use pertask_core::{Pmu, PmuHandle};

/// The whole page.
pub(super) fn page(format: Format, figures: &Figures) -> String {
    let mut page = Exposition::new(format);
    of_sites(&mut page, &figures.sites);
    if figures.measures_waits {
        of_waits(&mut page, &figures.sites);
    }
    if figures.measures_lives {
        of_lives(&mut page, &figures.sites);
    }
    if figures.counts_blocked {
        of_blocked(&mut page, &figures.sites);
    }
    of_process(&mut page, figures);
    of_threads(&mut page, &figures.threads);
    of_pertask(&mut page, figures);
    page.finish()
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, unit: None, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, unit: None, help }
}

const fn in_seconds(family: Family) -> Family {
    Family { unit: Some("seconds"), ..family }
}

const TASK_CPU: Family = in_seconds(counter(
    "pertask_task_cpu_seconds",
    "CPU time inside tasks, user and system, by name and spawn site.",
));

const TASK_POLL: Family = in_seconds(counter(
    "pertask_task_poll_seconds",
    "Wall time inside polls of tasks, by name and spawn site.",
));

const TASK_POLLS: Family = counter("pertask_task_polls", "Polls of tasks, by name and spawn site.");

const SPAWNED: Family =
    counter("pertask_tasks_spawned", "Tasks made since counting began, by name and spawn site.");

const LIVE: Family = gauge("pertask_tasks_live", "Tasks alive, by name and spawn site.");

const LONGEST: Family = in_seconds(gauge(
    "pertask_task_longest_poll_seconds",
    "Wall time of the longest poll since counting began, polls under way included. It never falls.",
));

fn of_sites(page: &mut Exposition, sites: &Sites) {
    let mut seconds = |family: &Family, ns: fn(&Series) -> u64| {
        page.family(family);
        sites.series().for_each(|series| page.sample(&series.labels, Seconds(ns(series))));
    };
    seconds(&TASK_CPU, |series| series.cpu_ns.get());
    seconds(&TASK_POLL, |series| series.wall_ns.get());
    seconds(&LONGEST, |series| series.longest_poll_ns.get());
    let mut numbers = |family: &Family, number: fn(&Series) -> u64| {
        page.family(family);
        sites.series().for_each(|series| page.sample(&series.labels, number(series)));
    };
    numbers(&TASK_POLLS, |series| series.polls.get());
    numbers(&SPAWNED, |series| series.started.get());
    numbers(&LIVE, |series| series.live);
}

const WAITS: Family = Family {
    name: "pertask_task_wake_latency_seconds",
    kind: Kind::Histogram,
    unit: Some("seconds"),
    help: "Time that tasks waited between being woken and being polled, by name and spawn site.",
};

fn of_waits(page: &mut Exposition, sites: &Sites) {
    page.family(&WAITS);
    for series in sites.series() {
        if let Some(waits) = &series.waits {
            page.histogram(&series.labels, waits.cumulative());
        }
    }
}

const LIFE: Family = in_seconds(counter(
    "pertask_task_life_seconds",
    "Time that tasks were in each of their states, by name, spawn site and state. The states add up to their lives.",
));

fn of_lives(page: &mut Exposition, sites: &Sites) {
    page.family(&LIFE);
    for series in sites.series() {
        for (state, ns) in series.life.iter().flat_map(Lives::states) {
            let labels = format!("{},{}", series.labels, labels(&[("state", state)]));
            page.sample(&labels, Seconds(ns));
        }
    }
}

const BLOCKING: Family = counter(
    "pertask_task_blocking_polls",
    "Polls that blocked their worker for longer than a threshold, by name and spawn site.",
);

const BLOCKING_TIME: Family = in_seconds(counter(
    "pertask_task_blocking_poll_seconds",
    "Wall time of polls that blocked their worker for longer than a threshold, by name and spawn site.",
));

fn of_blocked(page: &mut Exposition, sites: &Sites) {
    page.family(&BLOCKING);
    sites.series().for_each(|it| page.sample(&it.labels, it.blocking_polls.get()));
    page.family(&BLOCKING_TIME);
    sites.series().for_each(|it| page.sample(&it.labels, Seconds(it.blocking_ns.get())));
}

const PROCESS_CPU: Family = in_seconds(counter(
    "pertask_process_cpu_seconds",
    "CPU time of the process since counting began, user and system.",
));

const CPU: Family = in_seconds(counter(
    "pertask_cpu_seconds",
    "CPU time of the process by where it went: in tasks, in workers outside tasks, in other threads, or unknown.",
));

fn of_process(page: &mut Exposition, figures: &Figures) {
    page.family(&PROCESS_CPU);
    page.sample("", Seconds(figures.process_cpu_ns.get()));
    let tasks_ns = figures.sites.series().map(|series| series.cpu_ns.get()).sum();
    page.family(&CPU);
    for (place, ns) in [
        ("tasks", tasks_ns),
        ("workers", figures.threads.workers_ns.get()),
        ("other_threads", figures.threads.others_ns.get()),
        ("unknown", figures.unknown_cpu_ns.get()),
    ] {
        page.sample(&labels(&[("where", place)]), Seconds(ns));
    }
}

const THREADS: Family = gauge("pertask_threads", "Threads alive, by whether they have run tasks.");

fn of_threads(page: &mut Exposition, threads: &ThreadTimes) {
    page.family(&THREADS);
    for (kind, count) in [("worker", threads.workers), ("other", threads.others)] {
        page.sample(&labels(&[("kind", kind)]), count);
    }
}

const LOST: Family = counter(
    "pertask_lost",
    "What could not be counted, by what it was. All are zero in a healthy program.",
);

const SITES: Family =
    gauge("pertask_sites", "Names and spawn sites that have series of their own.");

const FOLDED: Family = gauge(
    "pertask_sites_folded",
    "Names and spawn sites that share the series (other), for lack of places.",
);

const SCRAPES: Family = counter("pertask_scrapes", "Answers to scrapes before this one.");

const SCRAPES_CPU: Family =
    in_seconds(counter("pertask_scrapes_cpu_seconds", "CPU time that those answers took."));

const DATA: Family = Family {
    name: "pertask_task_data_bytes",
    kind: Kind::Gauge,
    unit: Some("bytes"),
    help: "Memory that holds what is measured of tasks. All sessions of the process share it.",
};

const STARTED: Family =
    in_seconds(gauge("pertask_start_time_seconds", "When counting began, since 1970."));

const INFO: Family = Family {
    name: "pertask",
    kind: Kind::Info,
    unit: None,
    help: "The version of pertask, and the clock that measures the tasks.",
};

fn of_pertask(page: &mut Exposition, figures: &Figures) {
    page.family(&LOST);
    for (what, shown) in &figures.lost {
        page.sample(&labels(&[("what", what)]), shown.get());
    }
    page.family(&SITES);
    page.sample("", figures.sites.own());
    page.family(&FOLDED);
    page.sample("", figures.sites.folded());
    page.family(&SCRAPES);
    page.sample("", figures.scrapes);
    page.family(&SCRAPES_CPU);
    page.sample("", Seconds(figures.scrapes_cpu_ns));
    page.family(&DATA);
    page.sample("", data_bytes(figures));
    page.family(&STARTED);
    page.sample("", Seconds(u64::try_from(figures.started.as_nanos()).unwrap_or(0)));
    page.family(&INFO);
    let clock = Choice::of_process().to_string();
    page.sample(&labels(&[("version", env!("CARGO_PKG_VERSION")), ("clock", &clock)]), 1);
}

/// The memory of the PMUs that measure something for these figures.
fn data_bytes(figures: &Figures) -> usize {
    fn of<P: Pmu, E>(handle: Result<PmuHandle<P>, E>) -> usize {
        handle.map_or(0, |handle| handle.cache().bytes())
    }
    let waits = || of(WakeLatency::handle());
    let lives = || of(Life::handle());
    of(CpuTime::handle())
        + figures.measures_waits.then(waits).unwrap_or_default()
        + figures.measures_lives.then(lives).unwrap_or_default()
}
