//! The kernel's perf events: how one is opened for a thread, and why the kernel refuses one.

mod group;
#[cfg(feature = "sampler")]
mod overflow;
mod page;
mod user_read;

pub(crate) use group::{Group, MAX_MEMBERS, Times};
#[cfg(feature = "sampler")]
pub(crate) use overflow::{Notice, Overflow};
pub(crate) use page::Page;

use perf_event_open_sys as sys;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

pub(crate) use sys::bindings::perf_event_attr as Attr;

/// What an event counts (`type` and `config` of `perf_event_attr`), and in which modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct What {
    pub(crate) kind: u32,
    pub(crate) config: u64,
    pub(crate) user: bool,
    pub(crate) kernel: bool,
}

impl What {
    /// An event that counts nothing. Its page shows the thread's switches.
    pub(crate) const DUMMY: Self = Self {
        kind: sys::bindings::PERF_TYPE_SOFTWARE,
        config: sys::bindings::PERF_COUNT_SW_DUMMY as u64,
        user: true,
        kernel: false,
    };

    pub(crate) fn user_only(self) -> Self {
        Self { kernel: false, ..self }
    }

    fn attr(self) -> Attr {
        let mut attr = Attr::default();
        attr.type_ = self.kind;
        attr.size = size_of::<Attr>() as u32;
        attr.config = self.config;
        attr.set_exclude_user(u64::from(!self.user));
        attr.set_exclude_kernel(u64::from(!self.kernel));
        // An unprivileged process may not see the hypervisor, and no user asks for it.
        attr.set_exclude_hv(1);
        attr
    }
}

/// Opens an event on a thread of this process (0: the calling one).
fn open(attr: &mut Attr, thread: u32, leader: Option<&File>) -> Result<File, Refused> {
    let leader = leader.map_or(-1, AsRawFd::as_raw_fd);
    let flags = sys::bindings::PERF_FLAG_FD_CLOEXEC.into();
    // SAFETY: `attr.size` is the size of `attr`. The kernel reads that many bytes, and may write the size.
    let fd = unsafe { sys::perf_event_open(attr, thread.cast_signed(), -1, leader, flags) };
    if fd < 0 {
        return Err(Refused::last());
    }
    // SAFETY: the kernel has just opened the descriptor, and nothing else owns it.
    let event = unsafe { File::from_raw_fd(fd) };
    // The kernel gives the lowest free number, so this many descriptors are in use. The rest belongs to the program.
    if open_files().is_some_and(|limit| fd.cast_unsigned() as u64 >= limit / 4 * 3) {
        return Err(Refused(libc::EMFILE));
    }
    Ok(event)
}

/// Tries to open an event on the calling thread.
pub(crate) fn probe(what: What) -> Result<(), Refused> {
    open(&mut what.attr(), 0, None).map(drop)
}

/// The errno with which the kernel refused an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) i32);

impl Refused {
    fn last() -> Self {
        Self(io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }

    /// Whether more privilege, or fewer modes, could help.
    pub(crate) fn is_permission(self) -> bool {
        matches!(self.0, libc::EACCES | libc::EPERM)
    }

    /// The errno's name.
    pub(crate) fn name(self) -> String {
        match self.0 {
            libc::EACCES => "EACCES".to_owned(),
            libc::EPERM => "EPERM".to_owned(),
            libc::ENOENT => "ENOENT".to_owned(),
            libc::ENOSYS => "ENOSYS".to_owned(),
            libc::EOPNOTSUPP => "EOPNOTSUPP".to_owned(),
            libc::EINVAL => "EINVAL".to_owned(),
            libc::EMFILE => "EMFILE".to_owned(),
            libc::ENFILE => "ENFILE".to_owned(),
            libc::ENODEV => "ENODEV".to_owned(),
            libc::ESRCH => "ESRCH".to_owned(),
            errno => format!("errno {errno}"),
        }
    }

    /// What the errno means, and the remedy.
    pub(crate) fn remedy(self) -> String {
        match self.0 {
            libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV => {
                "this machine, or its hypervisor, offers no such event".to_owned()
            }
            // The kernel refuses what the level forbids with EACCES, so EPERM comes from elsewhere.
            libc::EACCES if paranoid() >= Some(2) => format!(
                "kernel.perf_event_paranoid is {}: lower it to 1 (sysctl), or give CAP_PERFMON",
                paranoid().unwrap_or_default()
            ),
            libc::EACCES if paranoid().is_none() => {
                "kernel.perf_event_paranoid (which cannot be read) or a security module forbids it"
                    .to_owned()
            }
            libc::EACCES | libc::EPERM => {
                "a seccomp filter or security module forbids it: allow perf_event_open, or give CAP_PERFMON"
                    .to_owned()
            }
            libc::ENOSYS => {
                "perf_event_open is missing: the kernel lacks it, or a seccomp filter hides it".to_owned()
            }
            libc::EMFILE => {
                "three quarters of the file descriptors are in use, and the rest is left to the program: raise ulimit -n".to_owned()
            }
            libc::ENFILE => "the system is out of file descriptors: raise fs.file-max".to_owned(),
            libc::EINVAL => "the kernel does not know the event, or it does not fit its group".to_owned(),
            errno => io::Error::from_raw_os_error(errno).to_string(),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name(), self.remedy())
    }
}

/// `kernel.perf_event_paranoid`, which limits what unprivileged processes may see, or `None` if it cannot be read.
pub(crate) fn paranoid() -> Option<i32> {
    read_number("/proc/sys/kernel/perf_event_paranoid")
}

/// The number of file descriptors that the process may have, if there is a limit.
pub(crate) fn open_files() -> Option<u64> {
    limit_of(|limit| {
        // SAFETY: the kernel writes one `rlimit`, to which this function has a reference.
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, limit) }
    })
}

/// The memory in bytes that the process may lock, if there is a limit.
pub(crate) fn locked_memory_bytes() -> Option<u64> {
    limit_of(|limit| {
        // SAFETY: the kernel writes one `rlimit`, to which this function has a reference.
        unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, limit) }
    })
}

fn limit_of(get: impl FnOnce(&mut libc::rlimit) -> libc::c_int) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let told = get(&mut limit) == 0;
    (told && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

pub(crate) fn read_number(path: &str) -> Option<i32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
