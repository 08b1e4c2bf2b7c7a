//! Which process a socket is of: its number, and when it began, because numbers are used again.

use std::fs;
use std::io;

/// A process, as its own namespace numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    /// When it began, in ticks since the machine's start: field 22 of `/proc/PID/stat`.
    pub start_time: u64,
}

impl Identity {
    /// This process.
    ///
    /// # Errors
    /// Returns why `/proc/self/stat` cannot be read.
    pub fn of_this_process() -> io::Result<Self> {
        let start_time = start_time("self")?;
        Ok(Self { pid: std::process::id(), start_time })
    }

    /// A process that this one knows by `pid`. Where it has a namespace of its own, it has another number there.
    ///
    /// # Errors
    /// Returns why its files in `/proc` cannot be read.
    pub fn of(pid: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        // The last one is that of the innermost namespace.
        let own = numbers.and_then(|numbers| numbers.split_whitespace().last()?.parse().ok());
        Ok(Self { pid: own.unwrap_or(pid), start_time: start_time(&pid.to_string())? })
    }

    /// The name of its socket.
    #[must_use]
    pub fn socket_name(&self) -> String {
        format!("{}-{}.sock", self.pid, self.start_time)
    }

    /// The process that has a socket of this name.
    pub(crate) fn of_socket(name: &str) -> Option<Self> {
        let (pid, start_time) = name.strip_suffix(".sock")?.split_once('-')?;
        Some(Self { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? })
    }

    /// Whether this process knows it by its number, and it is there.
    pub(crate) fn is_alive(&self) -> bool {
        start_time(&self.pid.to_string()).is_ok_and(|start_time| start_time == self.start_time)
    }
}

fn start_time(process: &str) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name of the program, in parentheses, may have any character.
    let after = stat.rsplit_once(')').map(|(_, after)| after);
    let field = after.and_then(|after| after.split_whitespace().nth(19)?.parse().ok());
    field.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat has no start"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_process_has_the_same_name_from_both_sides() {
        let own = Identity::of_this_process().expect("/proc");
        assert_eq!(Identity::of(std::process::id()).expect("/proc").start_time, own.start_time);
        assert_eq!(Identity::of_socket(&own.socket_name()), Some(own));
        assert!(own.is_alive());
        for other in ["1.sock", "1-.sock", "-1.sock", "1-2.sock.new", ".1-2.sock", "a-2.sock"] {
            assert_eq!(Identity::of_socket(other), None, "{other}");
        }
    }
}
