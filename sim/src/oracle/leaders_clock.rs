//! An entry's time is the clock of the leader that made it, as that was told to it, or the time of an
//! entry before it, if that is later (`Event::time`): no other clock has a say.
//!
//! Looks at leaders that led before the step too: what one knows by then it knew then.

use super::{Checked, Seen, Violation};
use lakebed::{Role, inspect::Probe};

pub(super) fn check(before: Option<&Probe>, seen: &Seen<'_>) -> Checked {
    let (Some(before), Some(clock)) = (before, seen.clock) else { return Ok(()) };
    let leads = |probe: &Probe| probe.role == Role::Leader && probe.term == seen.probe.term;
    if !leads(before) || !leads(&seen.probe) || before.last == seen.probe.last {
        return Ok(());
    }
    let (time, expected) = (seen.probe.time, clock.max(before.time));
    if time == expected {
        return Ok(());
    }
    let last = seen.probe.last;
    let what =
        format!("dates {last} by {time} where its own clock is {clock}, behind {}", before.time);
    Err(Violation::new("entries are dated by their leader", seen.node, what))
}
