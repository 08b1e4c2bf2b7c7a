//! Files that are the difference of two profiles, made by hand as `go tool pprof` makes them, and by `go` itself where there is one.

use pertask_profile::{
    Comparison, DifferenceRow, GroupBy, Part, PprofDifference, PprofFile, Profile, RootBy,
    SummaryStyle, Weight,
};

use crate::example::{self, pprof};
use crate::go;
use crate::protobuf::{
    File,
    Value::{self, Text},
    number,
};

const BASE: (&str, Value<'static>) = ("pprof::base", Text("true"));

/// 30 samples of `work` and 10 of `rest` before, 60 of `work` after, as of `-diff_base`.
fn both() -> File {
    let mut file = File::usual().period("cpu/nanoseconds", 1_000_000);
    let [work, rest] = ["work", "rest"].map(|name| file.location(&[name]));
    let acme = || ("tenant", Text("acme"));
    file.sample(&[work], &[60, 60_000_000], &[acme()]);
    file.sample(&[work], &[-30, -30_000_000], &[BASE, acme()]);
    file.sample(&[rest], &[-10, -10_000_000], &[BASE]);
    file.field(number(9, 1_700_000_000_000_000_000));
    file.field(number(10, 3_210_000_000));
    file
}

/// The same as of `-base`: equal samples are one.
fn net() -> File {
    let mut file = File::usual().period("cpu/nanoseconds", 1_000_000);
    let [work, rest] = ["work", "rest"].map(|name| file.location(&[name]));
    file.sample(&[work], &[30, 30_000_000], &[("tenant", Text("acme"))]);
    file.sample(&[rest], &[-10, -10_000_000], &[]);
    file
}

fn read(file: &[u8]) -> PprofDifference {
    match PprofFile::read(file).expect("it is good") {
        PprofFile::Difference(two) => *two,
        PprofFile::Profile(profile) => panic!("{profile:?}"),
    }
}

fn amounts(rows: &[DifferenceRow]) -> Vec<(String, u64, u64)> {
    let amounts = |row: &DifferenceRow| {
        (row.subject.to_string(), row.before.time_ns / 1_000_000, row.after.time_ns / 1_000_000)
    };
    rows.iter().map(amounts).collect()
}

fn functions(two: &PprofDifference) -> Vec<DifferenceRow> {
    two.comparison().difference(&GroupBy::Function, Part::Own).rows
}

#[test]
fn a_file_of_both_profiles_gives_both_back() {
    let two = read(&both().written());
    assert!(!two.is_net);
    assert_eq!((two.before.whole().samples, two.after.whole().samples), (40, 60));
    let rows = functions(&two);
    // Their shares have changed equally, so their names are in order.
    assert_eq!(amounts(&rows), [("rest".to_owned(), 10, 0), ("work".to_owned(), 30, 60)]);
    assert!(rows.iter().all(|row| row.share.is_some_and(|share| share.differs)), "{rows:?}");
    // The label that marks one of them is not the program's.
    assert_eq!(two.before.label_keys(), [std::sync::Arc::from("tenant")]);
    let said = two.comparison().overview("a.pb", "a.pb", SummaryStyle::default()).to_string();
    for part in [
        "before: a.pb: 40.0 ms of CPU time in 40 samples\n",
        "after: a.pb: 60.0 ms of CPU time in 60 samples\n",
        "both recordings together lasted 3.21 s",
        "not known before and after",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Both began at other times than the file's.
    assert!(!said.contains("2023"), "{said}");
}

#[test]
fn a_file_of_differences_alone_shows_what_is_negative() {
    let two = read(&net().written());
    assert!(two.is_net);
    assert_eq!(amounts(&functions(&two)), [("work".to_owned(), 0, 30), ("rest".to_owned(), 10, 0)]);
    // Counts of differences are no counts of samples.
    assert!(functions(&two).iter().all(|row| row.rate.is_none() && row.share.is_none()));
    let comparison = two.comparison();
    let said = comparison.overview("", "a.pb", SummaryStyle::default()).to_string();
    for part in [
        "a.pb: the difference of two profiles: 30.0 ms more in some stacks, 10.0 ms less in others: +20.0 ms of CPU time in all",
        "noise cannot be judged",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let difference = comparison.difference(&GroupBy::Function, Part::Own);
    let table = difference.table(SummaryStyle::default()).to_string();
    let lines: Vec<_> = table.lines().map(str::trim).collect();
    let expected = [
        "Functions, self (change of CPU time)",
        "CHANGE  FUNCTION",
        "+30.0 ms  work",
        "-10.0 ms  rest",
    ];
    assert_eq!(lines, expected);
}

/// One sample has the label and has become more, or it lacks the label and has become less: that is no file of both.
#[test]
fn a_file_is_of_both_profiles_only_if_every_sample_is() {
    for values in [[5, 5_000_000], [-5, -5_000_000]] {
        let mut file = both();
        let labels = if values[0] > 0 { &[BASE][..] } else { &[] };
        file.sample(&[1], &values, labels);
        assert!(read(&file.written()).is_net, "{values:?}");
        // What is nothing is of either.
        let mut file = both();
        file.sample(&[1], &[0, 0], labels);
        assert!(!read(&file.written()).is_net);
    }
}

/// As of profiles at other rates.
#[test]
fn a_sample_may_have_become_more_and_less() {
    let mut file = net();
    file.sample(&[1], &[2, -7_000_000], &[]);
    let two = read(&file.written());
    let sums = [&two.before, &two.after].map(|it| (it.whole().samples, it.whole().time_ns));
    assert_eq!(sums, [(10, 17_000_000), (32, 30_000_000)]);
}

#[test]
fn pictures_of_a_difference_show_what_has_become_more() {
    for file in [both(), net()] {
        let growth = read(&file.written()).comparison().growth(RootBy::TaskName);
        let mut folded = Vec::new();
        growth.profile.write_folded(RootBy::TaskName, Weight::Time, &mut folded).expect("memory");
        assert_eq!(folded, b"(outside tasks);work 30000000\n");
        assert_eq!(growth.shrunk, 10_000_000);
    }
}

/// The least number of the format has no positive counterpart.
#[test]
fn the_least_number_is_too_much() {
    let mut file = File::usual();
    let work = file.location(&["work"]);
    file.sample(&[work], &[i64::MIN, i64::MIN], &[]);
    let said = PprofFile::read(&file.written()[..]).expect_err("it is too much").to_string();
    assert!(said.contains("exceeds 64 bits"), "{said}");
}

#[test]
fn what_is_no_difference_is_a_profile() {
    let file = pprof(&example::profile());
    assert_eq!(
        PprofFile::read(&file[..]).expect("good"),
        PprofFile::Profile(Box::new(example::profile()))
    );
}

/// The example's tasks come back, and what `go` shows of the difference is what we show.
#[test]
fn what_go_writes_is_read() {
    let mut after = example::profile();
    after.samples[2].count += 20;
    after.samples[2].time_ns += 200_000_000;
    // Without anything that is less, a file of differences alone is a profile.
    after.samples[0].count -= 1;
    after.samples[0].time_ns -= 10_000_000;
    let files = [pprof(&example::profile()), pprof(&after)];
    let Some([both, net]) = go::differences(&files[0], &files[1]) else { return };
    let (both, net) = (read(&both), read(&net));
    assert_eq!((both.is_net, net.is_net), (false, true));
    let whole = |profile: &Profile| profile.whole();
    assert_eq!(whole(&both.before), example::profile().whole());
    assert_eq!(whole(&both.after), after.whole());
    for two in [&both, &net] {
        let rows = two.comparison().difference(&GroupBy::Site, Part::Own).rows;
        let hash = rows.iter().find(|row| row.subject.to_string() == "GET /hash").expect("a row");
        assert_eq!(hash.after.time_ns - hash.before.time_ns, 200_000_000);
    }
    // Twice the same file: nothing differs.
    let Some([both, _]) = go::differences(&files[0], &files[0]) else { return };
    let both = read(&both);
    let difference = Comparison::of(&both.before, &both.after);
    let rows = difference.difference(&GroupBy::Function, Part::Total).rows;
    assert!(rows.iter().all(|row| row.before == row.after && row.is_noise()), "{rows:?}");
}
