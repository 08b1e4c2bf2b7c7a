//! Any bytes, as a pprof file: an error, or a profile that every encoder can write, that adds up, and that comes back; or the difference
//! of two, which can be shown.

#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use pertask_profile::{
    Comparison, Filter, FlamegraphOptions, GroupBy, Part, PprofFile, Profile, ReadLimits, RootBy,
    State, SummaryStyle, Weight,
};

fuzz_target!(|file: &[u8]| {
    let limits = ReadLimits {
        bytes: 1 << 16,
        part_bytes: 1 << 12,
        samples: 256,
        strings: 1_024,
        string_bytes: 512,
        locations: 256,
        depth: 256,
        frames: 1 << 14,
        labels: 4_096,
    };
    match PprofFile::read_within(file, &limits) {
        Ok(PprofFile::Profile(profile)) => {
            use_it(&profile);
            compare(&Comparison::of(&profile, &profile));
        }
        Ok(PprofFile::Difference(two)) => compare(&two.comparison()),
        Err(error) => {
            let said = error.to_string();
            assert!(!said.chars().any(char::is_control), "{said:?}");
        }
    }
});

fn compare(comparison: &Comparison<'_>) {
    let narrow = SummaryStyle { width: Some(60), ..SummaryStyle::default() };
    use GroupBy::{Function, Place, Waker};
    for (by, part) in
        [(Function, Part::Own), (Function, Part::Total), (Place, Part::Own), (Waker, Part::Own)]
    {
        let difference = comparison.difference(&by, part);
        for verdict in difference.rows.iter().flat_map(|row| [row.rate, row.share]).flatten() {
            assert!((0.0..=1.0).contains(&verdict.p), "{verdict:?}");
        }
        let text = format!("{}{}", comparison.overview("", "", narrow), difference.table(narrow));
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
    let growth = comparison.growth(RootBy::TaskName).profile;
    growth.write_flamegraph(&FlamegraphOptions::default(), io::sink()).expect("memory");
}

fn use_it(profile: &Profile) {
    let mut written = Vec::new();
    profile.write_pprof(&mut written).expect("memory");
    assert_eq!(&Profile::from_pprof(&written[..]).expect("we wrote it"), profile);

    for root in [RootBy::TaskName, RootBy::Site, RootBy::Thread] {
        for weight in [Weight::Time, Weight::Samples] {
            profile.write_folded(root, weight, io::sink()).expect("memory");
        }
    }
    profile.write_flamegraph(&FlamegraphOptions::default(), io::sink()).expect("memory");
    profile.write_firefox("fuzz", io::sink()).expect("memory");
    profile.write_folded_lives(RootBy::TaskName, io::sink()).expect("memory");
    let of_life = FlamegraphOptions { whole_life: true, ..FlamegraphOptions::default() };
    profile.write_flamegraph(&of_life, io::sink()).expect("memory");
    State::ALL.iter().for_each(|state| add_up(&profile.in_state(*state)));
    for by in [GroupBy::Place, GroupBy::Waker] {
        assert_eq!(profile.lives(&by).whole, profile.times());
    }
}

fn add_up(profile: &Profile) {
    use GroupBy::{Function, Place, Scope, Site, Task, Thread, Waker};
    let mut all = vec![Site, Task, Function, Place, Waker, Thread, Scope];
    all.extend(profile.label_keys().into_iter().map(GroupBy::Label));
    let narrow = SummaryStyle { width: Some(60), ..SummaryStyle::default() };
    for by in all {
        let summary = profile.summary(&by);
        let own = summary.rows.iter().map(|row| row.own.time_ns).sum::<u64>();
        assert_eq!(own, summary.whole.time_ns, "{by:?}");
        assert!(summary.rows.iter().all(|row| row.own <= row.total), "{by:?}");
        let text = summary.table(narrow).to_string();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
    let _ = profile.overview(narrow).to_string();
    // Each row's task can be asked for, by the name that is shown.
    for row in profile.summary(&GroupBy::Thread).rows {
        let filter = Filter { thread: Some(row.subject.to_string()), ..Filter::default() };
        assert!(profile.filtered(&filter).whole() >= row.total, "{filter}");
    }
}
