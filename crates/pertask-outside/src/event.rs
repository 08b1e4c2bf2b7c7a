//! The perf events: one for each thread of the process on each CPU, as the kernel wants it where new threads are to be followed.

use crate::error::Error;
use crate::options::RecordOptions;
use crate::record::SAMPLE;
use crate::registers;
use perf_event_open_sys as sys;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;
use sys::bindings::perf_event_attr as Attr;

/// What the events see, and when they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Whether time in the kernel is sampled.
    pub(crate) kernel: bool,
    /// Whether the events begin when the process begins to run a program.
    pub(crate) from_exec: bool,
    /// Whether the kernel can tell threads from processes where they are made. If not, it follows children, too.
    pub(crate) threads_alone: bool,
}

impl Kind {
    fn attr(self, options: &RecordOptions, wakeup_bytes: u32) -> Attr {
        let mut attr = Attr::default();
        attr.type_ = sys::bindings::PERF_TYPE_SOFTWARE;
        attr.size = size_of::<Attr>() as u32;
        attr.config = sys::bindings::PERF_COUNT_SW_CPU_CLOCK.into();
        attr.__bindgen_anon_1.sample_period = options.period_ns();
        attr.sample_type = SAMPLE;
        attr.sample_regs_user = registers::mask();
        attr.sample_stack_user = options.stack_bytes;
        attr.set_disabled(1);
        attr.set_enable_on_exec(u64::from(self.from_exec));
        attr.set_inherit(1);
        attr.set_inherit_thread(u64::from(self.threads_alone));
        attr.set_exclude_kernel(u64::from(!self.kernel));
        attr.set_exclude_hv(1);
        attr.set_mmap(1);
        attr.set_mmap2(1);
        attr.set_comm(1);
        attr.set_task(1);
        attr.set_comm_exec(1);
        attr.set_watermark(1);
        attr.__bindgen_anon_2.wakeup_watermark = wakeup_bytes;
        attr
    }

    /// Opens an event on a thread and a CPU, which wakes its reader when there are so many bytes to read.
    pub(crate) fn open(
        self,
        options: &RecordOptions,
        thread: u32,
        cpu: u32,
        wakeup_bytes: u32,
    ) -> io::Result<File> {
        let mut attr = self.attr(options, wakeup_bytes);
        let flags = sys::bindings::PERF_FLAG_FD_CLOEXEC.into();
        // SAFETY: `attr.size` is the size of `attr`. The kernel reads that many bytes, and may write the size.
        let fd = unsafe {
            sys::perf_event_open(&raw mut attr, thread.cast_signed(), cpu.cast_signed(), -1, flags)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened the descriptor, and nothing else owns it.
        Ok(unsafe { File::from_raw_fd(fd) })
    }

    /// Returns the kind that tells most of what the kernel allows for a thread.
    pub(crate) fn best(
        options: &RecordOptions,
        thread: u32,
        cpu: u32,
        from_exec: bool,
    ) -> Result<Self, Error> {
        let mut refusal = None;
        for (kernel, threads_alone) in [(true, true), (true, false), (false, true), (false, false)]
        {
            let kind = Self { kernel, from_exec, threads_alone };
            match kind.open(options, thread, cpu, 1) {
                Ok(_) => return Ok(kind),
                Err(cause) => refusal = Some(cause),
            }
        }
        let cause = refusal.unwrap_or_else(io::Error::last_os_error);
        Err(Error::Perf { remedy: remedy(&cause), cause })
    }
}

/// What to do about a refusal.
fn remedy(cause: &io::Error) -> String {
    match cause.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => match paranoid() {
            Some(level) if level > 2 => format!(
                "kernel.perf_event_paranoid is {level}: sudo sysctl kernel.perf_event_paranoid=2, or run as root"
            ),
            _ => "run as the user of that process or as root; in a container allow perf_event_open (a seccomp profile for it, or --cap-add PERFMON)".to_owned(),
        },
        Some(libc::ENOSYS) => {
            "the kernel lacks perf_event_open, or a seccomp filter hides it: allow it in the container's seccomp profile".to_owned()
        }
        Some(libc::EMFILE) => "raise ulimit -n: there is a descriptor for each thread on each CPU".to_owned(),
        _ => "this kernel may be too old (4.3 is needed)".to_owned(),
    }
}

/// `kernel.perf_event_paranoid`, or `None` if it cannot be read.
pub(crate) fn paranoid() -> Option<i32> {
    std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?.trim().parse().ok()
}

/// Why time in the kernel is not sampled, and the remedy.
pub(crate) fn without_kernel() -> String {
    let level = paranoid().map_or(String::new(), |level| format!(" ({level} here)"));
    format!(
        "the kernel lets this user sample user mode alone: for the rest, lower kernel.perf_event_paranoid{level} to 1, or run as root"
    )
}

/// The capability with which a process may trace others.
pub(crate) const CAP_SYS_PTRACE: u32 = 19;

/// Whether this process has a capability.
pub(crate) fn has_capability(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> number & 1 == 1)
}

/// Lets an event write into the ring of another one on the same CPU.
pub(crate) fn share(event: &File, ring: &File) -> io::Result<()> {
    // SAFETY: both descriptors are of events that the caller owns.
    let done = unsafe { sys::ioctls::SET_OUTPUT(event.as_raw_fd(), ring.as_raw_fd()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The number that samples of an event have, and those of events that threads have inherited from it.
pub(crate) fn number(event: &File) -> io::Result<u64> {
    let mut number = 0;
    // SAFETY: the kernel writes one number, and the caller owns the event.
    let done = unsafe { sys::ioctls::ID(event.as_raw_fd(), &raw mut number) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(number) }
}

/// Starts an event.
pub(crate) fn enable(event: &File) -> io::Result<()> {
    // SAFETY: the ioctl touches no memory, and the caller owns the event.
    let done = unsafe { sys::ioctls::ENABLE(event.as_raw_fd(), 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Stops an event, with those of the threads that have inherited it.
pub(crate) fn disable(event: &File) {
    // SAFETY: the ioctl touches no memory, and the caller owns the event. If it fails, there is nothing to stop.
    unsafe { sys::ioctls::DISABLE(event.as_raw_fd(), 0) };
}

/// Waits until one of the events has something to read, or the time is over.
pub(crate) fn wait<'a>(events: impl Iterator<Item = &'a File>, most: Duration) -> io::Result<()> {
    let of =
        |event: &File| libc::pollfd { fd: event.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut polled: Vec<_> = events.map(of).collect();
    let most = i32::try_from(most.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the kernel writes to so many entries, which this function owns.
    let done = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, most) };
    match done {
        0.. => {
            // Once all threads of an event have ended, it is always ready.
            if polled.iter().any(|it| it.revents & libc::POLLHUP != 0) {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        }
        _ => match io::Error::last_os_error() {
            cause if cause.kind() == io::ErrorKind::Interrupted => Ok(()),
            cause => Err(cause),
        },
    }
}

/// Raises the number of descriptors that this process may have, as far as it is allowed to.
pub(crate) fn raise_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one limit, and then reads it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// The CPUs that are online.
pub(crate) fn cpus() -> Vec<u32> {
    let listed = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let cpus = parse_cpus(&listed);
    if cpus.is_empty() {
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        return (0..count as u32).collect();
    }
    cpus
}

/// Parses a list such as `0-3,5`.
fn parse_cpus(listed: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u32>().ok()?..=last.trim().parse::<u32>().ok()?)
    };
    listed.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::parse_cpus;

    #[test]
    fn a_list_of_cpus_has_ranges_and_single_ones() {
        assert_eq!(parse_cpus("0-1\n"), [0, 1]);
        assert_eq!(parse_cpus("0-2,5,7-8\n"), [0, 1, 2, 5, 7, 8]);
        assert!(parse_cpus("").is_empty());
    }
}
