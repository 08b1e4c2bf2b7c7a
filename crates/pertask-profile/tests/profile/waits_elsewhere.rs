//! Time off the CPU in pictures and in other tools' formats.

use pertask_profile::{FlamegraphOptions, Profile, RootBy, State, Weight};
use roxmltree::{Document, Node};
use serde_json::Value;

use crate::waits::profile;

fn drawn(profile: &Profile, options: &FlamegraphOptions) -> String {
    let mut svg = Vec::new();
    profile.write_flamegraph(options, &mut svg).expect("memory");
    String::from_utf8(svg).expect("UTF-8")
}

fn of_life() -> FlamegraphOptions {
    FlamegraphOptions { whole_life: true, ..FlamegraphOptions::default() }
}

/// Each box as its depth, its classes, its total and its tooltip's lines.
fn boxes<'a>(document: &'a Document<'_>) -> Vec<(u64, &'a str, u64, Vec<&'a str>)> {
    let is_box = |node: &Node<'_, '_>| {
        node.attribute("class").is_some_and(|class| class.starts_with("box "))
    };
    let number = |node: Node<'_, '_>, name| node.attribute(name).unwrap().parse().unwrap();
    let parts = |node: Node<'a, '_>| {
        let title = node.children().find(|it| it.has_tag_name("title")).unwrap();
        let class = node.attribute("class").unwrap();
        let lines = title.text().unwrap().lines().collect();
        (number(node, "data-depth"), class, number(node, "data-total"), lines)
    };
    document.descendants().filter(is_box).map(parts).collect()
}

/// The depth, class, name and milliseconds of each box.
fn outline(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).expect("XML");
    let boxes = boxes(&document);
    let line = |(depth, class, total, told): &(u64, &str, u64, Vec<&str>)| {
        format!("{depth} {} {} {}", &class["box ".len()..], told[0], total / 1_000_000)
    };
    boxes.iter().map(line).collect()
}

#[test]
fn a_life_has_a_box_for_each_state_below_its_task() {
    let svg = drawn(&profile(), &of_life());
    let expected = [
        "0 all all 1150",
        "1 root task GET /hash 480",
        "2 state blocked blocked 80",
        "3 blocked other words (off the CPU in a poll) 80",
        "2 state waiting waiting 400",
        "3 waiting own app::main 400",
        "4 waiting own app::pause::{{closure}} 100",
        "5 waiting lib <Sleep as Future>::poll 100",
        "4 waiting own app::query::{{closure}} 300",
        "5 waiting lib tokio::sync::Mutex<T>::lock 300",
        "1 root task GET /render 670",
        "2 state on-cpu on CPU 50",
        "3 on-cpu own app::main 50",
        "4 on-cpu own app::render 50",
        "2 state ready ready 20",
        "3 ready own app::main 20",
        "4 ready own app::query::{{closure}} 20",
        "5 ready lib tokio::sync::Mutex<T>::lock 20",
        "2 state waiting waiting 600",
        "3 waiting own app::main 600",
        "4 waiting own app::query::{{closure}} 600",
        "5 waiting lib tokio::sync::Mutex<T>::lock 600",
    ];
    assert_eq!(outline(&svg), expected);
    let document = Document::parse(&svg).expect("XML");
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    let texts: Vec<_> = texts.filter_map(|node| node.text()).collect();
    assert!(texts.contains(&"Whole lives by task: time on the CPU, blocked, ready and waiting"));
    for entry in ["task", "on CPU", "blocked", "ready", "waiting", "this program", "libraries"] {
        assert!(texts.contains(&entry), "{entry}: {texts:?}");
    }
    // Nothing is there of this kind.
    assert!(!texts.contains(&"outside tasks"));
}

#[test]
fn a_box_counts_what_its_state_counts() {
    let svg = drawn(&profile(), &of_life());
    let document = Document::parse(&svg).expect("XML");
    let boxes = boxes(&document);
    let last = |name: &str, total: u64| {
        let found = boxes.iter().find(|it| it.3[0] == name && it.2 == total * 1_000_000);
        found.unwrap().3.last().copied().unwrap()
    };
    assert_eq!(last("waiting", 600), "total 30 waits, own 0 waits");
    assert_eq!(last("on CPU", 50), "total 5 samples, own 0 samples");
    // Samples and waits are no sum, and being ready is not counted.
    assert!(last("GET /render", 670).starts_with("total 670 ms (58.26 %)"));
    assert!(last("ready", 20).starts_with("total 20.0 ms"));
    // By samples, a life would be a sum of samples and waits.
    let by_samples = FlamegraphOptions { weight: Weight::Samples, ..of_life() };
    assert_eq!(outline(&drawn(&profile(), &by_samples)), outline(&svg));
}

#[test]
fn a_life_is_bounded_like_any_picture() {
    let bounded = FlamegraphOptions { max_frames: 6, max_depth: 3, ..of_life() };
    let svg = drawn(&profile(), &bounded);
    let outline = outline(&svg);
    assert!(outline.len() <= 6 && outline.iter().all(|line| &line[..1] < "3"), "{outline:?}");
    assert!(svg.contains("not drawn: "), "{outline:?}");
}

#[test]
fn a_picture_of_a_state_says_which() {
    for (state, title, subtitle) in [
        (State::Waiting, "Waiting time by task", "1.00 s of waiting time in 42 waits over 2.50 s"),
        (State::Ready, "Ready time by task", "20.0 ms of ready time over 2.50 s"),
        (State::Blocked, "Blocked time by task", "80.0 ms of blocked time over 2.50 s"),
    ] {
        let svg = drawn(&profile().in_state(state), &FlamegraphOptions::default());
        assert!(svg.contains(&format!(">{title}<")), "{state:?}");
        assert!(svg.contains(&format!(">{subtitle}<")), "{state:?}: {}", &svg[svg.len() / 2..]);
    }
    let by_waits = FlamegraphOptions { weight: Weight::Samples, ..FlamegraphOptions::default() };
    let svg = drawn(&profile().in_state(State::Waiting), &by_waits);
    assert!(svg.contains(">Waits by task<") && svg.contains("total 42 waits (100.00 %)"));
    let none = drawn(
        &Profile { samples: Vec::new(), ..profile() }.in_state(State::OnCpu),
        &FlamegraphOptions::default(),
    );
    assert!(none.contains("(no CPU time: the profile has no samples"));
}

/// What is left out says least: nobody tells futures apart by `Future>::poll`.
#[test]
fn a_narrow_box_keeps_what_says_most_of_its_name() {
    let narrow = FlamegraphOptions { width_px: 300, ..FlamegraphOptions::default() };
    let svg = drawn(&profile().in_state(State::Waiting), &narrow);
    let document = Document::parse(&svg).expect("XML");
    let labels = document.descendants().filter(|node| node.has_tag_name("text"));
    let labels: Vec<_> = labels.filter_map(|node| node.text()).collect();
    assert!(labels.contains(&"app::query"), "{labels:?}");
}

#[test]
fn folded_lives_have_the_state_below_the_root() {
    let mut folded = Vec::new();
    profile().write_folded_lives(RootBy::TaskName, &mut folded).expect("memory");
    let expected = "\
GET /hash;blocked;(off the CPU in a poll) 80000000
GET /hash;waiting;app::main;app::pause::{{closure}};<Sleep as Future>::poll 100000000
GET /hash;waiting;app::main;app::query::{{closure}};tokio::sync::Mutex<T>::lock 300000000
GET /render;on-cpu;app::main;app::render 50000000
GET /render;ready;app::main;app::query::{{closure}};tokio::sync::Mutex<T>::lock 20000000
GET /render;waiting;app::main;app::query::{{closure}};tokio::sync::Mutex<T>::lock 600000000
";
    assert_eq!(String::from_utf8(folded).expect("UTF-8"), expected);
}

#[test]
fn speedscope_has_profiles_of_each_state_behind_those_of_cpu_time() {
    let json = speedscope(&profile());
    let names: Vec<_> = json["profiles"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    let expected = [
        "All tasks",
        "GET /render",
        "All tasks (waiting)",
        "GET /render (waiting)",
        "GET /hash (waiting)",
        "All tasks (ready)",
        "GET /render (ready)",
        "All tasks (blocked)",
        "GET /hash (blocked)",
    ];
    assert_eq!(names, expected);
    assert_eq!(json["profiles"][2]["endValue"], 1_000_000_000);
    let one = speedscope(&profile().in_state(State::Waiting));
    assert_eq!(one["profiles"][0]["name"], "All tasks (waiting)");
    assert_eq!(one["name"], "app (waiting time)");
    assert_eq!(one["profiles"].as_array().map(Vec::len), Some(3));
    // What is measured and not counted has no profiles of its numbers.
    let mut json = Vec::new();
    let to = &mut json;
    profile().write_speedscope("app", RootBy::TaskName, Weight::Samples, to).expect("memory");
    let json = String::from_utf8(json).expect("UTF-8");
    assert!(json.contains("All tasks (waiting)") && !json.contains("All tasks (ready)"), "{json}");
}

fn speedscope(profile: &Profile) -> Value {
    let mut json = Vec::new();
    let to = &mut json;
    profile.write_speedscope("app", RootBy::TaskName, Weight::Time, to).expect("memory");
    serde_json::from_slice(&json).expect("JSON")
}

fn firefox(profile: &Profile) -> Value {
    let mut json = Vec::new();
    profile.write_firefox("app", &mut json).expect("memory");
    serde_json::from_slice(&json).expect("JSON")
}

#[test]
fn firefox_has_tracks_of_each_state_behind_those_of_cpu_time() {
    let (all, cpu) = (firefox(&profile()), firefox(&profile().in_state(State::OnCpu)));
    let threads = all["threads"].as_array().unwrap();
    let names: Vec<_> = threads.iter().map(|thread| &thread["name"]).collect();
    let expected = [
        "GET /render",
        "GET /render (waiting)",
        "GET /hash (waiting)",
        "GET /render (ready)",
        "GET /hash (blocked)",
    ];
    assert_eq!(names, expected);
    // CPU tracks are as they are alone.
    assert_eq!(threads[0], cpu["threads"][0]);
    assert_eq!(all["meta"]["initialVisibleThreads"], serde_json::json!([0, 1, 2, 3, 4]));
    let hash = &threads[2]["samples"];
    assert_eq!(hash["weight"], serde_json::json!([300, 100]));
    assert_eq!(hash["weightType"], "tracing-ms");
    assert_eq!(hash["timeDeltas"], serde_json::json!([300.0, 100.0]));
    // The Profiler would draw them as idle.
    assert!(
        hash.get("threadCPUDelta").is_none()
            && cpu["threads"][0]["samples"]["threadCPUDelta"].is_array()
    );
    for (thread, color) in [(1, "blue"), (3, "yellow"), (4, "red")] {
        let category = threads[thread]["frameTable"]["category"][0].as_u64().unwrap() as usize;
        assert_eq!(all["meta"]["categories"][category]["color"], color, "{thread}");
    }
}

#[test]
fn a_profile_of_waits_has_its_tracks_alone() {
    let json = firefox(&profile().in_state(State::Waiting));
    let threads = json["threads"].as_array().unwrap();
    let names: Vec<_> = threads.iter().map(|thread| &thread["name"]).collect();
    assert_eq!(names, ["GET /render (waiting)", "GET /hash (waiting)"]);
}
