//! What the kernel counts without perf events: `getrusage` has faults and switches, and `sched_getcpu` says on which CPU a
//! thread is.

use perf_event_open_sys::bindings as sys;

/// A figure of `getrusage`, by the perf event that counts the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    PageFaults,
    MinorFaults,
    MajorFaults,
    ContextSwitches,
}

/// The figures of a thread since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    minor_faults: u64,
    major_faults: u64,
    switches: u64,
}

impl Figure {
    pub(super) fn of_software_event(number: u64) -> Option<Self> {
        const PAGE_FAULTS: u32 = sys::PERF_COUNT_SW_PAGE_FAULTS;
        const MINOR: u32 = sys::PERF_COUNT_SW_PAGE_FAULTS_MIN;
        const MAJOR: u32 = sys::PERF_COUNT_SW_PAGE_FAULTS_MAJ;
        const SWITCHES: u32 = sys::PERF_COUNT_SW_CONTEXT_SWITCHES;
        match u32::try_from(number).ok()? {
            PAGE_FAULTS => Some(Self::PageFaults),
            MINOR => Some(Self::MinorFaults),
            MAJOR => Some(Self::MajorFaults),
            SWITCHES => Some(Self::ContextSwitches),
            _ => None,
        }
    }
}

impl Usage {
    /// The figures of the calling thread.
    pub(super) fn of_this_thread() -> Option<Self> {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the kernel writes one `rusage`, into memory of this function's own.
        let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
        if result != 0 {
            return None;
        }
        // SAFETY: all fields are integers, which were zeroed and then written by the kernel.
        let usage = unsafe { usage.assume_init() };
        Some(Self {
            minor_faults: usage.ru_minflt.cast_unsigned(),
            major_faults: usage.ru_majflt.cast_unsigned(),
            switches: (usage.ru_nvcsw + usage.ru_nivcsw).cast_unsigned(),
        })
    }

    /// The figures of another thread of this process, by `/proc`.
    pub(super) fn of_thread(thread: u32) -> Option<Self> {
        let read = |file| std::fs::read_to_string(format!("/proc/self/task/{thread}/{file}")).ok();
        let stat = read("stat")?;
        // The thread's name may contain any character, a bracket too.
        let (_, after_name) = stat.rsplit_once(')')?;
        let mut fields = after_name.split_ascii_whitespace();
        let (minor, major) = (fields.nth(7)?, fields.nth(1)?);
        let status = read("status")?;
        let switches = status.lines().filter_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.ends_with("voluntary_ctxt_switches").then(|| value.trim().parse::<u64>().ok())?
        });
        Some(Self {
            minor_faults: minor.parse().ok()?,
            major_faults: major.parse().ok()?,
            switches: switches.sum(),
        })
    }

    pub(super) fn get(self, figure: Figure) -> u64 {
        match figure {
            Figure::PageFaults => self.minor_faults + self.major_faults,
            Figure::MinorFaults => self.minor_faults,
            Figure::MajorFaults => self.major_faults,
            Figure::ContextSwitches => self.switches,
        }
    }
}

/// The CPU on which the calling thread runs.
pub(super) fn current_cpu() -> Option<u32> {
    // SAFETY: `sched_getcpu` takes no arguments and touches no memory.
    u32::try_from(unsafe { libc::sched_getcpu() }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_tells_what_getrusage_tells() {
        // SAFETY: `gettid` takes no arguments and touches no memory.
        let thread = unsafe { libc::gettid() }.cast_unsigned();
        // Fresh pages: each causes a fault.
        drop(std::hint::black_box(vec![1_u8; 1 << 22]));
        let before = Usage::of_this_thread().unwrap();
        let seen = Usage::of_thread(thread).unwrap();
        let after = Usage::of_this_thread().unwrap();
        for figure in
            [Figure::PageFaults, Figure::MinorFaults, Figure::MajorFaults, Figure::ContextSwitches]
        {
            let range = before.get(figure)..=after.get(figure);
            assert!(range.contains(&seen.get(figure)), "{figure:?}: {seen:?} not in {range:?}");
        }
        assert!(before.get(Figure::PageFaults) > 0);
    }
}
