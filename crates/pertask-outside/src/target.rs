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
        let is_it = birth(self.process).is_ok_and(|birth| birth == self.birth);
        // The first thread may have ended before the others.
        is_it && self.threads().iter().any(|thread| self.runs(*thread))
    }

    fn runs(&self, thread: u32) -> bool {
        let stat = fs::read(format!("/proc/{}/task/{thread}/stat", self.process));
        stat.is_ok_and(|stat| {
            !matches!(fields(&stat).first().map(String::as_str), None | Some("Z" | "X"))
        })
    }

    /// The threads that are there now.
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
    let begun = fields(&stat).get(19).and_then(|field| field.parse().ok());
    begun.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The fields of a `stat` file after the name, the state first.
fn fields(stat: &[u8]) -> Vec<String> {
    let stat = String::from_utf8_lossy(stat);
    // The name stands in parentheses, and may have some itself.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().map(str::to_owned).collect()
}
