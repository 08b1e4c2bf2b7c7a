//! The process that is recorded: its threads, and what the kernel tells of them in `/proc`.

use crate::error::Error;
use std::fs;
use std::io;

/// The process that is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) process: u32,
    /// When the process began, so that another one with the same number is not taken for it.
    birth: u64,
}

impl Target {
    pub(crate) fn of(process: u32) -> Result<Self, Error> {
        match birth(process) {
            Ok(birth) => Ok(Self { process, birth }),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(Error::NoProcess(process)),
            Err(cause) => {
                let what = format!("/proc/{process}/stat cannot be read: {cause}");
                let cause = io::Error::new(cause.kind(), what);
                Err(Error::NotAllowed { process, cause })
            }
        }
    }

    /// Whether the process is still the one that it was, and has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        birth(self.process).is_ok_and(|birth| birth == self.birth) && !self.threads().is_empty()
    }

    /// The threads that are alive now.
    pub(crate) fn threads(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir(format!("/proc/{}/task", self.process)) else {
            return Vec::new();
        };
        let number =
            |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
        entries.filter_map(number).collect()
    }

    /// The CPU time that a thread has used so far, or `None` if it has ended.
    pub(crate) fn cpu_ns(&self, thread: u32) -> Option<u64> {
        let file = format!("/proc/{}/task/{thread}/schedstat", self.process);
        fs::read_to_string(file).ok()?.split_whitespace().next()?.parse().ok()
    }

    /// A thread's name.
    pub(crate) fn name(&self, thread: u32) -> Option<String> {
        let file = format!("/proc/{}/task/{thread}/comm", self.process);
        let name = fs::read(file).ok()?;
        Some(String::from_utf8_lossy(&name).trim_end().to_owned())
    }
}

/// When a process began, in ticks since the machine did.
fn birth(process: u32) -> io::Result<u64> {
    let stat = fs::read(format!("/proc/{process}/stat"))?;
    let stat = String::from_utf8_lossy(&stat).into_owned();
    // The name stands in parentheses, and may have some itself.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = fields.split_whitespace();
    let state = fields.next().unwrap_or("Z");
    let begun = fields.nth(18).and_then(|field| field.parse().ok());
    match (state, begun) {
        ("Z" | "X", _) | (_, None) => Err(io::ErrorKind::NotFound.into()),
        (_, Some(birth)) => Ok(birth),
    }
}
