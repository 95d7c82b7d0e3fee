//! Simulated time, as nanoseconds since the run began; a node's clocks, which go wrong; alarms.

use lakebed::{Instant, Timestamp};
use lakebed_runtime::Clock;
use madsim::time::{Sleep, TimeHandle, sleep};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

const MILLION: i128 = 1_000_000;
/// When every wall clock shows about the same: some days after the beginning of 1970.
const WALL: u64 = 1_000_000_000_000_000;

/// Nanoseconds since the run began.
pub(crate) fn now() -> u64 {
    TimeHandle::current().elapsed().as_nanos() as u64
}

/// Wakes a task at a time, once.
#[derive(Default)]
pub(crate) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When it goes off.
    at: u64,
}

impl Alarm {
    /// Goes off at this time or before, when whoever set it looks again.
    pub(crate) fn set(&mut self, cx: &mut Context<'_>, at: u64) {
        let now = now();
        if self.sleep.is_some() && self.at > now && self.at <= at {
            return;
        }
        // Reset, for a new one sleeps for a millisecond at least, as tokio's does.
        let mut sleep = Box::pin(sleep(Duration::ZERO));
        let base = TimeHandle::current().now_instant();
        sleep.as_mut().reset(base + Duration::from_nanos(at.saturating_sub(now)));
        if sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        (self.sleep, self.at) = (Some(sleep), at);
    }
}

/// How a machine's clocks differ from the simulation's.
#[derive(Clone, Copy, Debug)]
struct Error {
    /// What the monotonic clock showed when the run began.
    offset: u64,
    drift_ppm: i64,
    /// What the wall clock was set forward or back by.
    stepped: i64,
}

/// The clocks of a machine, which outlive its processes.
#[derive(Clone, Debug)]
pub(crate) struct MachineClock(Arc<Mutex<Error>>);

impl MachineClock {
    pub(crate) fn new(offset: u64, drift_ppm: i64) -> Self {
        Self(Arc::new(Mutex::new(Error { offset, drift_ppm, stepped: 0 })))
    }

    /// Sets the wall clock forward or back.
    pub(crate) fn step(&self, nanos: i64) {
        let mut error = self.error();
        error.stepped = error.stepped.saturating_add(nanos);
    }

    /// For one process.
    pub(crate) fn open(&self) -> NodeClock {
        NodeClock { machine: self.clone(), alarm: Alarm::default() }
    }

    fn error(&self) -> MutexGuard<'_, Error> {
        self.0.lock().expect("nothing panics while it holds a clock")
    }
}

/// The clocks, as a process sees them.
pub(crate) struct NodeClock {
    machine: MachineClock,
    alarm: Alarm,
}

impl Error {
    const fn local(self, now: u64) -> u64 {
        let moved = now as i128 * (MILLION + self.drift_ppm as i128) / MILLION;
        self.offset + moved as u64
    }

    /// The first time at which the clock shows this.
    const fn global(self, local: u64) -> u64 {
        let moved = local.saturating_sub(self.offset) as i128;
        let pace = MILLION + self.drift_ppm as i128;
        ((moved * MILLION + pace - 1) / pace) as u64
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Instant {
        Instant(self.machine.error().local(now()))
    }

    fn time(&self) -> Timestamp {
        let error = self.machine.error();
        Timestamp((WALL + error.local(now()) - error.offset).saturating_add_signed(error.stepped))
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        if self.now() >= deadline {
            return Poll::Ready(());
        }
        let at = self.machine.error().global(deadline.0);
        self.alarm.set(cx, at);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_read_both_ways() {
        for drift_ppm in [-50_000, -3, 0, 7, 50_000] {
            let clock = Error { offset: 1 << 39, drift_ppm, stepped: 0 };
            for now in [0, 1, 999, 1_000_003, 86_400_000_000_000] {
                let shown = clock.local(now);
                let first = clock.global(shown);
                assert!(first <= now && clock.local(first) >= shown, "{drift_ppm} {now}");
                assert!(clock.local(clock.global(shown + 1)) > shown, "{drift_ppm} {now}");
            }
        }
    }
}
