//! Two profiles: what a user reads of their difference, and what of it is noise.

use std::time::{Duration, UNIX_EPOCH};

use pertask_profile::{
    Comparison, DifferenceRow, Filter, Function, GroupBy, Line, Location, Part, Profile,
    ProfileBuilder, RootBy, Sample, Side, Site, SummaryStyle, TaskRef, ThreadRef, Weight,
};

const EVERYTHING: SummaryStyle =
    SummaryStyle { width: None, color: false, max_rows: usize::MAX, whole_names: false };

/// A profile of functions that `main` calls, with their numbers of samples, in so many seconds.
fn functions(seconds: u64, hz: u64, counts: &[(&str, u64)]) -> Profile {
    let period_ns = 1_000_000_000 / hz;
    let mut builder = ProfileBuilder::new("by hand", period_ns);
    builder.start(UNIX_EPOCH);
    let main = location(&mut builder, "main", "src/main.rs");
    for (name, count) in counts {
        let stack = vec![location(&mut builder, name, "src/main.rs"), main];
        let (count, time_ns) = (*count, count * period_ns);
        builder.add(Sample { count, time_ns, stack, ..Sample::default() });
    }
    builder.finish(Duration::from_secs(seconds))
}

fn location(builder: &mut ProfileBuilder, name: &str, file: &str) -> pertask_profile::LocationId {
    let (name, file) = (builder.text(name), builder.text(file));
    let function = builder.function(Function { name, file, ..Function::default() });
    builder.location(Location { lines: vec![Line { function, line: 1 }], ..Location::default() })
}

/// A profile of these tasks and threads, a second for each.
fn tasks(tasks: impl IntoIterator<Item = (TaskRef, ThreadRef)>) -> Profile {
    let mut builder = ProfileBuilder::new("by hand", 1_000_000);
    for (task, thread) in tasks {
        let (task, thread) = (Some(task), Some(thread));
        builder.add(Sample {
            count: 1_000,
            time_ns: 1_000_000_000,
            task,
            thread,
            ..Sample::default()
        });
    }
    builder.finish(Duration::from_secs(1))
}

fn task(name: Option<&str>, file: &str, line: u32) -> TaskRef {
    let site = Some(Site { file: file.into(), line });
    TaskRef { name: name.map(Into::into), site, ..TaskRef::default() }
}

fn thread(tid: u32, name: &str) -> ThreadRef {
    ThreadRef { tid, name: name.into() }
}

fn own(before: &Profile, after: &Profile, by: &GroupBy) -> Vec<DifferenceRow> {
    Comparison::of(before, after).difference(by, Part::Own).rows
}

fn differs(row: &DifferenceRow) -> [Option<bool>; 2] {
    [row.rate, row.share].map(|verdict| verdict.map(|verdict| verdict.differs))
}

fn of<'a>(rows: &'a [DifferenceRow], name: &str) -> &'a DifferenceRow {
    rows.iter().find(|row| row.subject.to_string() == name).expect(name)
}

/// Twice as long, at ten times the frequency: everything but `hash` is as it was.
#[test]
fn recordings_of_other_lengths_and_frequencies_are_compared_per_second_and_by_share() {
    let before = functions(2, 100, &[("render", 100), ("hash", 60), ("send", 40)]);
    let after = functions(4, 1_000, &[("render", 2_000), ("hash", 2_400), ("send", 820)]);
    let table = Comparison::of(&before, &after)
        .difference(&GroupBy::Function, Part::Own)
        .table(EVERYTHING)
        .to_string();
    let expected = "\
Functions, self (CPU time per second; % of 2.00 s and 5.22 s)
BEFORE   AFTER   CHANGE  BEFORE%  AFTER%  POINTS    SAMPLES  FUNCTION  FILE
300 ms  600 ms  +100.0%    30.0%   46.0%   +16.0  60 → 2400  hash      src/main.rs
200 ms  205 ms   ~+2.5%    20.0%   15.7%   ~-4.3   40 → 820  send      src/main.rs
500 ms  500 ms   ~+0.0%    50.0%   38.3%  -11.7  100 → 2000  render    src/main.rs";
    let squeezed = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<_> = expected.lines().map(squeezed).collect();
    let found: Vec<_> = table.lines().map(squeezed).collect();
    for row in &rows {
        assert!(found.contains(row), "{row:?}: {table}");
    }
    // What differs in its share alone comes before what is noise.
    assert!(table.find("render") < table.find("send"), "{table}");
}

#[test]
fn noise_is_counted_and_not_listed() {
    let before = functions(1, 1_000, &[("a", 400), ("b", 300), ("c", 300)]);
    let after = functions(1, 1_000, &[("a", 405), ("b", 290), ("c", 305)]);
    let style = SummaryStyle::default();
    let table = |before, after| {
        let difference = Comparison::of(before, after).difference(&GroupBy::Function, Part::Own);
        difference.table(style).to_string()
    };
    assert!(table(&before, &after).ends_with("\nnothing differs\n… and 3 rows within noise"));
    assert!(table(&before, &before).ends_with("\nnothing differs\n… and 3 rows within noise"));
    let more = functions(1, 1_000, &[("a", 405), ("b", 290), ("c", 805)]);
    let table = table(&before, &more);
    assert!(table.contains("+168.3%") && table.contains(" c "), "{table}");
}

/// Sixty functions of which one seems to have changed, at a chance of one in a hundred.
#[test]
fn of_many_rows_one_is_unlikely_by_chance() {
    let names: Vec<_> = (0..60).map(|at| format!("f{at}")).collect();
    let counts = |last: u64| {
        let count = |(at, name): (usize, &'static str)| (name, if at == 59 { last } else { 100 });
        names.iter().map(|name| &*name.clone().leak()).enumerate().map(count).collect::<Vec<_>>()
    };
    let before = functions(1, 10_000, &counts(100));
    let after = functions(1, 10_000, &counts(140));
    let rows = own(&before, &after, &GroupBy::Function);
    let row = of(&rows, "f59");
    assert!(row.rate.is_some_and(|rate| rate.p < 0.02 && !rate.differs), "{row:?}");
    // Alone, it would be believed.
    let pair = [functions(1, 10_000, &[("f", 100)]), functions(1, 10_000, &[("f", 145)])];
    let rows = own(&pair[0], &pair[1], &GroupBy::Function);
    assert_eq!(differs(of(&rows, "f"))[0], Some(true));
    let rows = own(&before, &functions(1, 10_000, &counts(200)), &GroupBy::Function);
    assert_eq!(differs(of(&rows, "f59")), [Some(true), Some(true)]);
}

/// Two hundred pairs of recordings of a program that has not changed, of different lengths. Each has two columns, in which one pair in a
/// hundred may differ by chance.
#[test]
fn chance_alone_is_almost_always_noise() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: u64| {
        // Xorshift, of which the high bits are good.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) % below
    };
    let names: Vec<_> = (0..40).map(|at| format!("f{at}")).collect();
    let mut recorded = |seconds: u64| {
        let mut counts = vec![0; names.len()];
        // The first functions have most of the samples.
        (0..seconds * 500).for_each(|_| counts[(random(40) * random(40) / 40) as usize] += 1);
        let counts: Vec<_> = names.iter().map(String::as_str).zip(counts).collect();
        functions(seconds, 1_000, &counts)
    };
    let differ = |_: &u32| {
        let rows = own(&recorded(2), &recorded(5), &GroupBy::Function);
        rows.iter().any(|row| !row.is_noise())
    };
    let differ = (0..200).filter(differ).count();
    assert!(differ <= 6, "{differ} of 200");
}

#[test]
fn a_function_and_all_that_it_calls_are_two_tables() {
    let before = functions(1, 1_000, &[("hash", 500)]);
    let after = functions(1, 1_000, &[("hash", 900)]);
    let comparison = Comparison::of(&before, &after);
    let samples = |part| {
        let rows = comparison.difference(&GroupBy::Function, part).rows;
        let row = rows.iter().find(|row| row.subject.to_string() == "main");
        row.map(|row| (row.before.samples, row.after.samples))
    };
    assert_eq!((samples(Part::Own), samples(Part::Total)), (None, Some((500, 900))));
}

#[test]
fn without_counts_there_is_no_noise_to_be_judged() {
    let before = functions(1, 1_000, &[("a", 400), ("b", 600)]);
    let mut after = functions(1, 1_000, &[("a", 401), ("b", 600)]);
    after.has_counts = false;
    after.samples.iter_mut().for_each(|sample| sample.count = 0);
    let comparison = Comparison::of(&before, &after);
    let said = comparison.overview("a", "b", EVERYTHING).to_string();
    let expected = "noise cannot be judged: after does not say how many samples it has";
    assert!(said.ends_with(expected), "{said}");
    let difference = comparison.difference(&GroupBy::Function, Part::Own);
    assert!(difference.rows.iter().all(|row| differs(row) == [None, None] && !row.is_noise()));
    let table = difference.table(SummaryStyle::default()).to_string();
    assert!(!table.contains('~') && table.contains("400 → -"), "{table}");
    assert!(table.ends_with("… and 1 row unchanged"), "{table}");
}

/// It was measured, and no sample is behind it. It counts as the samples that stand for as much elsewhere.
#[test]
fn time_without_samples_is_judged_too() {
    let with_rest = |rest_ns| {
        let mut profile = functions(1, 1_000, &[("a", 400)]);
        profile.samples.push(Sample { time_ns: rest_ns, ..Sample::default() });
        profile
    };
    let rest = |after_ns| {
        let rows = own(&with_rest(100_000_000), &with_rest(after_ns), &GroupBy::Function);
        assert_eq!(of(&rows, "(no stack)").after.samples, 0);
        differs(of(&rows, "(no stack)"))
    };
    assert_eq!(rest(90_000_000), [Some(false), Some(false)]);
    assert_eq!(rest(300_000_000), [Some(true), Some(true)]);
}

#[test]
fn profiles_without_a_length_are_compared_by_share() {
    let mut before = functions(1, 1_000, &[("a", 400), ("b", 600)]);
    let after = functions(1, 1_000, &[("a", 800), ("b", 600)]);
    before.duration_ns = 0;
    let comparison = Comparison::of(&before, &after);
    let said = comparison.overview("a", "b", EVERYTHING).to_string();
    assert!(said.contains("how long it was recorded is not known before, so that"), "{said}");
    let difference = comparison.difference(&GroupBy::Function, Part::Own);
    let table = difference.table(EVERYTHING).to_string();
    assert!(!table.contains("CHANGE") && !table.contains("per second"), "{table}");
    assert!(table.contains("+17.1"), "{table}");
    assert_eq!(differs(of(&difference.rows, "a")), [None, Some(true)]);
}

/// A line more above it, a path of another checkout, the next run's thread.
#[test]
fn what_has_moved_is_one_subject() {
    let before = tasks([
        (task(Some("GET /"), "src/app.rs", 80), thread(1, "worker")),
        (task(None, "src/app.rs", 90), thread(2, "worker")),
        (task(Some("twin"), "src/app.rs", 10), thread(3, "")),
        (task(Some("twin"), "src/app.rs", 20), thread(3, "")),
    ]);
    let after = tasks([
        (task(Some("GET /"), "src/app.rs", 83), thread(11, "worker")),
        (task(None, "src/app.rs", 93), thread(12, "worker")),
        (task(Some("twin"), "src/app.rs", 13), thread(13, "")),
        (task(Some("twin"), "src/app.rs", 23), thread(13, "")),
    ]);
    let rows = own(&before, &after, &GroupBy::Site);
    let moved = of(&rows, "GET /");
    assert_eq!((moved.before.samples, moved.after.samples), (1_000, 1_000));
    let pertask_profile::Subject::Site { site: Some(site), .. } = &moved.subject else {
        panic!("{moved:?}")
    };
    assert_eq!(site.line, 83);
    // It cannot be known which is which of these.
    assert_eq!(rows.len(), 1 + 2 + 4, "{rows:?}");
    let rows = own(&before, &after, &GroupBy::Thread);
    assert_eq!(of(&rows, "worker").after.samples, 2_000);
    assert_eq!(rows.len(), 1 + 2, "{rows:?}");

    let elsewhere = {
        let mut builder = ProfileBuilder::new("by hand", 1_000_000);
        let stack = vec![location(&mut builder, "hash", "/elsewhere/src/main.rs")];
        builder.add(Sample { count: 7, time_ns: 7_000_000, stack, ..Sample::default() });
        builder.finish(Duration::from_secs(1))
    };
    let rows = own(&functions(1, 1_000, &[("hash", 7)]), &elsewhere, &GroupBy::Function);
    assert_eq!(of(&rows, "hash").before.samples, 7);
}

#[test]
fn what_is_in_one_profile_alone_is_new_or_gone() {
    let before = functions(1, 1_000, &[("old", 500), ("a", 500)]);
    let after = functions(1, 1_000, &[("a", 500), ("young", 500)]);
    let difference = Comparison::of(&before, &after).difference(&GroupBy::Function, Part::Own);
    let table = difference.table(EVERYTHING).to_string();
    let row = |name: &str| table.lines().find(|line| line.contains(name)).expect(name);
    assert!(row("old").contains(" gone ") && row("old").contains("-50.0"), "{table}");
    assert!(row("young").contains(" new ") && row("young").contains("0 → 500"), "{table}");
}

/// Nothing before matches: there is nothing to have a share of.
#[test]
fn a_filter_may_select_nothing_of_one_profile() {
    let before = functions(1, 1_000, &[("a", 500)]);
    let after = functions(1, 1_000, &[("a", 500), ("b", 300)]);
    let filter = Filter { functions: vec!["b".to_owned()], ..Filter::default() };
    let parts = [before.filtered(&filter), after.filtered(&filter)];
    let side = |whole, part| Side { whole, part: Some((part, &filter)) };
    let comparison = Comparison {
        before: side(&before, &parts[0]),
        after: side(&after, &parts[1]),
        ..Comparison::of(&before, &after)
    };
    let said = comparison.overview("x", "y", EVERYTHING).to_string();
    assert!(said.contains("matched: 0 ns (0.0%) in 0 samples: function b"), "{said}");
    assert!(said.contains("matched: 300 ms (37.5%) in 300 samples: function b"), "{said}");
    let rows = comparison.difference(&GroupBy::Function, Part::Own).rows;
    assert_eq!(differs(of(&rows, "b")), [Some(true), None]);
}

/// Growth is by stack, and per second.
#[test]
fn growth_is_what_pictures_show() {
    let before = functions(1, 1_000, &[("a", 400), ("b", 600), ("c", 100)]);
    let after = functions(2, 1_000, &[("d", 50), ("b", 1_500), ("a", 700), ("c", 200)]);
    let growth = Comparison::of(&before, &after).growth(RootBy::TaskName);
    // 400 in a second are 800 in two.
    assert_eq!(growth.shrunk, 100_000_000);
    let mut folded = Vec::new();
    growth.profile.write_folded(RootBy::TaskName, Weight::Time, &mut folded).expect("memory");
    let expected = "(outside tasks);main;b 300000000\n(outside tasks);main;d 50000000\n";
    assert_eq!(String::from_utf8(folded).expect("UTF-8"), expected);
    let told = growth.profile.overview(EVERYTHING).to_string();
    assert!(told.contains("growth alone") && told.contains("100 ms that other stacks"), "{told}");
    assert!(!growth.profile.has_counts);
}
