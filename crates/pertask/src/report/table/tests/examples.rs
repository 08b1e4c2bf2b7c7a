//! The reports that are printed.

use super::*;

pub(super) fn busy_service() -> Report {
    Report {
        duration_ns: 10_004_312_876,
        process_cpu_ns: 23_418_225_107,
        tasks_cpu_ns: 20_611_903_441,
        workers_cpu_ns: 2_094_518_772,
        other_cpu_ns: 711_790_553,
        clock: "the thread CPU clock".into(),
        sites: busy_sites(),
        tree: busy_tree(),
        tasks: vec![
            task(11, Some("kafka_consumer"), Some(1), 140_204_551, None),
            task(18_412, Some("resize_image"), Some(18_377), 98_204_551, Some(141_204_551)),
            task(204, None, Some(3), 41_009_117, Some(412_004)),
            task(1, None, None, 39_112_004, None),
        ],
        threads: vec![
            thread("tokio-rt-worker", Some(41_203), 7_802_113_004, 7_022_004_118),
            thread("tokio-rt-worker", Some(41_204), 7_544_010_332, 6_911_440_021),
            thread("tokio-rt-worker", Some(41_205), 7_360_298_877, 6_678_459_302),
            thread("rdk:broker1", Some(41_210), 402_118_774, 0),
            thread("", None, 209_671_779, 0),
        ],
        ..Report::default()
    }
}

fn busy_sites() -> Vec<SiteReport> {
    let search = SiteReport {
        tasks_started: 18_233,
        tasks_live: 12,
        usage: Usage {
            polls: 1_204_551,
            cpu_ns: 5_310_774_219,
            wall_ns: 5_402_113_776,
            max_poll_ns: 12_904_118,
        },
        ..site(Some("GET /api/v1/search"), "src/search.rs", 141, 5_310_774_219, Some(12_904_118))
    };
    let consumer = "crates/ingest/src/consumer/partition_worker.rs";
    vec![
        site(Some("resize_image"), "src/handlers/image.rs", 88, 11_204_551_003, Some(141_204_551)),
        search,
        site(None, "/registry/hyper-util-0.1.21/src/rt/tokio.rs", 42, 2_204_119_872, Some(880_412)),
        site(Some("kafka_consumer"), consumer, 219, 1_019_335_004, None),
        site(Some("metrics_flush"), "src/telemetry/flush.rs", 33, 612_003_118, Some(9_102_774)),
        site(Some("session_gc"), "src/session.rs", 301, 210_004_551, Some(31_204_771)),
        site(None, "src/main.rs", 71, 39_112_004, None),
        site(Some("heartbeat"), "src/cluster/heartbeat.rs", 18, 9_204_771, Some(212_004)),
        site(Some("config_watch"), "src/config.rs", 90, 204_551, Some(88_012)),
    ]
}

/// The tree of spawns of the busy service: a front door, its routes, the tasks that they spawn, and a task deep down.
fn busy_tree() -> Vec<TreeReport> {
    vec![
        path(0, "accept", 1_019_335_004, 12_224_086_007),
        path(1, "GET /api/v1/search", 200_000, 11_204_751_003),
        path(2, "resize_image", 11_204_551_003, 11_204_551_003),
        path(0, "kafka_consumer", 1_019_335_004, 1_019_339_004),
        path(7, "far below", 4_000, 4_000),
    ]
}

/// A service whose names were chosen by someone unfriendly.
pub(super) fn nasty() -> Report {
    let names = [
        "\x1b[2Jcleared\n\r\u{7}",
        "画像をリサイズするワーカータスクの名前はとても長いので切らなければならない",
        "👨‍👩‍👧‍👦👨‍👩‍👧‍👦👨‍👩‍👧‍👦 ❤️❤️❤️❤️❤️❤️❤️❤️❤️❤️❤️❤️❤️❤️❤️❤️ 🏳️‍🌈",
        "a\u{301}\u{302}\u{303}é\u{202e}desrever\u{200b}\u{feff}",
        "",
        &"no_space_anywhere_".repeat(100),
    ];
    let sites = names.iter().map(|name| site(Some(name), name, 7, 1_000_000, Some(1)));
    let threads = names.iter().map(|name| thread(name, Some(7), 1_000_000, 1_000));
    Report {
        clock: format!("two\nlines {}", names.join(" ")),
        sites: sites.collect(),
        tree: names.iter().map(|name| path(0, name, 1_000_000, 1_000_000)).collect(),
        tasks: names.iter().map(|name| task(7, Some(name), Some(1), 1_000, Some(1))).collect(),
        threads: threads.collect(),
        ..busy_service()
    }
}

/// Every number as large as it can be.
pub(super) fn extreme() -> Report {
    const MAX: u64 = u64::MAX;
    let name = "long_name_".repeat(20);
    let usage = Usage { polls: MAX, cpu_ns: MAX, wall_ns: MAX, max_poll_ns: MAX };
    let all = MemoryCount { allocated_bytes: MAX, allocations: MAX, freed_bytes: MAX, frees: MAX };
    let life = LifeReport {
        on_cpu_ns: MAX,
        blocked_ns: MAX,
        ready_ns: MAX,
        waiting_ns: MAX,
        unknown_ns: MAX,
        inside_ns: MAX,
        new_ns: MAX,
    };
    let site = SiteReport {
        life: Some(life.clone()),
        memory: Some(all),
        tasks_started: MAX,
        tasks_live: MAX,
        usage: usage.clone(),
        ..site(Some(&name), &name, u32::MAX, MAX, Some(MAX))
    };
    Report {
        duration_ns: 1,
        process_cpu_ns: MAX,
        tasks_cpu_ns: MAX,
        unknown_cpu_ns: MAX,
        workers_cpu_ns: MAX,
        other_cpu_ns: MAX,
        clock: name.clone(),
        memory: Some(ProcessMemory {
            process: all,
            tasks: all,
            unknown: all,
            workers: all,
            other: MemoryCount::default(),
        }),
        sites: vec![
            site.clone(),
            SiteReport { usage: Usage { polls: 0, ..usage.clone() }, ..site },
        ],
        tree: vec![TreeReport {
            tasks_started: MAX,
            usage,
            life: Some(life),
            memory: Some(all),
            inclusive_memory: Some(all),
            ..path(u32::MAX, &name, MAX, MAX)
        }],
        tasks: vec![task(MAX, Some(&name), Some(MAX), MAX, Some(MAX)); 2],
        labels: vec![LabelReport {
            key: name.clone(),
            values: vec![
                LabelValueReport {
                    value: name.clone(),
                    cpu_ns: MAX,
                    life: None,
                    memory: Some(all)
                };
                3
            ],
            others_cpu_ns: MAX,
            others_life: None,
            others_memory: Some(all),
            without_cpu_ns: MAX,
            without_life: None,
            without_memory: Some(all),
        }],
        threads: vec![thread(&name, Some(u32::MAX), MAX, MAX), thread(&name, None, 0, MAX)],
        lost: Lost {
            tasks_without_data: MAX,
            tasks_without_site: MAX,
            tasks_without_path: MAX,
            label_sets_without_place: MAX,
            polls_untracked: MAX,
            polls_out_of_order: MAX,
            turns_without_counters: MAX,
            workers_without_counters: MAX,
        },
        ..Report::default()
    }
}

fn site(name: Option<&str>, file: &str, line: u32, cpu_ns: u64, max: Option<u64>) -> SiteReport {
    SiteReport {
        site: SpawnSite { name: name.map(str::to_owned), file: file.to_owned(), line },
        tasks_started: 41,
        tasks_live: 3,
        usage: Usage { polls: 987, cpu_ns, wall_ns: cpu_ns, max_poll_ns: max.unwrap_or(0) },
        counters: Vec::new(),
        wakes: None,
        life: None,
        memory: None,
    }
}

fn path(depth: u32, name: &str, cpu_ns: u64, inclusive_cpu_ns: u64) -> TreeReport {
    TreeReport {
        id: 7,
        parent: None,
        depth,
        site: SpawnSite {
            name: Some(name.to_owned()),
            file: "src/server/connections.rs".into(),
            line: 141,
        },
        tasks_started: 41,
        tasks_live: 3,
        usage: Usage { polls: 987, cpu_ns, wall_ns: cpu_ns, max_poll_ns: 0 },
        inclusive_cpu_ns,
        life: None,
        memory: None,
        inclusive_memory: None,
    }
}

fn task(
    id: u64,
    name: Option<&str>,
    parent: Option<u64>,
    cpu_ns: u64,
    max: Option<u64>,
) -> TaskReport {
    TaskReport {
        id,
        parent,
        site: SpawnSite { name: name.map(str::to_owned), file: "src/accept.rs".into(), line: 57 },
        usage: Usage { polls: 1_204, cpu_ns, wall_ns: cpu_ns, max_poll_ns: max.unwrap_or(0) },
        counters: Vec::new(),
        wakes: None,
        life: None,
        memory: None,
    }
}

fn thread(name: &str, tid: Option<u32>, cpu_ns: u64, tasks_cpu_ns: u64) -> ThreadReport {
    ThreadReport { name: name.to_owned(), tid, worker: tasks_cpu_ns > 0, cpu_ns, tasks_cpu_ns }
}

/// One site and its task, with events.
pub(super) fn counted() -> Report {
    let source = |event: &str, unit| CounterSource {
        event: event.into(),
        unit,
        modes: "uk".into(),
        source: Some("perf, a read at each switch".into()),
        refused: None,
    };
    let nowhere = CounterSource {
        source: None,
        refused: Some("ENOENT: no such event".into()),
        ..source("bus-cycles", None)
    };
    let count = |event: &str, count, estimated| Counter { event: event.into(), count, estimated };
    let counters = vec![
        count("cycles", Some(2_000_000), false),
        count("bus-cycles", None, false),
        count("instructions", Some(3_000_000), true),
        count("cache-misses", Some(4_500), false),
        count("task-clock", Some(7_000_000), false),
    ];
    Report {
        counters: vec![
            source("cycles", None),
            nowhere,
            source("instructions", None),
            source("cache-misses", None),
            source("task-clock", Some("ns".into())),
        ],
        sites: vec![SiteReport {
            counters: counters.clone(),
            ..site(Some("hash"), "src/hash.rs", 8, 7_000_000, None)
        }],
        tasks: vec![TaskReport { counters, ..task(7, Some("hash"), None, 7_000_000, None) }],
        ..busy_service()
    }
}
