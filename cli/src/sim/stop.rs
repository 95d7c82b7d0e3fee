//! Ctrl-C ends what is under way with what it came to so far; twice ends it at once.

use crate::{block_on, signals::Signals};
use anyhow::Result;
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

/// How a shell reports that a process was ended by Ctrl-C.
pub(super) const INTERRUPTED: u8 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);

/// From here on signals are heard, not obeyed.
pub(super) fn listen() {
    thread::spawn(|| -> Result<()> {
        block_on(async {
            let mut signals = Signals::listen()?;
            signals.next().await;
            ASKED.store(true, Relaxed);
            signals.die_at_next().await
        })
    });
}

/// Whether somebody wants it to end.
pub(super) fn is_asked() -> bool {
    ASKED.load(Relaxed)
}
