//! Ctrl-C and SIGTERM: the first signal ends the command early but in order, the second one at once.

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::error::Error;

/// Tells whether the user has asked the command to stop.
pub struct Stop(watch::Receiver<Option<i32>>);

impl Stop {
    /// Handles SIGINT and SIGTERM for the rest of the process. It must be called inside a runtime.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Signals`] if the handlers cannot be installed.
    pub fn on_signals() -> Result<Self, Error> {
        let interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        let terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let (asked, stop) = watch::channel(None);
        tokio::spawn(listen(interrupt, terminate, asked));
        Ok(Self(stop))
    }

    /// Waits for the first signal, and returns at once if it has come already. Returns its number.
    pub async fn asked(&mut self) -> i32 {
        match self.0.wait_for(Option::is_some).await.map(|asked| *asked) {
            Ok(Some(signal)) => signal,
            // The listener has ended with its runtime, so no signal can come any more.
            _ => std::future::pending().await,
        }
    }
}

async fn listen(mut interrupt: Signal, mut terminate: Signal, asked: watch::Sender<Option<i32>>) {
    let signal = either(&mut interrupt, &mut terminate).await;
    asked.send_replace(Some(signal));
    // A second signal waits neither for the shutdown nor for the report.
    let signal_number = either(&mut interrupt, &mut terminate).await;
    std::process::exit(128 + signal_number);
}

/// Waits for either signal and returns its number.
async fn either(interrupt: &mut Signal, terminate: &mut Signal) -> i32 {
    tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
    }
}
