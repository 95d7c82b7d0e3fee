//! What a node is to have twice once nothing happens: proof of all that it calls durable, what full segments
//! hold, by their slots and by the record at their end, and behind a snapshot of its own the one before, with
//! the log from there on (storage.md: *proven*; compaction).
//!
//! Above what is proven a bad entry is taken for torn and cut, and without an older snapshot the newest must
//! be whole. Damage strikes only what is there twice by the disk's own records, so a node that keeps too
//! little is never struck: this looks whether there is enough to strike. Knows no files.

use super::{Checked, Violation};
use crate::trial::Left;
use lakebed::LogIndex;

/// `left`: by a power cut; `is_struck`: damage or a failure may have taken one of two.
pub(super) fn check(node: usize, durable: LogIndex, left: &Left, is_struck: bool) -> Checked {
    let complain = |what: String| Err(Violation::new("what is there twice", node, what));
    if let Some(sequence) = left.untold {
        return complain(format!("a power cut would take the end record of segment {sequence}"));
    }
    let found = left.found.as_deref();
    let Some((found, log)) = found.and_then(|found| Some((found, found.log?))) else {
        return complain(format!("holds no log after a power cut, and {durable} is durable"));
    };
    if log.proven < durable {
        return complain(format!("{durable} is durable, and proven up to {}", log.proven));
    }
    let mut whole = found.snapshots.iter().rev().filter(|snapshot| snapshot.content.is_ok());
    let newest =
        whole.next().filter(|newest| newest.content.as_ref().is_ok_and(|of| !of.installed));
    // The state before the first entry is nothing, and every machine has it.
    let before = whole.next().map_or(LogIndex(0), |older| older.at.index);
    if newest.is_some() && log.first > before.next() && !is_struck {
        return complain(format!(
            "its log begins at {}, and without the newest snapshot of {} it goes on from {before}",
            log.first,
            found.snapshots.len()
        ));
    }
    Ok(())
}
