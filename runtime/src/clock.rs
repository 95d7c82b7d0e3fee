//! The clock of the machine: monotonic, suspended time included, and tokio's timer.
//!
//! Knows nobody who waits but its task. Invariant: a deadline is never early, and late by a second at most,
//! however long the machine was suspended.

use crate::driver::Clock;
use lakebed::{Instant, Timestamp};
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant as TimerInstant, Sleep, sleep_until};

/// How far ahead the timer is set. It stands still while the machine is suspended, and the clock goes on: what
/// was left of it then is how late a deadline that came meanwhile is noticed. The shortest election timeout of
/// the defaults is as long, and one look at the clock in a second costs nothing that could be measured.
const AHEAD_MAX: Duration = Duration::from_secs(1);

/// How often an engine is told the wall clock: what a hand sets it by is known that much later.
const TIME_EVERY: Duration = Duration::from_secs(1);

/// When an engine is told the wall clock next.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Telling {
    due: Instant,
}

impl Telling {
    /// What to tell now, at the beginning and a second after the last time at the earliest.
    pub(crate) fn due(&mut self, clock: &impl Clock, now: Instant) -> Option<Timestamp> {
        (now >= self.due).then(|| {
            self.due = now.after(TIME_EVERY);
            clock.time()
        })
    }
}

/// [`Clock`] by the system's clocks. Deadlines need a tokio runtime with time. One that came while the machine
/// was suspended is noticed within a second of its awakening.
#[derive(Debug, Default)]
pub struct SystemClock {
    timer: Option<Pin<Box<Sleep>>>,
    /// When the timer fires: at the deadline, or earlier.
    armed: Option<Instant>,
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant(nanos(clock_gettime(ClockId::Boottime)))
    }

    fn time(&self) -> Timestamp {
        Timestamp(nanos(clock_gettime(ClockId::Realtime)))
    }

    /// Deadlines move on with almost every event. The timer is moved only when it would fire too
    /// late: firing early costs one more look at the clock, moving it costs more, each time.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let now = self.now();
        if now >= deadline {
            return Poll::Ready(());
        }
        if self.armed.is_none_or(|armed| armed > deadline || armed <= now) {
            self.arm(now, deadline.min(now.after(AHEAD_MAX)));
        }
        let timer = self.timer.as_mut().expect("it has just been armed");
        if timer.as_mut().poll(cx).is_ready() {
            // The deadline is further away, or its clock ran ahead of ours: look again at once.
            self.armed = None;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl SystemClock {
    fn arm(&mut self, now: Instant, at: Instant) {
        let when = TimerInstant::now() + at.since(now);
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(when),
            None => self.timer = Some(Box::pin(sleep_until(when))),
        }
        self.armed = Some(at);
    }
}

fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::poll_fn,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        task::{Wake, Waker},
    };
    use tokio::time::advance;

    #[tokio::test]
    async fn a_deadline_is_never_early_and_may_be_moved() {
        let mut clock = SystemClock::default();
        let start = clock.now();
        let (far, near) =
            (start.after(Duration::from_secs(60)), start.after(Duration::from_millis(5)));
        poll_fn(|cx| {
            assert!(clock.poll_deadline(cx, Some(far)).is_pending());
            assert!(clock.poll_deadline(cx, None).is_pending());
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| clock.poll_deadline(cx, Some(near))).await;
        assert!(clock.now() >= near && clock.now() < far);
        poll_fn(|cx| clock.poll_deadline(cx, Some(near.after(Duration::from_millis(5))))).await;
        assert!(clock.now() >= near.after(Duration::from_millis(5)));
    }

    #[tokio::test]
    async fn one_that_comes_soon_is_not_early_and_is_not_waited_for_longer_than_it_takes() {
        let mut clock = SystemClock::default();
        let far = clock.now().after(Duration::from_secs(60));
        poll_fn(|cx| {
            assert!(clock.poll_deadline(cx, Some(far)).is_pending());
            let near = clock.now().after(Duration::from_millis(1));
            if clock.poll_deadline(cx, Some(near)).is_ready() {
                assert!(clock.now() >= near);
            }
            let later = clock.now().after(Duration::from_millis(100));
            if clock.poll_deadline(cx, Some(later)).is_pending() {
                assert!(clock.armed.is_some_and(|armed| armed <= later), "it would be late");
            }
            Poll::Ready(())
        })
        .await;
    }

    /// The timer stands still while the machine is suspended, and the clock does not: what is left of the
    /// timer is how late a deadline that came meanwhile is noticed.
    #[tokio::test]
    async fn the_timer_never_has_far_to_go() {
        let mut clock = SystemClock::default();
        let far = clock.now().after(Duration::from_secs(60));
        let polled = poll_fn(|cx| Poll::Ready(clock.poll_deadline(cx, Some(far)))).await;
        assert!(polled.is_pending());
        let left = clock.timer.as_ref().unwrap().deadline() - TimerInstant::now();
        assert!(left <= AHEAD_MAX, "late by {left:?} after a suspend");
        assert!(clock.armed.unwrap() < far);
    }

    /// Counts how often it woke somebody.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// The timer has fired, and nothing else would wake whoever waits.
    #[tokio::test(start_paused = true)]
    async fn one_that_is_further_than_the_timer_is_looked_at_again_at_once() {
        let mut clock = SystemClock::default();
        let far = clock.now().after(Duration::from_secs(3600));
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let mut poll = || clock.poll_deadline(&mut Context::from_waker(&waker), Some(far));
        assert!(poll().is_pending());
        advance(AHEAD_MAX * 2).await;
        assert_eq!(woken.0.load(SeqCst), 1, "the timer has come");
        assert!(poll().is_pending());
        assert_eq!(woken.0.load(SeqCst), 2);
        // It is set anew.
        assert!(poll().is_pending());
        assert_eq!(woken.0.load(SeqCst), 2);
        advance(AHEAD_MAX * 2).await;
        assert_eq!(woken.0.load(SeqCst), 3);
    }

    #[test]
    fn time_goes_on() {
        let clock = SystemClock::default();
        let (now, time) = (clock.now(), clock.time());
        assert!(clock.now() >= now && now > Instant(0));
        assert!(clock.time() > Timestamp(1_700_000_000_000_000_000) && time > Timestamp(0));
    }
}
