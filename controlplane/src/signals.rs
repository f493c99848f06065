//! What the operating system tells a node.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
pub(crate) enum Told {
    /// To finish what runs; a second time: to stop at once.
    Finish,
    /// To read the configuration again.
    Reload,
}

/// The signals that a node listens to.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Listens from now on.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Finish,
            _ = self.interrupt.recv() => Told::Finish,
            _ = self.hang_up.recv() => Told::Reload,
        }
    }
}
