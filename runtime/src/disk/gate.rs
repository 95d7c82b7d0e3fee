//! What may wait makes room for commits: between its pieces it waits for them to pause.

use std::{
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The longest that a piece of a new file waits for commits to pause. Under a load that never does
/// the next segment must still be ready in time: with [`PIECE_BYTES`](super::zeros::PIECE_BYTES), two seconds of it in one.
const YIELD_MAX: Duration = Duration::from_micros(250);

/// Whether commits are on their way: background work waits, but not for ever.
#[derive(Default)]
pub(super) struct Gate {
    traffic: Mutex<Traffic>,
    paused: Condvar,
}

#[derive(Default)]
struct Traffic {
    busy: bool,
    /// Somebody waits for a pause: waking nobody costs a system call too, on the commit path.
    awaited: bool,
}

impl Gate {
    pub(super) fn set_busy(&self, busy: bool) {
        let mut traffic = self.traffic();
        traffic.busy = busy;
        if !busy && mem::take(&mut traffic.awaited) {
            self.paused.notify_all();
        }
    }

    pub(super) fn await_pause(&self) {
        let mut traffic = self.traffic();
        traffic.awaited = traffic.busy;
        drop(self.paused.wait_timeout_while(traffic, YIELD_MAX, |traffic| traffic.busy));
    }

    /// It is whole at every instant, whoever panicked.
    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
