//! JSON reports, and what `docs/REPORT.md` says of them.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::pmus::counters::{Counter, CounterSource};
use crate::pmus::memory::count::MemoryCount;

use super::super::{BlockedLabel, BlockedReport, BlockedRow, BlockedState, StackFrame};
use super::super::{
    LabelReport, LabelValueReport, LifeReport, Lost, ProcessMemory, SCHEMA, SiteReport, SpawnSite,
    TaskReport, ThreadReport, TreeReport, Usage, WakeBucket, WakeReport,
};
use super::*;

/// The documented objects: the heading in `docs/REPORT.md`, and the pointer to an example in the JSON.
const OBJECTS: [(&str, &str); 19] = [
    ("The report", ""),
    ("A source of counts", "/counters/0"),
    ("A site", "/sites/0"),
    ("A counter", "/sites/0/counters/0"),
    ("Waits", "/sites/1/wakes"),
    ("A bucket", "/sites/1/wakes/histogram/0"),
    ("A life", "/sites/1/life"),
    ("The process's memory", "/memory"),
    ("Memory", "/sites/1/memory"),
    ("A spawn path", "/tree/1"),
    ("A task", "/tasks/0"),
    ("A label", "/labels/0"),
    ("A label's value", "/labels/0/values/0"),
    ("A thread", "/threads/0"),
    ("Blocking polls", "/blocked"),
    ("A row of blocking polls", "/blocked/rows/0"),
    ("A label of a task", "/blocked/rows/0/labels/0"),
    ("A frame of a stack", "/blocked/rows/0/stack/0"),
    ("Lost", "/lost"),
];

#[test]
fn every_field_is_documented_and_every_documented_field_exists() {
    let json = parsed(&example());
    for (heading, pointer) in OBJECTS {
        let types: BTreeMap<_, _> = object(&json, pointer)
            .iter()
            .map(|(field, value)| (field.clone(), type_of(value).to_owned()))
            .collect();
        let documented: BTreeMap<_, _> =
            documented(heading).into_iter().map(|field| (field.name, field.kind)).collect();
        assert_eq!(types, documented, "{heading}");
    }
}

#[test]
fn exactly_the_fields_documented_as_nullable_can_be_null() {
    let json = parsed(&unknowns());
    let blocked = parsed(&Report { blocked: Some(unknown_blocked()), ..unknowns() });
    for (heading, pointer) in OBJECTS {
        let json = if pointer.starts_with("/blocked") { &blocked } else { &json };
        // An object that is null itself has no fields that are.
        let object = json.pointer(pointer).and_then(Value::as_object);
        for field in documented(heading) {
            let null = object.is_some_and(|object| object[&field.name].is_null());
            assert_eq!(null, field.null != "never", "{heading}: {}", field.name);
        }
    }
}

#[test]
fn the_documented_example_is_a_real_one() {
    let docs = docs();
    let (_, after) = docs.split_once("```json\n").expect("an example");
    let (shown, _) = after.split_once("\n```").expect("its end");
    assert_eq!(shown, example().to_json());
}

#[test]
fn the_documented_schema_is_the_one_written() {
    assert!(docs().contains(&format!("`{SCHEMA}`")));
    assert_eq!(parsed(&example())["schema"], SCHEMA);
}

#[test]
fn numbers_and_names_survive() {
    let name = "a \"quoted\"\nname, \u{1b}[31m, 画像 👩‍👩‍👧";
    let mut report = example();
    report.process_cpu_ns = u64::MAX;
    report.sites[0].site.name = Some(name.to_owned());
    let json = parsed(&report);
    assert_eq!(json["process_cpu_ns"].as_u64(), Some(u64::MAX));
    assert_eq!(json["sites"][0]["name"], name);
    assert_eq!(json["sites"][0]["cpu_ns"], 11_204_551_003_u64);
    assert_eq!(json["threads"][1]["tid"], Value::Null);
    assert_eq!(json["lost"]["polls_untracked"], 1);
}

#[test]
fn what_was_written_is_read() {
    for report in [example(), unknowns()] {
        assert_eq!(Report::from_json(&report.to_json()).expect("a report"), report);
    }
    let newer = example().to_json().replacen('{', "{ \"later\": [1],", 1);
    assert_eq!(Report::from_json(&newer).expect("a report"), example());
    let other = example().to_json().replace(SCHEMA, "pertask.report/2");
    let refused = Report::from_json(&other).expect_err("another schema").to_string();
    assert!(refused.contains("pertask.report/2") && refused.contains(SCHEMA), "{refused}");
}

/// A row of a table of fields.
struct Field {
    name: String,
    kind: String,
    null: String,
}

/// The fields listed below `heading`, by columns: field, type, unit, null, meaning.
fn documented(heading: &str) -> Vec<Field> {
    let docs = docs();
    let start = docs.find(&format!("## {heading}\n")).expect("the heading");
    let section = &docs[start + 3..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [name, kind, null] = [1, 2, 4].map(|at| cells[at].trim_matches('`').to_owned());
        Field { name, kind, null }
    })
    .collect()
}

/// Reads the file when the test runs, because a packaged crate does not have it.
fn docs() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/REPORT.md");
    fs::read_to_string(path).expect("docs/REPORT.md")
}

fn parsed(report: &Report) -> Value {
    serde_json::from_str(&report.to_json()).expect("JSON")
}

fn object<'a>(json: &'a Value, pointer: &str) -> &'a serde_json::Map<String, Value> {
    json.pointer(pointer).and_then(Value::as_object).expect("an object")
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The example of the documentation: every field has a value in the row that `OBJECTS` points to.
fn example() -> Report {
    Report {
        schema: SCHEMA.into(),
        duration_ns: 10_004_312_876,
        process_cpu_ns: 13_547_865_899,
        tasks_cpu_ns: 11_243_663_007,
        unknown_cpu_ns: 12_450,
        workers_cpu_ns: 2_094_518_772,
        other_cpu_ns: 209_671_779,
        clock: "thread CPU clock (perf events refused: kernel.perf_event_paranoid is 4)".into(),
        counters: vec![source()],
        memory: Some(process_memory()),
        memory_source: Some("pertask::Alloc".into()),
        sites: vec![site(), SiteReport { site: nameless(main()), ..main_site() }],
        tree: vec![main_path(), path()],
        tasks: vec![task()],
        labels: vec![tenant()],
        threads: vec![worker(), ended_threads()],
        blocked: Some(blocked()),
        lost: Lost { polls_untracked: 1, ..Lost::default() },
    }
}

/// A report in which every field that can be null is null.
fn unknowns() -> Report {
    Report {
        counters: vec![CounterSource { unit: None, source: None, refused: None, ..source() }],
        memory: None,
        memory_source: None,
        sites: vec![
            SiteReport {
                site: nameless(resize_image()),
                counters: vec![Counter { count: None, ..counter(0) }],
                wakes: None,
                life: None,
                memory: None,
                ..site()
            },
            SiteReport { wakes: Some(no_waits()), ..site() },
        ],
        tree: vec![
            main_path(),
            TreeReport {
                parent: None,
                site: nameless(resize_image()),
                life: None,
                memory: None,
                inclusive_memory: None,
                ..path()
            },
        ],
        tasks: vec![TaskReport {
            parent: None,
            site: nameless(resize_image()),
            wakes: None,
            life: None,
            memory: None,
            ..task()
        }],
        threads: vec![ended_threads()],
        labels: vec![LabelReport {
            values: vec![LabelValueReport {
                life: None,
                memory: None,
                ..tenant().values.remove(0)
            }],
            others_life: None,
            others_memory: None,
            without_life: None,
            without_memory: None,
            ..tenant()
        }],
        blocked: None,
        ..example()
    }
}

fn blocked() -> BlockedReport {
    BlockedReport {
        threshold_ns: 10_000_000,
        polls: 2,
        total_ns: 153_512_804,
        rows: vec![blocked_row()],
        polls_without_row: 0,
        polls_without_stack: 0,
        remarks: vec![],
    }
}

fn blocked_row() -> BlockedRow {
    BlockedRow {
        site: resize_image(),
        state: BlockedState::Blocked,
        call: Some("fsync".into()),
        polls: 2,
        under_way: 0,
        total_ns: 153_512_804,
        max_ns: 141_204_551,
        at_least: false,
        cpu_ns: 1_204_551,
        task: 18_412,
        tid: 41_203,
        labels: vec![BlockedLabel { key: "tenant".into(), value: "acme".into() }],
        place: Some(store()),
        stack: vec![store()],
        stack_complete: true,
    }
}

fn store() -> StackFrame {
    StackFrame {
        address: 94_072_306_140_210,
        function: Some("image_service::handlers::image::store".into()),
        file: Some("src/handlers/image.rs".into()),
        line: Some(131),
    }
}

fn unknown_blocked() -> BlockedReport {
    let frame = StackFrame { function: None, file: None, line: None, ..store() };
    let (site, stack) = (nameless(resize_image()), vec![frame]);
    let row = BlockedRow { site, call: None, place: None, stack, ..blocked_row() };
    BlockedReport { rows: vec![row], ..blocked() }
}

fn tenant() -> LabelReport {
    LabelReport {
        key: "tenant".into(),
        values: vec![LabelValueReport {
            value: "acme".into(),
            cpu_ns: 10_913_220_118,
            life: Some(life()),
            memory: Some(memory(9_437_184, 1_204)),
        }],
        others_cpu_ns: 290_440_002,
        others_life: Some(life()),
        others_memory: Some(memory(262_144, 90)),
        without_cpu_ns: 40_002_887,
        without_life: Some(life()),
        without_memory: Some(memory(4_096, 12)),
    }
}

fn nameless(site: SpawnSite) -> SpawnSite {
    SpawnSite { name: None, ..site }
}

fn waits() -> WakeReport {
    WakeReport {
        count: 9_461,
        p50_ns: Some(10_240),
        p90_ns: Some(40_960),
        p99_ns: Some(1_310_720),
        max_ns: Some(41_943_040),
        histogram: vec![WakeBucket { most_ns: Some(10_240), count: 5_020 }],
    }
}

fn life() -> LifeReport {
    LifeReport {
        on_cpu_ns: 11_204_551_003,
        blocked_ns: 493_649_111,
        ready_ns: 104_822_906,
        waiting_ns: 31_840_117_220,
        unknown_ns: 3_120_559,
        inside_ns: 0,
        new_ns: 2_204_118,
    }
}

fn memory(bytes: u64, allocations: u64) -> MemoryCount {
    MemoryCount {
        allocated_bytes: bytes,
        allocations,
        freed_bytes: bytes / 8 * 7,
        frees: allocations / 8 * 7,
    }
}

fn process_memory() -> ProcessMemory {
    let (tasks, unknown) = (memory(8_594_128_896, 51_232), memory(4_096, 2));
    let (workers, other) = (memory(104_857_600, 80_000), memory(1_048_576, 960));
    let process = tasks.plus(unknown).plus(workers).plus(other);
    ProcessMemory { process, tasks, unknown, workers, other }
}

/// Waits of which no percentile is known.
fn no_waits() -> WakeReport {
    let histogram = vec![WakeBucket { most_ns: None, count: 1 }];
    WakeReport { count: 1, histogram, ..WakeReport::default() }
}

fn source() -> CounterSource {
    CounterSource {
        event: "task-clock".into(),
        unit: Some("ns".into()),
        modes: "u".into(),
        source: Some("perf, a read at each switch; user mode only".into()),
        refused: Some("kernel mode: EACCES: kernel.perf_event_paranoid is 2: lower it to 1 (sysctl), or give CAP_PERFMON".into()),
    }
}

fn counter(count: u64) -> Counter {
    Counter { event: "task-clock".into(), count: Some(count), estimated: false }
}

fn resize_image() -> SpawnSite {
    let name = Some("resize_image".into());
    SpawnSite { name, file: "src/handlers/image.rs".into(), line: 88 }
}

fn main() -> SpawnSite {
    SpawnSite { file: "src/main.rs".into(), line: 71, ..resize_image() }
}

fn usage() -> Usage {
    Usage {
        polls: 9_874,
        cpu_ns: 11_204_551_003,
        wall_ns: 11_698_200_114,
        max_poll_ns: 141_204_551,
    }
}

fn main_usage() -> Usage {
    Usage { polls: 1_204, cpu_ns: 39_112_004, wall_ns: 41_220_118, ..usage() }
}

fn site() -> SiteReport {
    SiteReport {
        site: resize_image(),
        tasks_started: 412,
        tasks_live: 1,
        usage: usage(),
        counters: vec![counter(10_988_100_412)],
        wakes: Some(waits()),
        life: Some(life()),
        memory: Some(memory(8_589_934_592, 49_184)),
    }
}

fn main_site() -> SiteReport {
    SiteReport {
        site: main(),
        tasks_started: 0,
        usage: main_usage(),
        counters: vec![counter(38_604_117)],
        memory: Some(memory(4_194_304, 2_048)),
        ..site()
    }
}

fn path() -> TreeReport {
    TreeReport {
        id: 3,
        parent: Some(0),
        depth: 1,
        site: resize_image(),
        tasks_started: 412,
        tasks_live: 1,
        usage: usage(),
        inclusive_cpu_ns: 11_204_551_003,
        life: Some(life()),
        memory: Some(memory(8_589_934_592, 49_184)),
        inclusive_memory: Some(memory(8_589_934_592, 49_184)),
    }
}

fn main_path() -> TreeReport {
    TreeReport {
        id: 0,
        parent: None,
        depth: 0,
        site: SpawnSite { name: None, ..main() },
        tasks_started: 0,
        usage: main_usage(),
        inclusive_cpu_ns: 11_243_663_007,
        memory: Some(memory(4_194_304, 2_048)),
        inclusive_memory: Some(memory(8_594_128_896, 51_232)),
        ..path()
    }
}

fn task() -> TaskReport {
    TaskReport {
        id: 18_412,
        parent: Some(1),
        site: resize_image(),
        usage: Usage {
            polls: 31,
            cpu_ns: 98_204_551,
            wall_ns: 101_330_118,
            max_poll_ns: 12_204_551,
        },
        counters: vec![counter(96_112_008)],
        wakes: Some(waits()),
        life: Some(life()),
        memory: Some(memory(67_108_864, 384)),
    }
}

fn worker() -> ThreadReport {
    ThreadReport {
        name: "tokio-rt-worker".into(),
        tid: Some(41_203),
        worker: true,
        cpu_ns: 13_338_181_779,
        tasks_cpu_ns: 11_243_663_007,
    }
}

fn ended_threads() -> ThreadReport {
    ThreadReport {
        name: "(ended threads)".into(),
        tid: None,
        worker: false,
        cpu_ns: 209_671_779,
        tasks_cpu_ns: 0,
    }
}
