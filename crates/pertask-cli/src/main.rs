//! The command `pertask`: see which async task spends the CPU.
//!
//! The command measures nothing itself. It parses the command line, lets the `pertask` library watch a service or read a
//! profile, and writes the result.

#![deny(unsafe_code)]

mod cli;
mod demo;
mod doctor;
mod duration;
mod error;
mod output;
mod profile_file;
mod progress;
mod replace;
mod report;
mod stop;

use std::process::ExitCode;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    // A usage error ends the process here with status 2.
    let Cli { command } = Cli::parse_or_exit();
    let done = match command {
        Command::Demo(options) => demo::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Report(options) => report::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format_args!("pertask: {error}"));
            ExitCode::FAILURE
        }
    }
}
