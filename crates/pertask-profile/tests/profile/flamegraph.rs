//! The flamegraph, as a browser shows it.

use std::time::Duration;

use pertask_profile::{FlamegraphOptions, Profile, ProfileBuilder, RootBy, Sample, Weight};

use crate::{example, folded};

#[test]
fn it_says_what_it_shows_and_what_was_lost() {
    let svg = svg(&example::profile(), &FlamegraphOptions::default());
    assert!(svg.contains(">CPU time by task<"), "{svg}");
    let subtitle = "10 samples in 2.50 s, by hand; 7 samples dropped, 4 stacks incomplete";
    assert!(svg.contains(subtitle), "{svg}");
    assert!(svg.contains("<title>GET /render (50 ms, 50.00%)</title>"), "{svg}");
    assert!(svg.contains("<title>service::hash (40 ms, 40.00%)</title>"), "{svg}");
}

#[test]
fn its_root_weight_and_title_are_the_callers() {
    let options = FlamegraphOptions {
        root: RootBy::Thread,
        weight: Weight::Samples,
        title: Some("<mine>".into()),
    };
    let svg = svg(&example::profile(), &options);
    assert!(svg.contains("<title>worker [4711] (10 samples, 100.00%)</title>"), "{svg}");
    assert!(svg.contains("&lt;mine&gt;") && !svg.contains("<mine>"), "{svg}");
}

#[test]
fn names_and_sums_beyond_reason_are_drawn() {
    for name in ["seven 7", "<b>&\"", "\u{0}\u{1b}\u{ffff}", "a;b", "# x"] {
        let svg = svg(&folded::named(name), &FlamegraphOptions::default());
        let forbidden = |c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{ffff}';
        assert!(!svg.contains(forbidden), "{name:?}");
        assert!(svg.contains("(10 ms, 100.00%)"), "{name:?}: {svg}");
    }
    let mut builder = ProfileBuilder::new("", 0);
    for tid in [1, 2, 3] {
        let thread = Some(pertask_profile::ThreadRef { tid, name: "t".into() });
        builder.add(Sample { count: u64::MAX, cpu_ns: u64::MAX, thread, ..Sample::default() });
    }
    let profile = builder.finish(Duration::MAX);
    let options = FlamegraphOptions { root: RootBy::Thread, ..FlamegraphOptions::default() };
    assert!(svg(&profile, &options).contains("t [1]"));
}

#[test]
fn no_samples_is_a_picture_too() {
    let profile = ProfileBuilder::new("by hand", 1).finish(Duration::ZERO);
    assert!(svg(&profile, &FlamegraphOptions::default()).contains("(no samples)"));
}

fn svg(profile: &Profile, options: &FlamegraphOptions) -> String {
    let mut svg = Vec::new();
    profile.write_flamegraph(options, &mut svg).expect("memory");
    String::from_utf8(svg).expect("UTF-8")
}
