//! A group of events of one thread. They run in the processor's counters together or not at all, so that their ratios mean
//! something. They are read together, too.

use super::{Page, Refused, What, open, user_read};
use perf_event_open_sys as sys;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;

/// The most events in a group.
pub(crate) const MAX_MEMBERS: usize = 12;

/// Events of one thread, which are open and count from zero.
#[derive(Debug)]
pub(crate) struct Group {
    /// INVARIANT: at least one, at most `MAX_MEMBERS`; the first is the leader.
    events: Vec<File>,
    /// A page for each event, or none. Without pages, counts are read by system call.
    pages: Vec<Page>,
}

/// How long a group was meant to count, and how long it did. The second is less where there were too few counters for all groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) enabled_ns: u64,
    pub(crate) running_ns: u64,
}

/// The values of `config1` that ask for user-space reads, best first. arm64 demands such a value, and counts in 64 bits if it
/// can.
#[cfg(target_arch = "aarch64")]
const USER_READS: [u64; 3] = [3, 2, 0];
#[cfg(not(target_arch = "aarch64"))]
const USER_READS: [u64; 1] = [0];

impl Group {
    /// Opens a group on a thread of this process (0: the calling thread).
    ///
    /// If `user_reads` is set, this maps the pages, so that the thread can read its counts without system calls where the
    /// kernel allows it.
    pub(crate) fn open(members: &[What], thread: u32, user_reads: bool) -> Result<Self, Refused> {
        let ways = if user_reads { &USER_READS[..] } else { &[0] };
        let mut refused = Refused(libc::EINVAL);
        for way in ways {
            match Self::open_events(members, thread, *way) {
                Ok(events) => {
                    let pages = if user_reads { map_all(&events) } else { Vec::new() };
                    let group = Self { events, pages };
                    group.start()?;
                    return Ok(group);
                }
                Err(now) => refused = now,
            }
        }
        Err(refused)
    }

    fn open_events(members: &[What], thread: u32, config1: u64) -> Result<Vec<File>, Refused> {
        use sys::bindings::{
            PERF_FORMAT_GROUP, PERF_FORMAT_TOTAL_TIME_ENABLED, PERF_FORMAT_TOTAL_TIME_RUNNING,
            PERF_TYPE_SOFTWARE,
        };
        if members.is_empty() || members.len() > MAX_MEMBERS {
            return Err(Refused(libc::EINVAL));
        }
        let mut events: Vec<File> = Vec::with_capacity(members.len());
        for member in members {
            let mut attr = member.attr();
            attr.read_format = u64::from(
                PERF_FORMAT_GROUP | PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING,
            );
            // The leader starts all events.
            attr.set_disabled(u64::from(events.is_empty()));
            if member.kind != PERF_TYPE_SOFTWARE {
                attr.__bindgen_anon_3.config1 = config1;
            }
            events.push(open(&mut attr, thread, events.first())?);
        }
        Ok(events)
    }

    fn start(&self) -> Result<(), Refused> {
        // SAFETY: this ioctl touches no memory, and the descriptor is of an event that `self` owns.
        let started = unsafe { sys::ioctls::ENABLE(self.events[0].as_raw_fd(), 0) };
        if started < 0 { Err(Refused::last()) } else { Ok(()) }
    }

    /// Reads all counts, in the members' order, on the group's own thread. This takes a system call only if the kernel does not
    /// allow a read in user space at this moment.
    #[inline]
    pub(crate) fn read(&self, counts: &mut [u64]) -> Option<Times> {
        self.read_in_user_space(counts).or_else(|| self.read_by_system_call(counts))
    }

    #[inline]
    fn read_in_user_space(&self, counts: &mut [u64]) -> Option<Times> {
        let mut times = None;
        for (page, count) in self.pages.iter().zip(counts) {
            let user_read::Reading { count: now, enabled_ns, running_ns } = page.read()?;
            // The page's times date from the moment at which the kernel last wrote it. That does not matter as long as both are
            // equal. If they differ, the group takes turns with others, and only the kernel knows its times.
            if enabled_ns != running_ns {
                return None;
            }
            *count = now;
            times.get_or_insert(Times { enabled_ns, running_ns });
        }
        times
    }

    /// Reads all counts, in the members' order, on any thread.
    pub(crate) fn read_by_system_call(&self, counts: &mut [u64]) -> Option<Times> {
        const HEADER: usize = 3;
        const WORD: usize = size_of::<u64>();
        let mut bytes = [0; (HEADER + MAX_MEMBERS) * WORD];
        let wanted = &mut bytes[..(HEADER + self.events.len()) * WORD];
        if (&self.events[0]).read(wanted).ok()? != wanted.len() {
            return None;
        }
        let word = |at: usize| {
            let bytes = wanted[at * WORD..].first_chunk();
            bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
        };
        for (place, count) in counts.iter_mut().take(self.events.len()).enumerate() {
            *count = word(HEADER + place);
        }
        Some(Times { enabled_ns: word(1), running_ns: word(2) })
    }

    /// The number of events in the group.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether every thread of this machine could read counts in user space, as far as the kinds of its cores go.
    pub(crate) fn may_read_in_user_space() -> bool {
        user_read::cores_are_alike()
    }

    /// Whether the group's own thread, which calls this, can read the counts in user space at this moment.
    pub(crate) fn reads_in_user_space(&self) -> bool {
        self.read_in_user_space(&mut [0; MAX_MEMBERS]).is_some()
    }
}

/// Maps the pages of all events, or of none, because a limit on locked memory may refuse some.
fn map_all(events: &[File]) -> Vec<Page> {
    events.iter().map(Page::map).collect::<Result<_, _>>().unwrap_or_default()
}
