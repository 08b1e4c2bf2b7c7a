//! Ctrl-C and SIGTERM: the first one ends the command early and in order, the second one at once.

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::error::Error;

/// Tells whether the user asked to stop.
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Takes over SIGINT and SIGTERM, for the rest of the process. Call it inside a runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Signals`] where the handlers cannot be installed.
    pub fn on_signals() -> Result<Self, Error> {
        let interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        let terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let (asked, stop) = watch::channel(false);
        tokio::spawn(listen(interrupt, terminate, asked));
        Ok(Self(stop))
    }

    /// Waits for the first signal; returns at once if it has come.
    pub async fn asked(&mut self) {
        if self.0.wait_for(|asked| *asked).await.is_err() {
            // The listener is gone with its runtime: no signal can come any more.
            std::future::pending::<()>().await;
        }
    }
}

async fn listen(mut interrupt: Signal, mut terminate: Signal, asked: watch::Sender<bool>) {
    either(&mut interrupt, &mut terminate).await;
    asked.send_replace(true);
    // Impatience: a second signal does not wait for the shutdown or for the report.
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
