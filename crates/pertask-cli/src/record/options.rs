//! The options of `pertask record`, and its help.

use std::{ffi::OsString, time::Duration};

use clap::Args;
use pertask_outside::RecordOptions as Outside;

use crate::{
    cli::DemoOptions,
    duration,
    profile_file::ProfilePath,
    report::{By, SymbolOptions},
};

/// The first line of the help.
pub const ABOUT: &str =
    "Record a running program, or start one, and show which of its tasks spend the CPU";

/// What the command does, in more words.
pub const LONG_ABOUT: &str = "\
Record a running program, or start one, and show which of its tasks spend the CPU.

If the program has an agent (pertask::init() in its main), that samples it: tasks have their names, labels and exact times. Otherwise it needs no \
change, and is sampled from outside, as always with --outside: the kernel's perf events say where its threads are, and the \
program's own files say how to unwind its stacks. The function with which an executor polls a task has the type of the task's \
future in its name, so tasks are listed by type: ~axum::serve::handle_connection. Times are then estimated from samples. \
With --by task, tokio's tasks are listed one by one, with the IDs that tokio gives them. For exact times, names of your own, \
labels and waits, use the library.

You can record your own processes, and root can record any. Ctrl-C ends the recording and prints the results so far.";

/// The last paragraphs of the help.
pub const HELP: &str = "\
Reading the tables: see `pertask report --help`. What is in no task is in rows such as
(tokio scheduler), (tokio I/O driver), (tokio idle), or (outside tasks).

What the program needs:
  Types are in the debug information (debug = \"limited\", or at least \"line-tables-only\"),
  or in the symbols where they have the v0 mangling (the default from Rust 1.97 on). Without
  both, only some types can be known, and none if it is stripped. Remarks above the tables
  say what was missing. Child processes are not recorded.

Examples:
  pertask record --pid 4711                        until Ctrl-C
  pertask record --pid $(pidof server) -d 5s
  pertask record --pid 4711 -d 5s --by task        the tasks of a type one by one
  pertask record --pid 4711 -d 5s --waits          where tasks wait, too (with an agent)
  pertask record --pid 4711 -d 5s --allocations    where tasks allocate, too (with an agent)
  pertask record -F 999 -o profile.pb.gz -o flame.svg -d 30s --pid 4711
  pertask record -- ./target/release/server --port 80
  pertask record --pid 4711 -d 5s --unresolved -o profile.pb.gz   find the names later

Exit status:
  0  the recording is complete, even if Ctrl-C ended it early
  1  something failed; stderr says what failed and what to do about it
  2  the command line was not understood
  that of the program, with -- PROGRAM; 128 and the signal's number if a signal ended it
  130, 143  a second Ctrl-C or SIGTERM ended the command at once, without tables";

/// The options of `pertask record`.
#[derive(Debug, Args)]
pub struct RecordOptions {
    /// The process to record
    #[arg(
        short,
        long,
        value_name = "PID",
        required_unless_present = "program",
        conflicts_with = "program"
    )]
    pub pid: Option<u32>,

    /// How long to record: 500ms, 5s, 2.5s, 1m; a plain number means seconds [default: until Ctrl-C, or until
    /// the program ends]
    #[arg(short, long, value_name = "TIME", value_parser = duration::parse, allow_hyphen_values = true)]
    pub duration: Option<Duration>,

    /// Samples for each second of CPU time
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = 199, value_parser = clap::value_parser!(u32).range(1..=Outside::HIGHEST_HZ as i64))]
    pub frequency: u32,

    /// Record from outside, also if the program has an agent
    #[arg(long)]
    pub outside: bool,

    /// See where tasks wait, too, and how long; the program needs an agent
    #[arg(long, conflicts_with_all = ["outside", "program"])]
    pub waits: bool,

    /// See where tasks allocate memory, too; the program needs an agent, and pertask::Alloc as its global allocator
    #[arg(long, conflicts_with_all = ["outside", "program"])]
    pub allocations: bool,

    /// Bytes of stack copied with each sample; raise it if stacks are cut off
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 10, value_parser = clap::value_parser!(u32).range(1_024..=65_528))]
    pub stack_size: u32,

    /// Write the profile to FILE: .pb.gz, .svg, .folded, .speedscope.json or .json; may be repeated
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<ProfilePath>,

    /// Write the profile without names of functions, and show no tables; `pertask report` finds the names. For .pb.gz alone
    #[arg(long, requires = "output", conflicts_with_all = ["symbols", "no_symbols", "full_names"])]
    pub unresolved: bool,

    /// The tables: site, task, function, thread; may be repeated or separated by commas [default: site,function]
    #[arg(long, value_name = "GROUP", value_delimiter = ',', conflicts_with = "unresolved")]
    pub by: Vec<By>,

    /// Show whole types, with type arguments, instead of short names
    #[arg(long)]
    pub full_names: bool,

    /// The most rows of each table; 0 means all
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub top: usize,

    /// Where to find names.
    #[command(flatten)]
    pub symbols: SymbolOptions,

    /// The program to start and record, with its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    pub program: Vec<OsString>,
}

impl RecordOptions {
    /// Returns the options with which the demo records its service.
    pub fn of_process(process: u32, demo: &DemoOptions) -> Self {
        Self {
            pid: Some(process),
            duration: Some(demo.duration),
            frequency: demo.frequency.unwrap_or(199),
            outside: true,
            waits: false,
            allocations: false,
            stack_size: 32 << 10,
            output: demo.output.clone(),
            unresolved: demo.unresolved,
            by: Vec::new(),
            full_names: false,
            top: 20,
            symbols: SymbolOptions::default(),
            program: Vec::new(),
        }
    }

    /// Returns how the options contradict each other, if they do.
    pub fn conflict(&self) -> Option<&'static str> {
        let has_other = self.output.iter().any(|file| !file.is_pprof());
        (self.unresolved && has_other)
            .then_some("--unresolved writes .pb.gz files alone: viewers need names")
    }

    /// Returns the options of the recorder.
    pub fn recorder(&self) -> Outside {
        let mut options = Outside::with_frequency(self.frequency);
        options.stack_bytes = self.stack_size;
        options
    }
}
