//! Filters: parts that make up the whole, and conditions that must all be met.

use pertask_profile::{Amount, Filter, GroupBy, Profile, Subject};

use crate::example;

fn ms(filter: &Filter) -> u64 {
    example::profile().filtered(filter).whole().time_ns / 1_000_000
}

fn task(task: &str) -> Filter {
    Filter { task: Some(task.to_owned()), ..Filter::default() }
}

fn site(site: &str) -> Filter {
    Filter { site: Some(site.to_owned()), ..Filter::default() }
}

fn thread(thread: &str) -> Filter {
    Filter { thread: Some(thread.to_owned()), ..Filter::default() }
}

fn function(name: &str) -> Filter {
    Filter { functions: vec![name.to_owned()], ..Filter::default() }
}

fn label(key: &str, value: &str) -> Filter {
    Filter { labels: vec![(key.to_owned(), value.to_owned())], ..Filter::default() }
}

#[test]
fn no_condition_keeps_everything() {
    let profile = example::profile();
    assert!(Filter::default().is_empty());
    assert_eq!(profile.filtered(&Filter::default()), profile);
}

#[test]
fn each_condition_keeps_its_samples() {
    let cases = [
        (task("GET /render"), 50),
        (task("GET /rend"), 0),
        (task("2"), 30),
        (task("(outside tasks)"), 10),
        (task(""), 0),
        (site("service.rs"), 90),
        (site("service.rs:81"), 40),
        (site("src/service.rs:81"), 40),
        (site("rvice.rs"), 0),
        (site("/service.rs"), 90),
        (site("81"), 0),
        (site(""), 0),
        (thread("worker"), 100),
        (thread("4711"), 100),
        (thread("worker [4711]"), 100),
        (thread("work"), 0),
        (function("service::hash"), 40),
        (function("inlined"), 90),
        (function("libc.so"), 10),
        (function("nowhere"), 0),
        (label("tenant", "acme"), 40),
        (label("tenant", "acm"), 0),
        (label("tenan", "acme"), 0),
    ];
    for (filter, expected) in cases {
        assert_eq!(ms(&filter), expected, "{filter}");
    }
}

#[test]
fn all_conditions_must_be_met() {
    let both =
        |a: &str, b: &str| Filter { functions: vec![a.into(), b.into()], ..task("GET /render") };
    assert_eq!(ms(&both("main", "handle")), 50);
    assert_eq!(ms(&both("main", "hash")), 0);
    let filter = Filter { task: Some("2".into()), ..label("tenant", "acme") };
    assert_eq!(ms(&filter), 0);
    assert_eq!(filter.conditions(), [task("2"), label("tenant", "acme")]);
    assert_eq!(filter.to_string(), "task 2, label tenant=acme");
}

/// A filter for each row of a summary selects what the row shows, and together they select the whole.
#[test]
fn the_parts_are_the_whole() {
    let profile = example::profile();
    let of_row = |subject: &Subject| match subject {
        Subject::Task(of) => task(&of.id.expect("an id").to_string()),
        Subject::Thread(_) => thread(&subject.to_string()),
        _ => task(&subject.to_string()),
    };
    for by in [GroupBy::Site, GroupBy::Task, GroupBy::Thread] {
        let mut sum = Amount::default();
        for row in profile.summary(&by).rows {
            let part = profile.filtered(&of_row(&row.subject)).whole();
            assert_eq!(part, row.own, "{by:?} {:?}", row.subject);
            sum = sum.plus(part);
        }
        assert_eq!(sum, profile.whole(), "{by:?}");
    }
}

#[test]
fn a_part_can_be_written_and_read_and_knows_its_losses() {
    let part = example::profile().filtered(&task("GET /render"));
    assert_eq!(Profile::from_pprof(&example::pprof(&part)[..]).expect("it is good"), part);
    assert_eq!((part.lost.stacks_incomplete, part.lost.samples_dropped), (0, 7));
    let part = example::profile().filtered(&task("GET /hash"));
    assert_eq!(part.lost.stacks_incomplete, 4);
}
