//! No place of a disk is read again and again: what was read leads on, or is known to be bad.
//!
//! Believes nobody: counts what is asked of the disk. A scrub comes by once in a pass, and whoever asks a node for
//! what its own disk has lost asks once in a heartbeat: 13 times in such a span is the most that was seen in a
//! thousand storms, and a node that goes in a circle reads there a hundred times.

use super::{Checked, Violation};
use lakebed::File;
use std::{collections::BTreeMap, time::Duration};

/// So long it is counted.
const SPAN: Duration = Duration::from_millis(20);
/// And so often one place may be read in it.
const MOST: u32 = 40;

/// What a node has read in the present span.
#[derive(Clone, Debug, Default)]
struct Reads {
    /// In nanoseconds.
    since: u64,
    of: BTreeMap<(File, u64), u32>,
}

/// What each node reads.
#[derive(Clone, Debug)]
pub(super) struct Places(Vec<Reads>);

impl Places {
    pub(super) fn new(nodes: usize) -> Self {
        Self(vec![Reads::default(); nodes])
    }

    /// Something of it is another one: of a block with many entries that are lost each is given by itself.
    pub(super) fn on_write(&mut self, node: usize, file: File) {
        self.0[node].of.retain(|(of, _), _| *of != file);
    }

    pub(super) fn on_read(&mut self, node: usize, file: File, offset: u64, now: u64) -> Checked {
        let Reads { since, of } = &mut self.0[node];
        if now >= *since + SPAN.as_nanos() as u64 {
            (*since, *of) = (now, BTreeMap::new());
        }
        let times = of.entry((file, offset)).or_default();
        *times += 1;
        if *times <= MOST {
            return Ok(());
        }
        let what = format!("{file} at byte {offset} was read {times} times within {SPAN:?}");
        Err(Violation::new("reads lead on", node, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_may_be_read_now_and_then_and_many_places_at_once() {
        let mut places = Places::new(2);
        let mut read =
            |node, file, offset, now| places.on_read(node, File::Segment(file), offset, now);
        let span = SPAN.as_nanos() as u64;
        for now in (0..50).map(|n| n * span / u64::from(MOST)) {
            assert!(
                (0..100).all(|n| read(0, 1, n * 512, now).is_ok() && read(1, n, 512, now).is_ok())
            );
        }
        let again: Vec<_> = (0..=MOST).map(|n| read(1, 7, 0, 9 * span + u64::from(n))).collect();
        let told = again[MOST as usize].as_ref().expect_err("that is too often");
        assert_eq!((told.invariant, told.node), ("reads lead on", Some(1)));
        assert!(again[..MOST as usize].iter().all(Result::is_ok));
        assert!(read(1, 7, 0, 10 * span).is_ok(), "and later it is counted anew");
        (0..MOST)
            .for_each(|n| drop(places.on_read(0, File::Segment(7), 0, 20 * span + u64::from(n))));
        places.on_write(0, File::Segment(8));
        assert!(places.on_read(0, File::Segment(7), 0, 20 * span).is_err(), "another file");
        places.on_write(0, File::Segment(7));
        assert!(places.on_read(0, File::Segment(7), 0, 20 * span).is_ok(), "it is another one now");
    }
}
