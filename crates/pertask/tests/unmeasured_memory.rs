//! A program whose allocator does not count has no figures of memory: not zeros, but none, and a remedy.

use pertask::{SessionOptions, TaskExt};

#[test]
fn without_the_allocator_there_are_no_figures_and_a_remedy() {
    let session = SessionOptions { memory: true, ..SessionOptions::default() }.start().unwrap();
    futures::executor::block_on(async { drop(vec![1_u8; 1_000]) }.task("allocates"));
    let report = session.stop();
    assert_eq!(report.memory, None);
    assert_eq!(report.sites.len(), 1);
    assert_eq!(report.sites[0].memory, None);
    assert_eq!((report.tree[0].memory, report.tree[0].inclusive_memory), (None, None));
    let why = report.memory_source.as_deref().expect("a reason");
    assert!(why.contains("pertask::Alloc::new"), "{why}");
}

#[cfg(feature = "table")]
#[test]
fn the_table_says_so_in_a_line() {
    let session = SessionOptions { memory: true, ..SessionOptions::default() }.start().unwrap();
    let shown = session.stop().to_string();
    assert!(shown.lines().any(|line| line.starts_with("memory: not measured (")), "{shown}");
    assert!(!shown.contains("Memory"), "{shown}");
}
