//! Summaries: their parts add up, recursion counts once, and names cannot control a terminal.

use pertask_profile::{
    Amount, Function, GroupBy, Line, Location, LocationId, Lost, Profile, ProfileBuilder, Sample,
    Subject, Summary, SummaryStyle, TaskRef,
};
use std::time::Duration;

use crate::example::{self, amount};

fn every_group() -> Vec<GroupBy> {
    use GroupBy::{Function, Label, Place, Scope, Site, Task, Thread, Waker};
    vec![
        Site,
        Task,
        Function,
        Place,
        Waker,
        Thread,
        Scope,
        Label("tenant".into()),
        Label("no such".into()),
    ]
}

/// Name, own and total CPU time in ms.
fn rows(summary: &Summary) -> Vec<(String, u64, u64)> {
    let ms = |amount: Amount| amount.time_ns / 1_000_000;
    let rows = summary.rows.iter();
    rows.map(|row| (row.subject.to_string(), ms(row.own), ms(row.total))).collect()
}

fn expect(by: &GroupBy, expected: &[(&str, u64, u64)]) {
    let expected: Vec<_> =
        expected.iter().map(|(n, own, all)| ((*n).to_owned(), *own, *all)).collect();
    assert_eq!(rows(&example::profile().summary(by)), expected, "{by:?}");
}

#[test]
fn own_amounts_add_up_to_the_whole_however_they_are_grouped() {
    let profile = example::profile();
    for by in every_group() {
        let summary = profile.summary(&by);
        let own = summary.rows.iter().fold(Amount::default(), |sum, row| sum.plus(row.own));
        assert_eq!((own, summary.whole), (profile.whole(), profile.whole()), "{by:?}");
        assert_eq!(own, Amount { time_ns: 100_000_000, samples: 10 });
    }
}

#[test]
fn each_group_has_its_rows() {
    expect(
        &GroupBy::Site,
        &[("GET /render", 50, 50), ("GET /hash", 40, 40), ("(outside tasks)", 10, 10)],
    );
    expect(
        &GroupBy::Task,
        &[
            ("GET /hash", 40, 40),
            ("GET /render", 30, 30),
            ("GET /render", 20, 20),
            ("(outside tasks)", 10, 10),
        ],
    );
    expect(&GroupBy::Thread, &[("worker [4711]", 100, 100)]);
    expect(&GroupBy::Label("tenant".into()), &[("(no such label)", 60, 60), ("acme", 40, 40)]);
    expect(&GroupBy::Label("other".into()), &[("(no such label)", 100, 100)]);
}

/// `service::inlined` stands innermost at its location, above `service::handle` into which it was inlined.
#[test]
fn functions_have_what_they_spent_themselves_and_with_what_they_called() {
    expect(
        &GroupBy::Function,
        &[
            ("service::render", 50, 50),
            ("service::hash", 40, 40),
            ("libc.so.6+0x244", 10, 10),
            ("service::handle", 0, 90),
            ("service::inlined", 0, 90),
            ("service::main", 0, 60),
        ],
    );
}

#[test]
fn the_innermost_scope_has_the_time_as_its_own() {
    expect(&GroupBy::Scope, &[("(no scope)", 60, 60), ("digest", 40, 40), ("parse", 0, 40)]);
}

#[test]
fn recursion_is_counted_once_directly_and_through_others_and_inlined() {
    let mut builder = example::builder();
    let [odd, even] = ["odd", "even"].map(|name| place(&mut builder, &[name]));
    let both = place(&mut builder, &["even", "odd", "even"]);
    builder.add(Sample { stack: vec![odd, even, odd, odd, even], ..amount(3) });
    builder.add(Sample { stack: vec![both, both], ..amount(2) });
    let summary = builder.finish(Duration::ZERO).summary(&GroupBy::Function);
    assert_eq!(rows(&summary), [("odd".to_owned(), 30, 50), ("even".to_owned(), 20, 50)]);
}

#[test]
fn functions_of_one_name_share_a_row_if_they_share_their_file() {
    let mut builder = example::builder();
    let mut function = |address, name: &str, file: &str| {
        let function = Function { name: name.into(), file: file.into(), ..Function::default() };
        let lines = vec![Line { function: builder.function(function), line: 0 }];
        let stack = vec![builder.location(Location { address, lines, ..Location::default() })];
        builder.add(Sample { stack, ..amount(1) });
    };
    for (address, name, file) in
        [(1, "a", "x.rs"), (2, "a", "x.rs"), (3, "b", "x.rs"), (4, "b", "y.rs")]
    {
        function(address, name, file);
    }
    let summary = builder.finish(Duration::ZERO).summary(&GroupBy::Function);
    let files: Vec<_> = summary.rows.iter().map(|row| row.subject.clone()).collect();
    let subject = |name: &str, file: Option<&str>| Subject::Function {
        name: name.into(),
        file: file.map(Into::into),
    };
    let expected =
        [subject("a", Some("x.rs")), subject("b", Some("x.rs")), subject("b", Some("y.rs"))];
    assert_eq!(files, expected);
    assert_eq!(rows(&summary).iter().map(|row| row.1).collect::<Vec<_>>(), [20, 10, 10]);
    // Such short names do not say which function it is.
    let table = summary.table(SummaryStyle::default()).to_string();
    assert!(
        table.lines().nth(1).is_some_and(|titles| titles.ends_with("FUNCTION  FILE")),
        "{table}"
    );
    assert!(table.ends_with("b         y.rs"), "{table}");
    // The functions of the example have a path.
    let summary = example::profile().summary(&GroupBy::Function);
    let table = summary.table(SummaryStyle::default()).to_string();
    assert!(!table.contains("FILE"), "{table}");
}

#[test]
fn samples_without_a_stack_have_a_row() {
    let mut builder = example::builder();
    builder.add(amount(1));
    let summary = builder.finish(Duration::ZERO).summary(&GroupBy::Function);
    assert_eq!(rows(&summary), [("(no stack)".to_owned(), 10, 10)]);
}

#[test]
fn a_table_cuts_off_rows_and_counts_them() {
    let profile = example::profile();
    let table = |max_rows| {
        let style = SummaryStyle { max_rows, ..SummaryStyle::default() };
        profile.summary(&GroupBy::Function).table(style).to_string()
    };
    assert_eq!(table(usize::MAX).lines().count(), 2 + 6);
    let two = table(2);
    assert!(two.starts_with("Functions (% of 100 ms)\nSELF%"), "{two}");
    assert!(two.ends_with("\n… and 4 more rows, 10.0 ms self"), "{two}");
    // The last three functions only called others.
    for enough in [3, 6] {
        assert!(table(enough).ends_with("… and 3 more rows, 0 ns self"));
        assert_eq!(table(enough).lines().count(), 2 + 3 + 1);
    }
}

#[test]
fn an_overview_says_how_it_was_sampled_and_what_was_lost() {
    let text = example::profile().overview(SummaryStyle::default()).to_string();
    let expected = "\
100 ms of CPU time in 10 samples over 2.50 s: 0.04 CPUs busy
from 2023-11-14 22:13:20 UTC; by hand; a sample each 10.0 ms of CPU time; 60.0% of the stacks whole
lost: 7 samples dropped
labels: tenant";
    assert_eq!(text, expected);
}

#[test]
fn one_of_anything_is_singular() {
    let lost = Lost {
        samples_dropped: 1,
        stacks_incomplete: 1,
        samples_folded: 1,
        locations_folded: 1,
        texts_folded: 1,
        texts_cut: 1,
        stacks_cut: 1,
        threads_not_sampled: 1,
        unsampled_cpu_ns: 1,
    };
    let words = "1 sample dropped, 1 stack incomplete, 1 sample folded, 1 location folded, 1 name folded, \
                 1 name cut, 1 stack cut, 1 thread not sampled, 1 ns of CPU time not sampled";
    assert_eq!(lost.to_string(), words);

    let mut profile = example::builder().finish(Duration::ZERO);
    let remarks = |profile: &Profile| profile.overview(SummaryStyle::default()).to_string();
    profile.remarks = vec!["odd".to_owned(); 6];
    assert!(remarks(&profile).ends_with("\n… and 1 more remark"), "{}", remarks(&profile));
    profile.remarks.push("odd".to_owned());
    assert!(remarks(&profile).ends_with("\n… and 2 more remarks"), "{}", remarks(&profile));
}

#[test]
fn an_overview_tells_of_time_in_no_sample_and_of_remarks() {
    let mut profile = example::profile();
    (profile.lost.unsampled_cpu_ns, profile.lost.threads_not_sampled) = (5_200_000, 2);
    profile.remarks = vec!["no symbols of libx.so: it is stripped".to_owned()];
    let text = profile.overview(SummaryStyle::default()).to_string();
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0]
            .starts_with("100 ms of CPU time in 10 samples (and 5.20 ms not in the profile) over")
    );
    assert_eq!(lines[2], "lost: 7 samples dropped, 2 threads not sampled");
    assert_eq!(lines[3], "no symbols of libx.so: it is stripped");
    profile.remarks = (0..8).map(|number| format!("remark {number}")).collect();
    let text = profile.overview(SummaryStyle::default()).to_string();
    assert!(text.contains("remark 4\n… and 3 more remarks"), "{text}");
}

#[test]
fn names_steer_no_terminal_and_wide_ones_are_aligned() {
    let nasty = "\u{1b}[31mred\n\u{9b}2J\u{202e}";
    let mut profile = example::profile();
    profile.mechanism = nasty.to_owned();
    profile.remarks = vec![nasty.to_owned()];
    for (at, sample) in profile.samples.iter_mut().enumerate() {
        let name = if at == 0 { nasty } else { "画像処理" };
        sample.task = Some(TaskRef { name: Some(name.into()), ..TaskRef::default() });
        sample.scopes = vec![nasty.into()];
        sample.labels = vec![(nasty.into(), nasty.into())];
        sample.thread.as_mut().expect("it has one").name = nasty.into();
    }
    for function in &mut profile.functions {
        function.name = nasty.into();
    }
    let style = SummaryStyle { width: Some(80), ..SummaryStyle::default() };
    let mut all = every_group();
    all.push(GroupBy::Label(nasty.into()));
    for by in all {
        let text = profile.summary(&by).table(style).to_string();
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(!text.contains('\u{202e}'), "{text:?}");
    }
    let text = profile.overview(style).to_string();
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");

    let sites = profile.summary(&GroupBy::Site).table(style).to_string();
    let before_site = |line: &str| {
        let before = line.strip_suffix('-').expect("no site");
        let wide = before.chars().filter(|c| *c > '\u{3000}').count();
        before.chars().count() + wide
    };
    let widths: Vec<_> = sites.lines().skip(2).map(before_site).collect();
    assert_eq!(widths[0], widths[1], "{sites}");
}

/// Also where amounts are beyond what 64 bits hold, of a profile that was made by hand.
#[test]
fn sums_have_an_end() {
    let mut profile = example::profile();
    for sample in &mut profile.samples {
        (sample.count, sample.time_ns) = (u64::MAX, u64::MAX);
    }
    for by in every_group() {
        let summary = profile.summary(&by);
        assert_eq!(summary.whole, Amount { time_ns: u64::MAX, samples: u64::MAX });
        let _ = summary.table(SummaryStyle::default()).to_string();
    }
}

#[test]
fn nothing_has_no_rows() {
    let profile: Profile = example::builder().finish(Duration::ZERO);
    for by in every_group() {
        let summary = profile.summary(&by);
        assert!(summary.rows.is_empty());
        assert!(summary.table(SummaryStyle::default()).to_string().ends_with("\nno samples"));
    }
}

fn place(builder: &mut ProfileBuilder, names: &[&str]) -> LocationId {
    let mut line = |name: &&str| {
        let name = builder.text(name);
        Line { function: builder.function(Function { name, ..Function::default() }), line: 1 }
    };
    let lines = names.iter().map(&mut line).collect();
    builder.location(Location { lines, ..Location::default() })
}
