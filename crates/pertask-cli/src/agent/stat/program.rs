//! A program that `pertask stat` has started.

use std::{
    ffi::OsString,
    process::{Child, Command, ExitCode},
    sync::atomic::{AtomicI32, Ordering},
    thread,
    time::Duration,
};

use super::super::Agent;
use crate::{
    error::Error,
    output::note,
    record::{NOT_ASKED, status},
};

pub struct Program {
    child: Child,
    name: String,
}

/// How often somebody looks whether the program has an agent now.
const LOOK: Duration = Duration::from_millis(5);

impl Program {
    /// Starts a program, if there is one.
    pub fn start(line: &[OsString]) -> Result<Option<Self>, Error> {
        let Some((program, arguments)) = line.split_first() else { return Ok(None) };
        let name = program.to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.args(arguments);
        if std::env::var_os("PERTASK").is_none() {
            command.env("PERTASK", "on");
        }
        let failed = |cause| Error::Start { program: name.clone(), cause };
        let child = command.spawn().map_err(failed)?;
        Ok(Some(Self { child, name }))
    }

    /// Waits until the program has an agent.
    pub fn agent(&mut self, asked: &AtomicI32) -> Result<Agent, Error> {
        loop {
            let none = match Agent::of(self.child.id()) {
                Ok(agent) => return Ok(agent),
                Err(why) => why,
            };
            let ended = self.child.try_wait().map_err(Error::Wait)?;
            // Relaxed: nothing else depends on when it is seen.
            if ended.is_some() || asked.load(Ordering::Relaxed) != NOT_ASKED {
                note(format_args!("nothing was measured: until now, {} had no agent", self.name));
                return Err(none);
            }
            thread::sleep(LOOK);
        }
    }

    /// Waits for the program's end, and returns its status.
    pub fn status(self, asked: &AtomicI32) -> Result<ExitCode, Error> {
        status(self.child, asked)
    }
}
