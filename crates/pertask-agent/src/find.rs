//! The processes that have an agent.

use crate::directory::Directory;
use crate::entry;
use crate::target::{Target, field, has_no_program};
use rustix::process::geteuid;
use std::fs;
use std::path::PathBuf;

/// A process that has an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// Its number.
    pub pid: u32,
    /// The path of its socket, as this process sees it.
    pub path: PathBuf,
    /// The name of its program.
    pub program: String,
}

/// Finds the processes that have an agent: this user's, and for root everybody's. In this user's directory, sockets are removed whose
/// process is gone.
#[must_use]
pub fn find() -> Vec<Found> {
    let user = geteuid().as_raw();
    if let Ok(directory) = Directory::open(&Directory::default_path(), user) {
        entry::remove_stale(&directory);
    }
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut found: Vec<_> = names.filter_map(|pid| found(pid, user)).collect();
    found.sort_by_key(|found| found.pid);
    found
}

fn found(pid: u32, user: u32) -> Option<Found> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let owner: u32 = field(&status, "Uid:")?.split_whitespace().nth(1)?.parse().ok()?;
    if has_no_program(&status) || user != 0 && owner != user {
        return None;
    }
    let target = Target::read(pid).ok()?;
    let socket = target.sockets().into_iter().flatten().next()?;
    Some(Found { pid, path: socket.path, program: target.program })
}
