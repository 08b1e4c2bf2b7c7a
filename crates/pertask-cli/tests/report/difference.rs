//! Two profiles, and files that are the difference of two.

use std::{
    fs,
    time::{Duration, UNIX_EPOCH},
};

use pertask::profile::{Profile, ProfileBuilder, Sample};
use serde_json::Value;

use crate::{
    amount, location, pprof,
    protobuf::{File, Value::Text},
    run::{Folder, error, json, on, read, text, text_of},
    task,
};

/// A recording of `GET /render` and `GET /hash` with so many samples of 10 ms.
fn profile(seconds: u64, line: u32, render: u64, hash: u64) -> Profile {
    let mut builder = ProfileBuilder::new("by hand", 10_000_000);
    builder.start(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let [main, digest] = ["app::main", "app::digest"].map(|name| location(&mut builder, name));
    for (name, count) in [("GET /render", render), ("GET /hash", hash)] {
        let stack = if name == "GET /hash" { vec![digest, main] } else { vec![main] };
        let task = Some(task(count, Some(name), line, None));
        let labels = vec![("route".into(), name.into())];
        builder.add(Sample { stack, task, labels, ..amount(count) });
    }
    builder.finish(Duration::from_secs(seconds))
}

/// Two files in a folder: in the second, of double length, `GET /hash` has become more.
fn files(test: &str) -> (Folder, [String; 2]) {
    let folder = Folder::new(test);
    let paths = ["before.pb.gz", "after.pb.gz"].map(|name| folder.path(name));
    fs::write(&paths[0], pprof(&profile(10, 80, 300, 100))).expect("to write");
    fs::write(&paths[1], pprof(&profile(20, 83, 610, 500))).expect("to write");
    (folder, paths)
}

/// What `go tool pprof -diff_base` writes, or `-base`.
fn difference(is_net: bool) -> Vec<u8> {
    let mut file = File::usual().period("cpu/nanoseconds", 1_000_000);
    let [work, rest] = ["work", "rest"].map(|name| file.location(&[name]));
    let base = [("pprof::base", Text("true"))];
    let base = if is_net { &[][..] } else { &base };
    file.sample(&[work], &[60, 60_000_000], &[]);
    file.sample(&[rest], &[-10, -10_000_000], base);
    file.written()
}

#[test]
fn two_profiles_are_compared_per_second_and_by_share() {
    let (_folder, [before, after]) = files("compared");
    let said = text(&on(b"", &["--diff", &before, &after, "--by", "site,label:route"]));
    let expected = format!(
        "\
before: {before}: 4.00 s of CPU time in 400 samples over 10.0 s: 0.40 CPUs busy
from 2023-11-14 22:13:20 UTC; by hand; a sample each 10.0 ms of CPU time; all stacks whole
after: {after}: 11.1 s of CPU time in 1110 samples over 20.0 s: 0.56 CPUs busy
from 2023-11-14 22:13:20 UTC; by hand; a sample each 10.0 ms of CPU time; all stacks whole
CPU time per second of recording: 400 ms before, 555 ms after: +38.7%
~ marks changes within the noise of sampling; of the others, one in 100 is expected to be noise after all

Tasks by site (CPU time per second; % of 4.00 s and 11.1 s)
BEFORE   AFTER   CHANGE  BEFORE%  AFTER%  POINTS    SAMPLES  TASK         SITE
100 ms  250 ms  +150.0%    25.0%   45.0%   +20.0  100 → 500  GET /hash    src/app.rs:83
300 ms  305 ms   ~+1.7%    75.0%   55.0%   -20.0  300 → 610  GET /render  src/app.rs:83

Label route (CPU time per second; % of 4.00 s and 11.1 s)
BEFORE   AFTER   CHANGE  BEFORE%  AFTER%  POINTS    SAMPLES  ROUTE
100 ms  250 ms  +150.0%    25.0%   45.0%   +20.0  100 → 500  GET /hash
300 ms  305 ms   ~+1.7%    75.0%   55.0%   -20.0  300 → 610  GET /render
"
    );
    assert_eq!(said, expected);
    // As for `go tool pprof`, the option may come after.
    assert_eq!(text(&on(b"", &[&after, "--by", "site,label:route", "--diff", &before])), expected);
}

#[test]
fn a_file_given_twice_differs_in_nothing() {
    let (_folder, [before, _]) = files("twice");
    let said = text(&on(b"", &["--diff", &before, &before]));
    assert!(said.contains("400 ms before, 400 ms after: +0.0%"), "{said}");
    assert_eq!(said.matches("nothing differs\n… and 2 rows within noise\n").count(), 3, "{said}");
    let said = text(&on(b"", &["--diff", &before, &before, "--top", "0"]));
    assert!(said.contains("~+0.0%") && said.contains("~0.0"), "{said}");
}

#[test]
fn one_profile_may_come_from_stdin() {
    let (_folder, [before, after]) = files("stdin");
    let bytes = fs::read(&after).expect("a file");
    let said = text_of(&["-", "--diff", &before, "--by", "site"], &bytes);
    assert!(said.contains("after: standard input: 11.1 s"), "{said}");
    let output = on(&bytes, &["-", "--diff", "-"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("stdin has room for one profile"));
}

#[test]
fn filters_are_for_both() {
    let (_folder, [before, after]) = files("filters");
    let arguments = ["--diff", &before, &after, "--task", "GET /hash"];
    let said = text(&on(b"", &arguments));
    assert!(said.contains("matched: 1.00 s (25.0%) in 100 samples: task GET /hash"), "{said}");
    assert!(said.contains("matched: 5.00 s (45.0%) in 500 samples: task GET /hash"), "{said}");
    assert!(!said.contains("render"), "{said}");
    let json = json(&on(b"", &[&arguments[..], &["--json"]].concat()));
    assert_eq!(json["before"]["matched"]["samples"], 100);
    assert_eq!(json["after"]["matched"]["samples"], 500);
    let stderr = error(&on(b"", &["--diff", &before, &after, "--task", "GET /hsh"]));
    assert!(stderr.contains("before.pb.gz and ") && stderr.contains("\"GET /hash\""), "{stderr}");
}

/// The fields of each object in `docs/PROFILE.md`, and those that are there.
#[test]
fn every_field_of_the_json_is_documented() {
    let docs = include_str!("../../../../docs/PROFILE.md");
    let (_folder, [before, after]) = files("documented");
    let json = json(&on(b"", &["--diff", &before, &after, "--json"]));
    assert!(docs.contains(&format!("`{}`", json["schema"].as_str().expect("a schema"))));
    let documented = |heading: &str| {
        let section = docs.split(&format!("## {heading}\n")).nth(1).expect(heading);
        let section = section.split("\n## ").next().expect("it begins");
        let lines = section.lines().filter_map(|line| line.strip_prefix("| `"));
        let mut fields: Vec<_> =
            lines.filter_map(|line| line.split('`').next()).map(str::to_owned).collect();
        fields.sort_unstable();
        fields
    };
    let found = |pointer: &str| {
        let object = json.pointer(pointer).and_then(Value::as_object).expect(pointer);
        let mut fields: Vec<_> = object.keys().cloned().collect();
        fields.sort_unstable();
        fields
    };
    assert_eq!(documented("The difference"), found(""));
    assert_eq!(documented("A table of differences"), found("/tables/0"));
    // Two objects have fields of others.
    let without = |fields: Vec<String>, some: &[&str]| {
        fields.into_iter().filter(|field| !some.contains(&field.as_str())).collect::<Vec<_>>()
    };
    let of_one = ["schema", "tables", "allocations"];
    let of_profile = without(documented("The profile"), &of_one);
    assert_eq!(of_profile, found("/before"));
    assert_eq!(of_profile, found("/after"));
    let is_amount = |field: &String| field.starts_with("self_") || field.starts_with("total_");
    let mut row = documented("A row");
    row.retain(|field| !is_amount(field));
    row.extend(documented("A row of differences"));
    row.sort_unstable();
    assert_eq!(row, found("/tables/0/rows/0"));
}

#[test]
fn json_has_what_the_tables_have() {
    let (_folder, [before, after]) = files("json");
    let json = json(&on(b"", &["--diff", &before, &after, "--json"]));
    assert_eq!((&json["is_net"], &json["noise_is_judged"]), (&false.into(), &true.into()));
    let tables: Vec<_> = json["tables"].as_array().expect("tables").iter().collect();
    let parts: Vec<_> = tables.iter().map(|it| format!("{} {}", it["by"], it["part"])).collect();
    let expected = [r#""site" "self""#, r#""function" "self""#, r#""function" "total""#];
    assert_eq!(parts, expected);
    let row = &tables[0]["rows"][0];
    for (field, value) in [
        ("name", Value::from("GET /hash")),
        ("before_cpu_ns", 1_000_000_000.into()),
        ("after_cpu_ns", 5_000_000_000u64.into()),
        ("before_samples", 100.into()),
        ("change_ns_per_s", 150_000_000.into()),
        ("change_share_ppm", 200_450.into()),
        ("rate_differs", true.into()),
        ("share_differs", true.into()),
    ] {
        assert_eq!(row[field], value, "{field}: {row}");
    }
    let noise = &tables[0]["rows"][1];
    assert_eq!(noise["rate_differs"], false);
    assert!(noise["rate_p"].as_f64().is_some_and(|p| p > 0.1 && p <= 1.0), "{noise}");
}

#[test]
fn what_cannot_be_compared_says_why_and_what_to_do() {
    let (folder, [before, _]) = files("other");
    let heap = folder.path("heap.pb");
    fs::write(&heap, File::of(&["alloc_space/bytes"]).written()).expect("to write");
    for files in [[&before, &heap], [&heap, &before]] {
        let stderr = error(&on(b"", &["--diff", files[0], files[1]]));
        let expected = format!(
            "cannot compare {before}, which is of CPU time, with {heap}, whose sample types (alloc_space/bytes) do not include CPU time. Name two CPU profiles."
        );
        assert!(stderr.contains(&expected), "{stderr}");
    }
    let two = folder.path("two.pb");
    fs::write(&two, difference(false)).expect("to write");
    for files in [[&before, &two], [&two, &before]] {
        let stderr = error(&on(b"", &["--diff", files[0], files[1]]));
        assert!(
            stderr.contains(&format!("cannot compare {two}: it is the difference")),
            "{stderr}"
        );
    }
    let missing = folder.path("missing.pb");
    let stderr = error(&on(b"", &["--diff", &missing, &before]));
    assert!(stderr.contains(&missing) && stderr.contains("Check the name"), "{stderr}");
}

#[test]
fn a_file_that_is_a_difference_shows_both_profiles() {
    let said = text_of(&["-"], &difference(false));
    let expected = "\
before: standard input: 10.0 ms of CPU time in 10 samples
a sample each 1.00 ms of CPU time; all stacks whole
after: standard input: 60.0 ms of CPU time in 60 samples
a sample each 1.00 ms of CPU time; all stacks whole
how long it was recorded is not known before and after, so that CPU time cannot be compared per second; shares can
~ marks changes within the noise of sampling; of the others, one in 100 is expected to be noise after all

Functions, self (CPU time; % of 10.0 ms and 60.0 ms)
 BEFORE    AFTER  BEFORE%  AFTER%  POINTS  SAMPLES  FUNCTION
10.0 ms     0 ns   100.0%    0.0%  -100.0   10 → 0  rest
   0 ns  60.0 ms     0.0%  100.0%  +100.0   0 → 60  work
";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn a_file_of_differences_alone_shows_them_with_their_sign() {
    let said = text_of(&["-"], &difference(true));
    let first = "standard input: the difference of two profiles: 60.0 ms more in some stacks, 10.0 ms less in others: +50.0 ms of CPU time in all\n";
    assert!(said.starts_with(first), "{said}");
    assert!(said.contains("  CHANGE  FUNCTION\n+60.0 ms  work\n-10.0 ms  rest\n"), "{said}");
    let json = json(&on(&difference(true), &["-", "--json"]));
    assert_eq!((&json["is_net"], &json["noise_is_judged"]), (&true.into(), &false.into()));
    for field in ["before_samples", "change_ns_per_s", "change_share_ppm", "rate_p"] {
        assert!(json["tables"][0]["rows"][0][field].is_null(), "{field}: {json}");
    }
}

/// Nothing in a picture can be less than nothing, so it says what it leaves out.
#[test]
fn pictures_are_of_growth_and_say_so() {
    let (folder, [before, after]) = files("growth");
    let [svg, folded] = ["a.svg", "a.folded"].map(|name| folder.path(name));
    let output = on(b"", &["--diff", &before, &after, "--flamegraph", &svg, "--folded", &folded]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("growth alone") && stderr.contains("0 ns that other"), "{stderr}");
    // Twice as long: what was 1.00 s would have been 2.00 s.
    let expected = "GET /hash;app::main;app::digest 3000000000\nGET /render;app::main 100000000\n";
    assert_eq!(read(&folded), expected);
    let svg = read(&svg);
    assert!(svg.contains("Growth of CPU time by task") && svg.contains("growth alone"), "{svg}");

    let output = on(&difference(true), &["-", "--folded", "-"]);
    assert_eq!(text(&output), "(outside tasks);work 60000000\n");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("10.0 ms that other stacks have less is left out"), "{stderr}");
}

#[test]
fn names_in_two_files_steer_no_terminal() {
    let nasty = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}\n";
    let folder = Folder::new("nasty");
    let mut file = File::usual();
    let work = file.location(&[nasty]);
    file.sample(&[work], &[60, 60_000_000], &[(nasty, Text(nasty))]);
    let path = folder.path("nasty.pb");
    fs::write(&path, file.written()).expect("to write");
    let other = folder.path("other.pb");
    let kind = format!("{nasty}/bytes");
    fs::write(&other, File::of(&[&kind]).written()).expect("to write");
    file.sample(&[work], &[-60, -60_000_000], &[]);
    let by = format!("label:{nasty}");
    for arguments in [
        &["--diff", &path, &path, "--top", "0"][..],
        &["--diff", &path, &path, "--top", "0", "--by", &by],
        &["--diff", &path, &path, "--json"],
        &["--diff", &path, &path, "--function", "x"],
        &["--diff", &path, &other],
        &["-", "--top", "0"],
    ] {
        let output = on(&file.written(), arguments);
        let all = [output.stdout, output.stderr].map(|out| String::from_utf8(out).expect("UTF-8"));
        let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!all.concat().contains(steers), "{arguments:?}: {all:?}");
    }
}
