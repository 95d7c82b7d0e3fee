//! Ctrl-C and its relative: once to stop cleanly, twice to stop at once; and the signal that is to
//! be none.

use crate::{
    block_on,
    log::{self, note},
};
use anyhow::Result;
use std::{io, process};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How a shell reports that a process was ended by Ctrl-C.
pub(crate) const INTERRUPTED: i32 = 130;

/// From here on a limit on the size of files is an error of the write that meets it, and not the end
/// of the process.
pub(crate) fn outlive_limits() -> Result<()> {
    // It is caught as long as the process lives, whether or not anybody listens any more.
    let kind = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    block_on(async { Ok(signal(kind)?) }).map(drop)
}

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
