//! Runs the bench's programs in two builds, in turn, and prints one table of both.
//!
//! ```text
//! compare BASE_FOLDER NEW_FOLDER ROUNDS
//! ```
//!
//! The folders hold the programs of each build. Nothing fails because it is slow.

use pertask_bench::{Quartiles, Row};
use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// In the table's order.
const PROGRAMS: [&str; 7] =
    ["life", "further_poll", "spawn_join", "self_wake", "attach", "exit", "memory"];

const BASE: usize = 0;
const NEW: usize = 1;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, new, rounds] = arguments.as_slice() else {
        panic!("usage: compare BASE_FOLDER NEW_FOLDER ROUNDS");
    };
    let rounds: usize = rounds.parse().expect("ROUNDS is a number");
    let folders = [PathBuf::from(base), PathBuf::from(new)];
    let mut table = Table::default();
    for round in 0..rounds {
        progress(&format!("round {} of {rounds}", round + 1));
        for program in PROGRAMS {
            table.add_round(measure(&folders, program, round));
        }
    }
    progress("");
    table.print();
}

/// Shows somebody who waits at a terminal what goes on.
fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r{text:20}\r");
    }
}

/// Runs a program once in each build. Who is first changes from round to round: the second finds the machine as the first has
/// left it.
fn measure(folders: &[PathBuf; 2], program: &str, round: usize) -> [Vec<Row>; 2] {
    let order = if round.is_multiple_of(2) { [BASE, NEW] } else { [NEW, BASE] };
    let mut rows = [Vec::new(), Vec::new()];
    for build in order {
        rows[build] = run(&folders[build].join(program));
    }
    rows
}

fn run(program: &Path) -> Vec<Row> {
    let output = Command::new(program).stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(output.status.success(), "{}: {}", program.display(), output.status);
    String::from_utf8_lossy(&output.stdout).lines().filter_map(Row::parse).collect()
}

/// All values of all rows.
#[derive(Default)]
struct Table {
    /// In the order in which rows first came.
    names: Vec<String>,
    rounds: HashMap<String, Vec<[Option<f64>; 2]>>,
}

impl Table {
    fn add_round(&mut self, builds: [Vec<Row>; 2]) {
        let mut round: HashMap<String, [Option<f64>; 2]> = HashMap::new();
        // The new build has more rows, if one has.
        for build in [NEW, BASE] {
            for row in &builds[build] {
                if !self.rounds.contains_key(&row.name) {
                    self.names.push(row.name.clone());
                    self.rounds.insert(row.name.clone(), Vec::new());
                }
                round.entry(row.name.clone()).or_default()[build] = Some(row.value);
            }
        }
        for (name, values) in round {
            self.rounds.entry(name).or_default().push(values);
        }
    }

    fn print(&self) {
        let width = self.names.iter().map(String::len).max().unwrap_or(0);
        println!("{:width$}  {:>24}  {:>24}  {:>20}", "", "base", "new", "new / base");
        for name in &self.names {
            let rounds = &self.rounds[name];
            let base = cell(rounds.iter().filter_map(|round| round[BASE]), 1);
            let new = cell(rounds.iter().filter_map(|round| round[NEW]), 1);
            let ratio = cell(rounds.iter().filter_map(ratio), 2);
            println!("{name:width$}  {base:>24}  {new:>24}  {ratio:>20}");
        }
    }
}

/// How the builds compare in one round, where the machine was the same to both. Of next to nothing there is no ratio.
fn ratio(&[base, new]: &[Option<f64>; 2]) -> Option<f64> {
    let base = base.filter(|base| *base >= 0.05)?;
    Some(new? / base)
}

fn cell(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let Some(Quartiles { first, median, third }) = Quartiles::of(values.collect()) else {
        return "-".to_owned();
    };
    format!("{median:.digits$} ({first:.digits$}..{third:.digits$})")
}
