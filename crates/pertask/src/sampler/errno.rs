//! `errno`, which nobody finds changed after we have run in the midst of their code.

/// The value of `errno` when this was made, which it has again when this is dropped. It does not leave its thread.
pub(super) struct Errno(i32, std::marker::PhantomData<*const ()>);

impl Errno {
    pub(super) fn keep() -> Self {
        // SAFETY: `errno` is a word of the calling thread, which exists as long as the thread does.
        Self(unsafe { *libc::__errno_location() }, std::marker::PhantomData)
    }
}

impl Drop for Errno {
    fn drop(&mut self) {
        // SAFETY: `errno` is a word of the calling thread, which exists as long as the thread does.
        unsafe { *libc::__errno_location() = self.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_fails_meanwhile_is_not_seen() {
        let errno = || std::io::Error::last_os_error().raw_os_error();
        // SAFETY: no descriptor has these numbers.
        let fail = || unsafe { libc::close(-1) };
        // SAFETY: no system call has this number.
        let fail_in_another_way = || unsafe { libc::syscall(-1) };
        fail();
        assert_eq!(errno(), Some(libc::EBADF));
        let kept = Errno::keep();
        fail_in_another_way();
        assert_eq!(errno(), Some(libc::ENOSYS));
        drop(kept);
        assert_eq!(errno(), Some(libc::EBADF));
    }
}
