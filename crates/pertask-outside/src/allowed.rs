//! What the kernel lets this user record of the user's other processes.

use crate::event::{self, Kind};
use crate::options::RecordOptions;
use std::fs;

/// What the kernel lets this user record of the user's other processes. Each is `Ok`, or the reason with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allowed {
    /// Samples of a process, with its stacks.
    pub samples: Result<(), String>,
    /// Samples of time in the kernel. Without them, a thread's time in the kernel is known as a whole.
    pub kernel: Result<(), String>,
    /// A process's memory, from which the IDs of tokio's tasks are read.
    pub memory: Result<(), String>,
}

impl Allowed {
    /// Finds out, by opening an event on this process and by asking which processes' memory may be read.
    #[must_use]
    pub fn examine() -> Self {
        let first = event::cpus().first().copied().unwrap_or(0);
        let kind = Kind::best(&RecordOptions::default(), std::process::id(), first, false);
        let kernel = match &kind {
            Ok(kind) if kind.kernel => Ok(()),
            Ok(_) => Err(event::without_kernel()),
            Err(why) => Err(why.to_string()),
        };
        Self { samples: kind.map(drop).map_err(|why| why.to_string()), kernel, memory: memory() }
    }
}

/// Whether Yama, where the kernel has it, lets processes read each other's memory.
pub(crate) fn memory() -> Result<(), String> {
    const FILE: &str = "/proc/sys/kernel/yama/ptrace_scope";
    // Without the file there is no Yama.
    let level = fs::read_to_string(FILE).ok().and_then(|level| level.trim().parse::<u32>().ok());
    let may_trace = event::has_capability(event::CAP_SYS_PTRACE);
    match level.unwrap_or(0) {
        0 => Ok(()),
        1 | 2 if may_trace => Ok(()),
        1 => Err(
            "kernel.yama.ptrace_scope is 1, so it works for `pertask record -- PROGRAM` alone; set it to 0, or run as root"
                .to_owned(),
        ),
        2 => Err("kernel.yama.ptrace_scope is 2: run as root, or set it to 0".to_owned()),
        level => Err(format!("kernel.yama.ptrace_scope is {level}, until the next start of the machine")),
    }
}
