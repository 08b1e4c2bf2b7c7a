//! The command `pertask`: see which async task spends the CPU.
//!
//! The command measures nothing itself. It parses the command line, lets the libraries watch a service, record a program or read
//! a profile, and writes the result.

#![deny(unsafe_code)]

mod agent;
mod blocked;
mod cli;
mod demo;
mod doctor;
mod duration;
mod error;
mod lost;
mod output;
mod places;
mod profile_file;
mod progress;
mod record;
mod replace;
mod report;
mod stop;
mod top;

use std::{alloc::System, process::ExitCode};

use pertask::Alloc;

use crate::cli::{Cli, Command};

/// Counts for `pertask demo --memory`, and otherwise only hands on.
#[global_allocator]
static ALLOC: Alloc<System> = Alloc::new(System);

fn main() -> ExitCode {
    // A usage error ends the process here with status 2.
    let Cli { command } = Cli::parse_or_exit();
    let done = match command {
        Command::Demo(options) => demo::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Doctor(options) => doctor::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Ps(options) => agent::ps(&options).map(|()| ExitCode::SUCCESS),
        Command::Record(options) => record::run(&options),
        Command::Report(options) => report::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Stat(options) => agent::stat(&options),
        Command::Top(options) => agent::top(&options),
        Command::Tasks(options) => agent::tasks(&options).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(status) => status,
        Err(error) => {
            output::note(format_args!("pertask: {error}"));
            ExitCode::FAILURE
        }
    }
}
