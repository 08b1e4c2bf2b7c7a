//! Files of other programs: their names for CPU time, their labels, and what is wrong beside their samples.

use pertask_profile::{
    Filter, GroupBy, Profile, ReadError, ReadLimits, State, Subject, SummaryStyle, Weight,
};

use crate::example::{self, pprof};
use crate::protobuf::{
    File,
    Value::{self, Number, Text},
    bytes, number,
};

#[test]
fn cpu_time_and_counts_have_many_names() {
    let times = [
        ("cpu/nanoseconds", 1),
        ("cpu-time/nanoseconds", 1),
        ("cpu_time/ns", 1),
        ("CPU Time/us", 1_000),
        ("cpu/µs", 1_000),
        ("cpu/microsecond", 1_000),
        ("cpu/ms", 1_000_000),
        ("on-cpu/milliseconds", 1_000_000),
        ("cpu/s", 1_000_000_000),
        ("cpu/sec", 1_000_000_000),
        ("cpu/seconds", 1_000_000_000),
    ];
    for (name, unit) in times {
        let profile = read(&one_sample(&[name, "samples/count"], &[7, 3]));
        assert_eq!((profile.samples[0].time_ns, profile.samples[0].count), (7 * unit, 3), "{name}");
    }
    for name in ["sample/count", "samples/count", "cpu-samples/count", "count/count", "samples/"] {
        let profile = read(&one_sample(&["cpu/nanoseconds", name], &[7, 3]));
        assert!(profile.has_counts && profile.samples[0].count == 3, "{name}");
    }
    // Of several counts, the one of the CPU is meant.
    let names = ["alloc-samples/count", "sample/count", "cpu-samples/count", "cpu-time/ns"];
    assert_eq!(read(&one_sample(&names, &[1, 2, 3, 4])).samples[0].count, 3);
}

#[test]
fn wall_time_is_no_cpu_time() {
    for name in ["wall/nanoseconds", "cpu/cores", "cpu/count"] {
        let read = Profile::from_pprof(&one_sample(&[name], &[7]).written()[..]);
        assert!(matches!(read, Err(ReadError::NotCpuTime { .. })), "{name}: {read:?}");
    }
}

/// With and without a period, which does not say it either.
#[test]
fn a_number_of_samples_that_the_file_does_not_say_is_not_made_up() {
    let file = one_sample(&["cpu/nanoseconds"], &[999]);
    for file in [&file, &one_sample(&["cpu/nanoseconds"], &[999]).period("cpu/nanoseconds", 1_000)]
    {
        let profile = read(file);
        assert!(!profile.has_counts);
        assert_eq!((profile.whole().time_ns, profile.whole().samples), (999, 0));
        let style = SummaryStyle::default();
        let overview = profile.overview(style).to_string();
        assert!(overview.starts_with("999 ns of CPU time\n"), "{overview}");
        assert!(overview.contains("all stacks whole"), "{overview}");
        let table = profile.summary(&GroupBy::Function).table(style).to_string();
        let row: Vec<_> = table.lines().nth(2).expect("a row").split_whitespace().collect();
        assert_eq!(row, ["100.0%", "999", "ns", "100.0%", "999", "ns", "-", "work"], "{table}");
        // Written again, it still does not say.
        assert_eq!(&read_bytes(&pprof(&profile)), &profile);
        let mut folded = Vec::new();
        profile.write_folded(Default::default(), Weight::Samples, &mut folded).expect("memory");
        assert!(folded.is_empty());
    }
}

#[test]
fn a_picture_tells_of_no_samples_where_they_are_not_known() {
    let mut svg = Vec::new();
    let profile = read(&one_sample(&["cpu/nanoseconds"], &[999]));
    profile.write_flamegraph(&Default::default(), &mut svg).expect("memory");
    let svg = String::from_utf8(svg).expect("UTF-8");
    assert!(svg.contains("work") && !svg.contains("0 samples"), "{svg}");
}

#[test]
fn labels_of_other_programs_are_labels() {
    let labels = [
        ("site", Text("db.internal:5432")),
        ("task", Number(7)),
        ("task_name", Text("nightly")),
        ("scope", Text("request")),
        ("stack", Text("incomplete")),
        ("user.site", Text("west")),
        ("size", Number(0)),
    ];
    let profile = read(&labelled(&labels));
    let sample = &profile.samples[0];
    assert!(sample.task.is_none() && sample.scopes.is_empty() && sample.complete, "{sample:?}");
    let found: Vec<_> = sample.labels.iter().map(|(key, value)| (&**key, &**value)).collect();
    let expected = [
        ("site", "db.internal:5432"),
        ("task", "7"),
        ("task_name", "nightly"),
        ("scope", "request"),
        ("stack", "incomplete"),
        ("user.site", "west"),
        ("size", ""),
    ];
    assert_eq!(found, expected);
    // Once we have written it, it still has no tasks.
    assert_eq!(read_bytes(&pprof(&profile)), profile);
}

/// A file from before there was a mark has the words of its mechanism.
#[test]
fn our_files_are_known_by_a_comment() {
    for (comment, is_ours) in
        [("written by pertask", true), ("mechanism: by hand", true), ("made by hand", false)]
    {
        let mut file = labelled(&[("task_name", Text("nightly")), ("task", Number(7))]);
        file.text(13, comment);
        let task = read(&file).samples[0].task.clone();
        assert_eq!(task.is_some(), is_ours, "{comment}");
        assert_eq!(task.and_then(|task| task.id), is_ours.then_some(7), "{comment}");
    }
    let mut silent = example::profile();
    silent.mechanism.clear();
    silent.lost = Default::default();
    assert_eq!(read_bytes(&pprof(&silent)), silent);
}

/// What another program calls blocked or waiting may be of threads, or of anything: it is not what a task of ours does.
#[test]
fn time_off_the_cpu_is_read_from_our_files_alone() {
    for (comment, is_ours) in [("written by pertask", true), ("made by hand", false)] {
        let types = ["cpu/nanoseconds", "samples/count", "waiting/nanoseconds", "waits/count"];
        let mut file = one_sample(&types, &[7, 3, 40, 2]);
        file.text(13, comment);
        let profile = read(&file);
        assert_eq!((profile.whole().time_ns, profile.whole().samples), (7, 3), "{comment}");
        let waiting = profile.amount_in(State::Waiting);
        assert_eq!((waiting.time_ns, waiting.samples), if is_ours { (40, 2) } else { (0, 0) });
    }
}

#[test]
fn threads_have_many_names() {
    let cases: &[(&[(&str, Value<'_>)], &str)] = &[
        (&[("thread name", Text("io")), ("thread id", Text("31"))], "io [31]"),
        (&[("thread_name", Text("io")), ("thread_id", Number(17))], "io [17]"),
        (&[("Thread-Name", Text("io"))], "io"),
        (&[("thread", Text("io")), ("tid", Number(17))], "io [17]"),
        (&[("thread_id", Number(99))], "[99]"),
        (&[("thread id", Text("0x7f12"))], "0x7f12"),
        (&[("thread id", Number(1 << 40))], "1099511627776"),
        (&[("pid", Number(5))], "(unknown thread)"),
    ];
    for (labels, name) in cases {
        let profile = read(&labelled(labels));
        let rows = profile.summary(&GroupBy::Thread).rows;
        assert_eq!(rows[0].subject.to_string(), *name);
        let filter = Filter { thread: Some((*name).to_owned()), ..Filter::default() };
        assert_eq!(profile.filtered(&filter).samples.len(), 1, "{name}");
    }
    // What is no thread's stays a label.
    let profile = read(&labelled(&[("thread", Text("io")), ("tid", Text("the second"))]));
    assert_eq!(profile.samples[0].label("tid").map(|value| &**value), Some("the second"));
}

#[test]
fn each_value_of_a_label_is_found() {
    let mut file = File::usual();
    let work = file.location(&["work"]);
    file.sample(&[work], &[1, 10], &[("k", Text("a")), ("k", Text("b"))]);
    file.sample(&[work], &[1, 10], &[("k", Text("b"))]);
    let profile = read(&file);
    for (value, time_ns) in [("a", 10), ("b", 20), ("c", 0)] {
        let filter =
            Filter { labels: vec![("k".to_owned(), value.to_owned())], ..Filter::default() };
        assert_eq!(profile.filtered(&filter).whole().time_ns, time_ns, "{value}");
    }
    // Own time is a partition; in total, a sample is in each row that has a value of it.
    let rows = profile.summary(&GroupBy::Label("k".into())).rows;
    let row = |row: &pertask_profile::SummaryRow| match &row.subject {
        Subject::Label(value) => (value.to_string(), row.own.time_ns, row.total.time_ns),
        other => panic!("{other}"),
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    assert_eq!(rows, [("b".to_owned(), 10, 20), ("a".to_owned(), 10, 10)]);
}

#[test]
fn what_is_wrong_beside_the_samples_is_a_remark() {
    let mut file = File::usual().period("cpu/nanoseconds", -10);
    let work = file.location_in(9, &["work"]);
    let main = file.location_in(9, &["main"]);
    file.field(bytes(4, [number(1, 7), bytes(4, number(1, 99))].concat()));
    file.field(number(10, u64::MAX));
    file.sample(&[work, main], &[3, 30], &[]);
    let profile = read(&file);
    assert_eq!((profile.whole().time_ns, profile.whole().samples), (30, 3));
    assert_eq!((profile.period_ns, profile.duration_ns), (0, 0));
    assert_eq!(profile.locations[0].mapping, None);
    let said = profile.remarks.join("\n");
    for part in [
        "period is negative",
        "duration is negative",
        "2 locations of the file name a mapping that it does not have",
        "1 line of the file names a function that it does not have",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// Such as the names of generic types within generic types.
#[test]
fn a_name_that_is_too_long_loses_its_middle_and_is_counted() {
    let long = format!("<{}as Service>::call", "Layer<é, ".repeat(20_000));
    let mut file = File::usual();
    let stack = [file.location(&[&long]), file.location(&["main"])];
    file.sample(&stack, &[3, 30], &[]);
    let profile = read(&file);
    assert_eq!(profile.whole().samples, 3);
    let name = &profile.functions[0].name;
    assert!(name.len() <= 8 << 10 && name.starts_with("<Layer<"), "{} bytes", name.len());
    assert!(name.ends_with("Layer<é, as Service>::call") && name.contains('…'));
    assert_eq!(profile.lost.texts_cut, 1);
    assert!(profile.overview(SummaryStyle::default()).to_string().contains("lost: 1 name cut"));

    // Wherever a character is cut through, the rest of it goes.
    for most in 0..40 {
        let limits = ReadLimits { string_bytes: most, ..ReadLimits::default() };
        let mut file = File::usual();
        file.location(&["aé€😀".repeat(20).as_str()]);
        // The types' names are cut, too.
        let read = Profile::from_pprof_within(&file.written()[..], &limits);
        if let Ok(profile) = read {
            assert!(!profile.functions[0].name.contains('\u{fffd}'), "{most}");
            assert!(profile.functions[0].name.len() <= most as usize, "{most}");
        }
    }
}

#[test]
fn a_stack_that_is_too_deep_loses_its_callers_and_is_counted() {
    let mut file = File::usual();
    let (work, main) = (file.location(&["work"]), file.location(&["main"]));
    let deep: Vec<_> = std::iter::repeat_n(work, 5_000).chain([main]).collect();
    file.sample(&deep, &[2, 20], &[]);
    file.sample(&[work, main], &[1, 10], &[]);
    let profile = read(&file);
    assert_eq!(profile.whole().samples, 3);
    assert_eq!((profile.samples[0].stack.len(), profile.samples[0].complete), (4_096, false));
    assert_eq!((profile.lost.stacks_cut, profile.lost.stacks_incomplete), (2, 2));
    assert!(profile.samples[1].complete);
    let said = profile.overview(SummaryStyle::default()).to_string();
    assert!(said.contains("lost: 2 stacks cut") && said.contains("33.3% of the stacks"), "{said}");
}

/// In whole samples or in CPU time alone.
#[test]
fn a_difference_of_two_profiles_is_said_to_be_one() {
    for values in [[-2, -20], [2, -20], [-2, 20]] {
        let mut file = one_sample(&["samples/count", "cpu/nanoseconds"], &[3, 30]);
        file.sample(&[1], &values, &[]);
        let said = Profile::from_pprof(&file.written()[..]).expect_err("it is one");
        assert!(matches!(said, ReadError::Difference), "{said}");
        assert!(said.to_string().contains("pertask report FILE"), "{said}");
    }
    // What is not shown may be anything.
    let profile = read(&one_sample(&["samples/count", "cpu/ns", "wall/ns"], &[3, 30, -5]));
    assert_eq!(profile.whole().samples, 3);
}

fn one_sample(types: &[&str], values: &[i64]) -> File {
    let mut file = File::of(types);
    let stack = [file.location(&["work"]), file.location(&["main"])];
    file.sample(&stack, values, &[]);
    file
}

fn labelled(labels: &[(&str, Value<'_>)]) -> File {
    let mut file = File::usual();
    let work = file.location(&["work"]);
    file.sample(&[work], &[1, 10], labels);
    file
}

fn read(file: &File) -> Profile {
    read_bytes(&file.written())
}

fn read_bytes(file: &[u8]) -> Profile {
    Profile::from_pprof(file).expect("it is good")
}
