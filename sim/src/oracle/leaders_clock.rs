//! An entry's time is the clock of the leader that made it, as that was told to it, or, where that stands
//! behind, the time of the entry before it and what has passed since, or since it began to lead
//! (`Event::time`): no other clock has a say, and none stands still.
//!
//! Looks at leaders that led before the step too: what one knows by then it knew then.

use super::{Checked, Seen, Violation};
use lakebed::{Instant, LogId, Role, Term, Timestamp};

/// How far a leader's entries are.
#[derive(Clone, Copy, Debug)]
struct Pace {
    term: Term,
    last: LogId,
    time: Timestamp,
    /// By its node's clock.
    since: Instant,
}

#[derive(Clone, Debug)]
pub(super) struct Clocks(Vec<Option<Pace>>);

impl Clocks {
    pub(super) fn new(nodes: usize) -> Self {
        Self(vec![None; nodes])
    }

    pub(super) fn on_view(&mut self, seen: &Seen<'_>) -> Checked {
        let (probe, pace) = (&seen.probe, &mut self.0[seen.node]);
        let clocks = seen.clocks.filter(|_| probe.role == Role::Leader);
        let Some((now, clock)) = clocks else {
            *pace = None;
            return Ok(());
        };
        let (last, time) = (probe.last, probe.time);
        let before = pace.filter(|before| before.term == probe.term);
        if before.is_some_and(|before| before.last == last) {
            return Ok(());
        }
        *pace = Some(Pace { term: probe.term, last, time, since: now });
        let Some(before) = before else { return Ok(()) };
        let passed = before.time.after(now.since(before.since));
        if time == clock.max(passed) {
            return Ok(());
        }
        let what = format!(
            "dates {last} by {time} where its own clock is {clock}, and the entry before it {passed} by now"
        );
        Err(Violation::new("entries are dated by their leader", seen.node, what))
    }
}
