//! A program that `pertask stat` has started.

use std::{
    ffi::OsString,
    process::{Child, Command, ExitCode},
    sync::atomic::{AtomicI32, Ordering},
    thread,
    time::{Duration, Instant},
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

/// When the user is told that there is none yet.
const PATIENCE: Duration = Duration::from_secs(2);

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

    /// Waits until the program has an agent. Returns `None` if it has ended, or the user asks to stop.
    pub fn agent(&mut self, asked: &AtomicI32) -> Result<Option<Agent>, Error> {
        let (began, mut is_told) = (Instant::now(), false);
        loop {
            if let Some(agent) = Agent::find(self.child.id())? {
                return Ok(Some(agent));
            }
            let ended = self.child.try_wait().map_err(Error::Wait)?;
            // Relaxed: nothing else depends on when it is seen.
            if ended.is_some() || asked.load(Ordering::Relaxed) != NOT_ASKED {
                note(format_args!(
                    "nothing was measured: {} had no agent; add pertask::init() to its main",
                    self.name
                ));
                return Ok(None);
            }
            if !is_told && began.elapsed() > PATIENCE {
                is_told = true;
                note(format_args!(
                    "{} has no agent yet; it must call pertask::init() itself, and be no script",
                    self.name
                ));
            }
            thread::sleep(LOOK);
        }
    }

    /// Waits for the program's end, and returns its status.
    pub fn status(self, asked: &AtomicI32) -> Result<ExitCode, Error> {
        status(self.child, asked)
    }
}
