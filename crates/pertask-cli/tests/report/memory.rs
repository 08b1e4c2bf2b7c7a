//! What a report needs: memory for the tables of a profile, and not for its stacks.

use std::{fs, process::Command, time::Duration};

use pertask::profile::{
    Bounds, Function, Line, Location, LocationId, ProfileBuilder, Sample, State, TaskRef,
};

use crate::{
    pprof,
    run::{Folder, with},
};

const SAMPLES: u32 = 20_000;
const WAITS: u32 = 10_000;
const DEPTH: u32 = 60;

/// Stacks that share next to nothing. As text they are 140 MB, and as a tree of nodes about as much.
fn file() -> Vec<u8> {
    let bounds = Bounds { samples: SAMPLES as usize, ..Bounds::default() };
    let mut builder = ProfileBuilder::with_bounds("by hand", 10_000_000, bounds);
    let locations: Vec<LocationId> = (0..1_000).map(|at| location(&mut builder, at)).collect();
    let mut number = 1_u32;
    let mut any = || {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        locations[(number >> 16) as usize % locations.len()]
    };
    for _ in 0..SAMPLES {
        let stack = (0..DEPTH).map(|_| any()).collect();
        builder.add(Sample { count: 1, time_ns: 10_000_000, stack, ..Sample::default() });
    }
    pprof(&builder.finish(Duration::from_secs(300)))
}

fn location(builder: &mut ProfileBuilder, at: u32) -> LocationId {
    let name = builder.text(&format!("{}::function_{at}", "module".repeat(16)));
    let function = builder.function(Function { name, ..Function::default() });
    builder.location(Location { lines: vec![Line { function, line: 1 }], ..Location::default() })
}

#[test]
fn pictures_need_no_more_memory_than_tables() {
    let file = file();
    for output in ["--top", "--flamegraph", "--folded", "--firefox", "--speedscope"] {
        let value = if output == "--top" { "5" } else { "/dev/null" };
        fits(&["-", output, value], &file);
    }
}

/// Asserts that a report needs no more than 100 MB.
fn fits(arguments: &[&str], file: &[u8]) {
    let script = r#"ulimit -v 100000 && exec "$0" report "$@""#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_pertask")]).args(arguments);
    let done = with(&mut shell, file);
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Waits of one task, each in a function and by a waker of its own. The task and all functions have one long name, of which 10,000 are
/// 80 MB.
fn waits() -> Vec<u8> {
    let bounds = Bounds { samples: WAITS as usize, text_bytes: 8_000, ..Bounds::default() };
    let mut builder = ProfileBuilder::with_bounds("by hand", 10_000_000, bounds);
    let name = builder.text(&"long".repeat(2_000));
    let task = TaskRef { name: Some(name.clone()), ..TaskRef::default() };
    for at in 0..WAITS {
        let file = builder.text(&format!("src/{at}.rs"));
        let function = Function { name: name.clone(), file, ..Function::default() };
        let lines = vec![Line { function: builder.function(function), line: 1 }];
        let stack = vec![builder.location(Location { lines, ..Location::default() })];
        let waker = builder.text(&format!("waker {at}"));
        builder.add(Sample {
            count: 1,
            time_ns: 10_000_000,
            state: State::Waiting,
            stack,
            task: Some(task.clone()),
            woken_by: Some(TaskRef { name: Some(waker), ..TaskRef::default() }),
            ..Sample::default()
        });
    }
    pprof(&builder.finish(Duration::from_secs(300)))
}

/// However many rows have it.
#[test]
fn a_long_name_is_in_memory_once() {
    let file = waits();
    for (state, by) in
        [("waiting", "function"), ("waiting", "place"), ("waiting", "waker"), ("life", "place")]
    {
        fits(&["-", "--state", state, "--by", by], &file);
    }
    let folder = Folder::new("long-names");
    let path = folder.path("waits.pb.gz");
    fs::write(&path, &file).expect("to write");
    fits(&["--diff", &path, &path, "--state", "waiting", "--by", "place"], b"");
}
