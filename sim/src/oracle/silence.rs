//! A node whose disk failed it says nothing more and writes nothing more (simulation, I24): whatever
//! it did would rest on what is not there.

use super::{Checked, Seen, Violation};
use crate::trace;
use lakebed::{Action, Halt};

pub(super) fn check<'a>(
    seen: &Seen<'_>,
    mut actions: impl DoubleEndedIterator<Item = &'a Action>,
) -> Checked {
    let Some(Action::Halt(halt)) = actions.next_back() else { return Ok(()) };
    let Halt::DiskFailed { file, .. } = &**halt else { return Ok(()) };
    let speaks = |action: &&Action| matches!(action, Action::Disk { .. } | Action::Send { .. });
    let Some(action) = actions.find(speaks) else { return Ok(()) };
    let what = format!("{file} failed, and this rests on it: {}", trace::action(action));
    Err(Violation::new("silence after a failed disk operation", seen.node, what))
}
