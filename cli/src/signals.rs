//! Ctrl-C and its relative: once to stop cleanly, twice to stop at once.

use crate::log::{self, note};
use std::{io, process};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How a shell reports that a process was ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

/// The signals that ask a process to stop.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From here on signals are heard, not obeyed.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Resolves at the next signal.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Ends the process at the next signal: the disk survives that.
    pub(crate) async fn die_at_next(&mut self) -> ! {
        self.next().await;
        note("stopped at once");
        log::flush();
        process::exit(INTERRUPTED)
    }
}
