//! A report in which no CPU time is in tasks says how to make tasks.
#![cfg(feature = "table")]

mod support;

use pertask::{Session, TableStyle, TaskExt};
use support::alone;

const HOW: &str = "name futures with `.task(\"..\")`";

#[test]
fn a_program_without_tasks_is_told_how_to_have_some() {
    let _turn = alone();
    let session = Session::start().unwrap();
    support::spin(20);
    let report = session.stop();
    let shown = report.table(TableStyle { width: Some(100), ..TableStyle::default() }).to_string();
    println!("{shown}");
    assert!(shown.contains("\nNo task was seen: "), "{shown}");
    for hint in [HOW, "pertask::tokio::spawn", "--cfg tokio_unstable", "track_runtime"] {
        assert!(shown.contains(hint), "{hint}: {shown}");
    }
}

#[test]
fn a_program_whose_tasks_are_idle_while_others_work_is_told_how_to_see_the_others() {
    let _turn = alone();
    let _idle = std::future::pending::<()>().task("idle");
    let session = Session::start().unwrap();
    support::spin(20);
    let shown = session.stop().to_string();
    println!("{shown}");
    assert!(shown.contains("\nNo task used the CPU, but threads did: "), "{shown}");
    assert!(shown.contains(HOW), "{shown}");
}

#[test]
fn a_program_whose_tasks_work_is_told_nothing() {
    let _turn = alone();
    let session = Session::start().unwrap();
    support::run(async { support::spin(20) }.task("works"));
    let shown = session.stop().to_string();
    assert!(!shown.contains(HOW), "{shown}");
}
