//! Whether what clients saw of a register could have been: each operation at one instant between
//! its call and its return (Herlihy and Wing), found by Wing and Gong's search with Lowe's memory.
//!
//! Knows no process. Histories are of one key each, for what is linearizable key by key is
//! linearizable. No value is written twice.

use std::collections::{BTreeMap, BTreeSet};

/// What an operation did, as its client saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Write(u64),
    Read(Option<u64>),
}

/// An operation; those that were certainly not performed are in no history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Op {
    pub(crate) what: What,
    /// Nanoseconds since some instant.
    pub(crate) call: u64,
    /// `None`: whether it was performed is not known; it may yet be.
    pub(crate) ret: Option<u64>,
}

impl Op {
    fn end(&self) -> u64 {
        self.ret.unwrap_or(u64::MAX)
    }

    /// The register after it, if it can follow on this value.
    fn performed_on(&self, value: Option<u64>) -> Option<Option<u64>> {
        match self.what {
            What::Write(new) => Some(Some(new)),
            What::Read(seen) => (seen == value).then_some(value),
        }
    }
}

/// Which operations have had their instant: all before `from`, and these.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
struct Done {
    from: usize,
    beyond: BTreeSet<usize>,
}

impl Done {
    fn has(&self, n: usize) -> bool {
        n < self.from || self.beyond.contains(&n)
    }

    fn with(&self, n: usize) -> Self {
        let mut done = self.clone();
        done.beyond.insert(n);
        while done.beyond.remove(&done.from) {
            done.from += 1;
        }
        done
    }
}

/// The operations that no order explains: a stretch of the history around where the search ended.
pub(crate) fn check(history: &[Op]) -> Result<(), Vec<Op>> {
    let history = relevant(history);
    let mut seen = BTreeSet::new();
    let mut open = vec![(Done::default(), None)];
    let mut furthest = 0;
    while let Some((done, value)) = open.pop() {
        if done.from == history.len() {
            return Ok(());
        }
        furthest = furthest.max(done.from);
        // An operation may come next if none of those that wait had ended when it was called.
        let waiting = || (done.from..history.len()).filter(|n| !done.has(*n));
        let mut end = u64::MAX;
        let mut next = Vec::new();
        for n in waiting() {
            if history[n].call > end {
                break;
            }
            end = end.min(history[n].end());
            next.push(n);
        }
        for n in next.into_iter().filter(|n| history[*n].call <= end) {
            let Some(after) = history[n].performed_on(value) else { continue };
            let state = (done.with(n), after);
            if seen.insert(state.clone()) {
                open.push(state);
            }
        }
    }
    Err(history[furthest.saturating_sub(6)..history.len().min(furthest + 6)].to_vec())
}

/// In the order of their calls, without writes of which nobody can tell whether they were
/// performed: unknown ones whose value nobody saw. All others of those were.
fn relevant(history: &[Op]) -> Vec<Op> {
    let mut seen = BTreeMap::new();
    for op in history {
        if let What::Read(Some(value)) = op.what {
            *seen.entry(value).or_insert(0) += 1;
        }
    }
    let tells = |op: &&Op| match op.what {
        What::Write(value) => op.ret.is_some() || seen.contains_key(&value),
        What::Read(_) => op.ret.is_some(),
    };
    let mut relevant: Vec<Op> = history.iter().filter(tells).copied().collect();
    relevant.sort_by_key(|op| op.call);
    relevant
}

/// `W1 0..3` and `R1 2..5`, `R- 0..1` for a register never written, `W2 4..` for one not known.
fn history(text: &str) -> Vec<Op> {
    let ops = text.split(',').map(|op| {
        let (what, times) = op.trim().split_once(' ').expect("what, and when");
        let (kind, value) = what.split_at(1);
        let value = value.parse().ok();
        let (call, ret) = times.split_once("..").expect("a call and a return");
        let what = match kind {
            "W" => What::Write(value.expect("a value")),
            _ => What::Read(value),
        };
        Op { what, call: call.parse().expect("a time"), ret: ret.parse().ok() }
    });
    ops.collect()
}

#[test]
fn histories_that_can_have_been_are_explained() {
    for text in [
        "R- 0..1, W1 2..3, R1 4..5",
        // Two at a time, in either order.
        "W1 0..9, W2 0..9, R1 10..11",
        "W1 0..9, W2 0..9, R2 10..11",
        // Seen before its write returned, and by a read that began before.
        "W1 0..9, R1 2..3, R1 4..5",
        "W1 0..1, W2 2..9, R1 3..8, R2 4..5",
        // Unknown: it happens later, or never.
        "W1 0..1, W2 2.., R1 3..4, R2 5..6",
        "W1 0..1, W2 2.., R1 3..4, R1 5..6",
        "W1 0.., W2 1.., W3 2.., R3 4..5, R1 6..7, R2 8..9",
    ] {
        assert_eq!(check(&history(text)), Ok(()), "{text}");
    }
}

#[test]
fn histories_that_cannot_have_been_are_refused() {
    for text in [
        // Never written.
        "W1 0..1, R7 2..3",
        // Acknowledged and lost.
        "W1 0..1, R- 2..3",
        // Stale: the second write had returned.
        "W1 0..1, W2 2..3, R1 4..5",
        // Back in time, though both reads overlap the write.
        "W1 0..1, W2 2..9, R2 3..4, R1 5..6",
        // Seen before it was called.
        "R1 0..1, W1 2..3",
        // Two readers, two orders.
        "W1 0..9, W2 0..9, R1 10..11, R2 12..13",
        // Unknown, seen, and gone again.
        "W1 0..1, W2 2.., R2 3..4, R1 5..6",
    ] {
        assert!(check(&history(text)).is_err(), "{text}");
    }
}

#[test]
fn a_long_history_is_searched_in_no_time_and_one_flaw_in_it_found() {
    // Three clients whose operations always overlap, and unknown writes in between.
    let mut long = Vec::new();
    for n in 0..3000_u64 {
        let (call, ret) = (10 * n, Some(10 * n + 25));
        let what = if n.is_multiple_of(2) { What::Write(n) } else { What::Read(Some(n - 1)) };
        long.push(Op { what, call, ret });
        if n.is_multiple_of(50) {
            long.push(Op { what: What::Write(1_000_000 + n), call: call + 1, ret: None });
        }
    }
    assert_eq!(check(&long), Ok(()));
    let flawed = long.iter().position(|op| op.what == What::Read(Some(2000))).unwrap();
    long[flawed].what = What::Read(Some(1000));
    let around = check(&long).unwrap_err();
    assert!(around.contains(&long[flawed]), "{around:?}");
}
