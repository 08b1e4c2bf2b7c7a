//! What the kernel says of a thread in the one line of its `stat` file: when the thread began, and which signals it blocks.

use super::signals;
use crate::os::clock;
use std::io;

/// When a thread began, in the kernel's ticks. A thread's number and its birth identify it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Birth(pub(super) u64);

/// A thread at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) birth: Birth,
    /// The signals from 1 to 31 that the thread blocks, as bits. Ours are among them.
    blocked: u64,
    /// Whether the thread is ending in the kernel: whoever waits for it may know already that it has ended.
    pub(super) is_ending: bool,
}

impl Birth {
    /// The birth of a thread whose file cannot be read. It is before all others.
    pub(super) const UNKNOWN: Self = Self(0);

    /// The birth of a thread that would begin now.
    pub(super) fn now() -> Self {
        // SAFETY: `sysconf` touches no memory of ours.
        let hertz = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100);
        Self(clock::boot_ns() / (1_000_000_000 / hertz.max(1)))
    }

    /// Whether the thread with this number and birth has certainly ended. A process without a free file descriptor, or without
    /// `/proc`, may not know.
    pub(super) fn has_ended(self, thread: u32) -> bool {
        match Stat::look(thread) {
            Ok(stat) => stat.is_some_and(|stat| stat.birth != self && self != Self::UNKNOWN),
            Err(why) => signals::says_ended(thread, &why),
        }
    }
}

impl Stat {
    /// Reads a thread's file. Returns `None` if the thread has ended or its file cannot be read.
    pub(super) fn of(thread: u32) -> Option<Self> {
        Self::look(thread).ok().flatten()
    }

    /// Whether the thread blocks a signal, which is one of the first 31.
    pub(super) fn blocks(&self, signal: i32) -> bool {
        self.blocked >> (signal - 1) & 1 == 1
    }

    fn look(thread: u32) -> io::Result<Option<Self>> {
        let line = std::fs::read(format!("/proc/self/task/{thread}/stat"))?;
        Ok(Self::parse(&String::from_utf8_lossy(&line)))
    }

    fn parse(line: &str) -> Option<Self> {
        // The places of the words after the name, which may contain any character.
        const FLAGS: usize = 6;
        const BIRTH: usize = 19;
        const BLOCKED: usize = 29;
        let (_, rest) = line.rsplit_once(')')?;
        let mut words = rest.split_whitespace();
        // The kernel's PF_EXITING.
        const ENDING: u64 = 4;
        let flags: u64 = words.nth(FLAGS)?.parse().ok()?;
        let birth = Birth(words.nth(BIRTH - FLAGS - 1)?.parse().ok()?);
        let blocked = words.nth(BLOCKED - BIRTH - 1)?.parse().ok()?;
        Some(Self { birth, blocked, is_ending: flags & ENDING != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> u32 {
        // SAFETY: `gettid` takes no arguments and touches no memory.
        unsafe { libc::gettid() }.cast_unsigned()
    }

    #[test]
    fn a_thread_is_born_between_what_was_now_before_and_after() {
        let before = Birth::now();
        let born = std::thread::spawn(|| Stat::of(me())).join().unwrap().unwrap().birth;
        assert!(before <= born && born <= Birth::now(), "{born:?} is not from {before:?} on");
    }

    #[test]
    fn what_a_thread_blocks_is_seen() {
        let stat = std::thread::spawn(|| {
            signals::block_all_but_faults();
            Stat::of(me()).unwrap()
        });
        let stat = stat.join().unwrap();
        assert!(stat.blocks(libc::SIGURG) && stat.blocks(libc::SIGUSR2));
        assert!(!stat.blocks(libc::SIGTRAP) && !stat.blocks(libc::SIGSEGV));
    }

    #[test]
    fn a_thread_has_ended_when_its_number_is_free_or_anothers() {
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || tell.send((me(), Stat::of(me()).unwrap().birth)));
        let (number, birth) = told.recv().unwrap();
        thread.join().unwrap().unwrap();
        let is_gone = |stat: Stat| stat.is_ending || stat.birth != birth;
        assert!(Stat::of(number).is_none_or(is_gone), "the kernel may be at it still");
        while !birth.has_ended(number) {
            std::thread::yield_now();
        }
        let mine = Stat::of(me()).unwrap().birth;
        assert!(!mine.has_ended(me()) && Birth(mine.0 + 1).has_ended(me()));
        assert!(!Birth::UNKNOWN.has_ended(me()), "that is not known");
    }

    #[test]
    fn rubbish_is_no_thread() {
        assert_eq!(Stat::parse("7 (a) b) S 1 2"), None);
        assert_eq!(Stat::parse(""), None);
    }
}
