//! A program that is started to be recorded from its first instruction on.

use crate::error::Error;
use crate::options::RecordOptions;
use crate::recorder::Recorder;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread;

/// A program that is started to be recorded.
#[derive(Debug)]
pub struct Launch {
    /// The program, as a child of this process.
    pub child: Child,
    /// What records it.
    pub recorder: Recorder,
}

impl Launch {
    /// Starts a program, and records it from the moment at which it begins to run.
    ///
    /// # Errors
    ///
    /// Returns an error if the program cannot be started, or if it cannot be recorded: then it is not run.
    pub fn start(
        program: &OsString,
        arguments: &[OsString],
        options: &RecordOptions,
    ) -> Result<Self, Error> {
        let failed = |what| move |cause| Error::Other { what, cause };
        let (mut number, tell) = pipe().map_err(failed("no pipe can be made"))?;
        let (wait, mut go) = pipe().map_err(failed("no pipe can be made"))?;
        let mut command = Command::new(program);
        command.args(arguments);
        let (tell_fd, wait_fd, go_fd) = (tell.as_raw_fd(), wait.as_raw_fd(), go.as_raw_fd());
        // SAFETY: between fork and exec this makes system calls alone, on descriptors that the child has and words on its stack.
        unsafe {
            command.pre_exec(move || {
                let process = libc::getpid().to_ne_bytes();
                if libc::write(tell_fd, process.as_ptr().cast(), process.len()) < 0 {
                    return Err(io::Error::last_os_error());
                }
                // The child must not wait for itself, should its parent end.
                libc::close(go_fd);
                let mut go = STAY;
                match libc::read(wait_fd, (&raw mut go).cast(), 1) {
                    1 if go == GO => Ok(()),
                    // The recorder could not begin.
                    _ => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
                }
            });
        }
        // `spawn` returns when the program runs, and it does not run before it is recorded.
        let spawned = thread::Builder::new().name("pertask-launch".to_owned()).spawn(move || {
            let child = command.spawn();
            drop((tell, wait));
            child
        });
        let spawned = spawned.map_err(failed("no thread can be started"))?;
        let recorder = match process(&mut number) {
            Some(process) => Recorder::from_exec(process, options),
            // There was no fork.
            None => Err(Error::NoProcess(0)),
        };
        // If the child is gone, `spawn` says why.
        let _ = go.write_all(&[if recorder.is_ok() { GO } else { STAY }]);
        drop(go);
        let child = spawned.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        match (child, recorder) {
            (Ok(child), Ok(recorder)) => Ok(Self { child, recorder }),
            (Err(cause), Ok(_) | Err(Error::NoProcess(_))) => {
                Err(Error::Launch { program: program.to_string_lossy().into_owned(), cause })
            }
            (_, Err(why)) => Err(why),
        }
    }
}

/// What the child is told: to run the program, or to end.
const GO: u8 = 1;
const STAY: u8 = 0;

/// The number of the child, which it writes before it runs the program.
fn process(from: &mut File) -> Option<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes).ok()?;
    u32::try_from(i32::from_ne_bytes(bytes)).ok()
}

/// Makes a pipe, whose ends no program inherits.
fn pipe() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened both, and nothing else owns them.
    let [read, write] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
    Ok((read.into(), write.into()))
}
