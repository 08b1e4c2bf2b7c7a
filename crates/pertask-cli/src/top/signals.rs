//! The thread that hears signals: those that end the command, and those that stop it and let it go on.
//!
//! The first signal ends the command in order, the second one at once: the main thread may hang in a terminal that takes nothing.

use std::{
    future, io, process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::process::{Signal, getpid, kill_current_process_group, kill_process};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

use super::{
    inbox::{Happening, Inbox},
    screen,
};

/// The signals that ask the command to end.
const STOP: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// Puts signals into the inbox, for the rest of the process.
///
/// # Errors
///
/// Returns the error if the handlers cannot be installed, or no thread can be started.
pub fn listen(inbox: &Arc<Inbox>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let asked = Arc::new(AtomicBool::new(false));
    for of in STOP {
        let (inbox, asked) = (Arc::clone(inbox), Arc::clone(&asked));
        hear(&runtime, of, move || stop(&inbox, &asked, of.as_raw()))?;
    }
    let tell = |happening: fn() -> Happening| {
        let inbox = Arc::clone(inbox);
        move || {
            // Nobody shows anything after the end, so nobody needs to know.
            let _ = inbox.push(happening());
        }
    };
    hear(&runtime, Signal::TSTP, tell(|| Happening::Suspend))?;
    hear(&runtime, Signal::CONT, tell(|| Happening::Resumed))?;
    let forever = move || runtime.block_on(future::pending::<()>());
    thread::Builder::new().name("top-signals".to_owned()).spawn(forever)?;
    Ok(())
}

/// Calls `heard` for each signal of a kind.
fn hear(runtime: &Runtime, of: Signal, heard: impl Fn() + Send + 'static) -> io::Result<()> {
    let _runtime = runtime.enter();
    let mut signals = signal(SignalKind::from_raw(of.as_raw()))?;
    runtime.spawn(async move {
        while signals.recv().await.is_some() {
            heard();
        }
    });
    Ok(())
}

fn stop(inbox: &Inbox, asked: &AtomicBool, signal: i32) {
    // Relaxed: it orders nothing else.
    let is_second = asked.swap(true, Ordering::Relaxed);
    if is_second || inbox.push(Happening::Stop(signal)).is_break() {
        screen::abandon();
        process::exit(128 + signal);
    }
}

/// Stops the whole job, as Ctrl-Z does where the terminal makes it a signal. It comes back to us as [`Happening::Suspend`].
pub fn suspend_job() {
    // Without a job, there is nobody to give the terminal to.
    let _ = kill_current_process_group(Signal::TSTP);
}

/// Stops this process until it is told to go on.
pub fn stop_self() {
    let _ = kill_process(getpid(), Signal::STOP);
}
