//! The names of system calls.

/// Makes the table of those that may block, by `libc`'s numbers for this processor.
macro_rules! names {
    ($($constant:ident $name:literal),* $(,)?) => {
        &[$((libc::$constant, $name)),*]
    };
}

/// The system calls in which threads wait, on every processor.
const CALLS: &[(libc::c_long, &str)] = names![
    SYS_read "read", SYS_write "write", SYS_readv "readv", SYS_writev "writev",
    SYS_pread64 "pread64", SYS_pwrite64 "pwrite64", SYS_preadv "preadv", SYS_pwritev "pwritev",
    SYS_openat "openat", SYS_close "close", SYS_fsync "fsync", SYS_fdatasync "fdatasync",
    SYS_sync "sync", SYS_syncfs "syncfs", SYS_sync_file_range "sync_file_range",
    SYS_ftruncate "ftruncate", SYS_fallocate "fallocate", SYS_getdents64 "getdents64",
    SYS_statx "statx", SYS_unlinkat "unlinkat", SYS_mkdirat "mkdirat", SYS_renameat2 "renameat2",
    SYS_flock "flock", SYS_fcntl "fcntl", SYS_ioctl "ioctl",
    SYS_sendfile "sendfile", SYS_splice "splice", SYS_copy_file_range "copy_file_range",
    SYS_socket "socket", SYS_connect "connect", SYS_accept "accept", SYS_accept4 "accept4",
    SYS_recvfrom "recvfrom", SYS_recvmsg "recvmsg", SYS_recvmmsg "recvmmsg",
    SYS_sendto "sendto", SYS_sendmsg "sendmsg", SYS_sendmmsg "sendmmsg",
    SYS_ppoll "ppoll", SYS_pselect6 "pselect6", SYS_epoll_pwait "epoll_pwait",
    SYS_epoll_pwait2 "epoll_pwait2", SYS_io_uring_enter "io_uring_enter",
    SYS_io_getevents "io_getevents", SYS_futex "futex",
    SYS_nanosleep "nanosleep", SYS_clock_nanosleep "clock_nanosleep",
    SYS_wait4 "wait4", SYS_waitid "waitid", SYS_rt_sigtimedwait "rt_sigtimedwait",
    SYS_rt_sigsuspend "rt_sigsuspend", SYS_restart_syscall "restart_syscall",
    SYS_mmap "mmap", SYS_munmap "munmap", SYS_mprotect "mprotect", SYS_madvise "madvise",
    SYS_msync "msync", SYS_mlock "mlock", SYS_brk "brk", SYS_mremap "mremap",
    SYS_sched_yield "sched_yield", SYS_membarrier "membarrier",
    SYS_clone "clone", SYS_clone3 "clone3", SYS_execve "execve",
    SYS_semtimedop "semtimedop", SYS_msgrcv "msgrcv", SYS_msgsnd "msgsnd",
    SYS_mq_timedreceive "mq_timedreceive", SYS_mq_timedsend "mq_timedsend",
    SYS_getrandom "getrandom", SYS_process_vm_readv "process_vm_readv",
];

/// Those that only older processors have.
#[cfg(target_arch = "x86_64")]
const OLD: &[(libc::c_long, &str)] = names![
    SYS_open "open", SYS_stat "stat", SYS_lstat "lstat", SYS_mkdir "mkdir", SYS_rename "rename",
    SYS_unlink "unlink", SYS_getdents "getdents", SYS_poll "poll", SYS_select "select",
    SYS_epoll_wait "epoll_wait", SYS_pause "pause", SYS_fork "fork", SYS_vfork "vfork",
];

#[cfg(not(target_arch = "x86_64"))]
const OLD: &[(libc::c_long, &str)] = &[];

/// The name of a system call, or its number where it is a rare one.
pub(super) fn name(number: i64) -> String {
    let mut known = CALLS.iter().chain(OLD);
    match known.find(|(other, _)| *other == number) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("system call {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_their_names() {
        assert_eq!(name(libc::SYS_clock_nanosleep), "clock_nanosleep");
        assert_eq!(name(libc::SYS_futex), "futex");
        assert_eq!(name(9_999), "system call 9999");
    }

    #[test]
    fn no_number_is_there_twice() {
        let mut numbers: Vec<_> = CALLS.iter().chain(OLD).map(|(number, _)| *number).collect();
        let all = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), all);
    }
}
