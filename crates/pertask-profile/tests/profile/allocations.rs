//! Memory that was allocated: it goes through files, filters and states, and its differences are told.

use pertask_profile::{
    Allocation, Filter, Function, Line, Location, PprofFile, Profile, ProfileBuilder, Sample,
    State, Subject, TaskRef,
};
use std::time::Duration;

use super::example::pprof;
use super::go;

/// `GET /a` allocates so much, and `GET /b` 100 bytes; and there is no CPU time.
fn profile(bytes: u64) -> Profile {
    let mut builder = ProfileBuilder::new("by hand", 1_000_000);
    for (name, bytes) in [("GET /a", bytes), ("GET /b", 100)] {
        let function = Function { name: builder.text(name), ..Function::default() };
        let line = Line { function: builder.function(function), line: 7 };
        let stack = vec![builder.location(Location { lines: vec![line], ..Location::default() })];
        let task = Some(TaskRef { name: Some(builder.text(name)), ..TaskRef::default() });
        let sample = Sample { count: 2, stack, task, ..Sample::default() };
        builder.add_allocation(Allocation { bytes, sample });
    }
    builder.finish(Duration::from_secs(1))
}

fn places(profile: &Profile) -> Vec<(String, u64, u64)> {
    let row = |row: pertask_profile::AllocationRow| {
        let Subject::Place { name, .. } = row.place else { panic!("{row:?}") };
        (name.to_string(), row.count, row.bytes)
    };
    profile.allocations_by_place().into_iter().map(row).collect()
}

#[test]
fn they_stay_with_the_cpu_time_and_under_filters() {
    let whole = profile(5_000);
    let both = [("GET /a".to_owned(), 2, 5_000), ("GET /b".to_owned(), 2, 100)];
    assert_eq!(places(&whole), both);
    assert_eq!(places(&whole.in_state(State::OnCpu)), both);
    assert_eq!(places(&whole.in_state(State::Waiting)), []);
    let filter = Filter { task: Some("GET /b".to_owned()), ..Filter::default() };
    assert_eq!(places(&whole.filtered(&filter)), both[1..]);
}

#[test]
fn files_say_that_there_were_none_though_they_were_asked_for() {
    let mut none = ProfileBuilder::new("by hand", 1).finish(Duration::from_secs(1));
    assert!(!Profile::from_pprof(&pprof(&none)[..]).unwrap().has_allocations);
    none.has_allocations = true;
    let read = Profile::from_pprof(&pprof(&none)[..]).unwrap();
    assert!(read.has_allocations && read.allocations.is_empty());
}

#[test]
fn a_difference_by_go_is_told_and_not_shown_as_a_profile() {
    let files = [9_000, 5_000].map(|bytes| pprof(&profile(bytes)));
    let Some(differences) = go::differences(&files[0], &files[1]) else { return };
    for file in &differences {
        assert!(Profile::from_pprof(&file[..]).is_err());
        let PprofFile::Difference(two) = PprofFile::read(&file[..]).unwrap() else {
            panic!("a difference")
        };
        assert!(two.before.allocations.is_empty() && two.after.allocations.is_empty());
        let told = |remark: &String| remark.contains("allocations is not shown");
        assert!(two.after.remarks.iter().any(told), "{:?}", two.after.remarks);
    }
}
