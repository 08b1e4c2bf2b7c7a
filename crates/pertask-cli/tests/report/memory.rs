//! What a report needs: memory for the tables of a profile, and not for its stacks.

use std::{process::Command, time::Duration};

use pertask::profile::{Bounds, Function, Line, Location, LocationId, ProfileBuilder, Sample};

use crate::{pprof, run::with};

const SAMPLES: u32 = 20_000;
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
        let script = r#"ulimit -v 100000 && exec "$0" report - "$@""#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script, env!("CARGO_BIN_EXE_pertask"), output, value]);
        let done = with(&mut shell, &file);
        assert!(done.status.success(), "{output}: {}", String::from_utf8_lossy(&done.stderr));
    }
}
