//! What clients were told, judged as it comes.
//!
//! Every write appends an entry of its own to one value, the ledger, so that the length in an
//! answer is the write's place among all others, and a read shows everything before it. Knows
//! neither nodes nor logs. Invariants: a place that was told lies behind everything that was told
//! before the question was asked (linearizability); what was seen of the ledger is seen for ever;
//! an acknowledged write is there at the end, once, and a refused one never is.

use std::collections::{BTreeMap, BTreeSet};

/// The key of the ledger.
pub(crate) const LEDGER: &[u8] = b"ledger";
/// The length of an entry in the ledger.
const ENTRY_BYTES: usize = 8;

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// Nobody knows, or not yet.
    Unknown,
    Refused,
    /// This is its place, counting from one.
    Acknowledged(usize),
}

/// A question, and what was known when it was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    entry: Option<u64>,
    floor: usize,
}

impl Asked {
    /// What a write appends.
    pub(crate) fn entry(&self) -> Vec<u8> {
        format!("{:07} ", self.entry.expect("only writes have an entry")).into_bytes()
    }
}

/// How many questions ended how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Told {
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    pub(crate) reads: u64,
}

#[derive(Default)]
pub(crate) struct History {
    /// By entry, counting from zero.
    fates: Vec<Fate>,
    /// Whose place this is.
    places: BTreeMap<usize, u64>,
    /// The greatest place that anybody was told.
    floor: usize,
    /// The most that anybody saw of the ledger.
    seen: Vec<u8>,
    reads: u64,
}

impl History {
    pub(crate) fn write(&mut self) -> Asked {
        self.fates.push(Fate::Unknown);
        Asked { entry: Some(self.fates.len() as u64 - 1), floor: self.floor }
    }

    pub(crate) const fn read(&self) -> Asked {
        Asked { entry: None, floor: self.floor }
    }

    /// The ledger was so long with the entry in it.
    pub(crate) fn acknowledged(&mut self, asked: Asked, bytes: usize) {
        let entry = asked.entry.expect("only writes are acknowledged");
        let place = self.place(asked, bytes);
        assert!(
            place > asked.floor,
            "entry {entry} took place {place}, and {} was told",
            asked.floor
        );
        let other = self.places.insert(place, entry);
        assert!(other.is_none(), "entries {entry} and {other:?} both took place {place}");
        self.fates[entry as usize] = Fate::Acknowledged(place);
    }

    /// It certainly is not, and never will be, in the ledger.
    pub(crate) fn refused(&mut self, asked: Asked) {
        if let Some(entry) = asked.entry {
            self.fates[entry as usize] = Fate::Refused;
        }
    }

    /// This was the ledger.
    pub(crate) fn saw(&mut self, asked: Asked, ledger: &[u8]) {
        self.place(asked, ledger.len());
        let common = ledger.len().min(self.seen.len());
        if let Some(at) = (0..common).find(|at| ledger[*at] != self.seen[*at]) {
            panic!("the ledger was rewritten at place {}", at / ENTRY_BYTES + 1);
        }
        if ledger.len() > common {
            self.seen = ledger.to_vec();
        }
        self.reads += 1;
    }

    fn place(&mut self, asked: Asked, bytes: usize) -> usize {
        assert!(bytes.is_multiple_of(ENTRY_BYTES), "a ledger of {bytes} bytes has half an entry");
        let place = bytes / ENTRY_BYTES;
        assert!(
            place >= asked.floor,
            "an answer shows {place} entries; {} had been told before the question",
            asked.floor
        );
        self.floor = self.floor.max(place);
        place
    }

    /// The ledger at the end, when nothing is under way any more.
    pub(crate) fn end(&mut self, ledger: &[u8]) {
        let asked = self.read();
        self.saw(asked, ledger);
        let mut found = BTreeSet::new();
        for (n, entry) in ledger.chunks(ENTRY_BYTES).enumerate() {
            let place = n + 1;
            let text = std::str::from_utf8(entry).ok();
            let entry: u64 = text
                .and_then(|text| text.trim_end().parse().ok())
                .unwrap_or_else(|| panic!("place {place} holds {:?}", entry.escape_ascii()));
            assert!(found.insert(entry), "entry {entry} is in the ledger twice");
            let fate = self.fates.get(entry as usize).copied();
            match fate {
                Some(Fate::Acknowledged(told)) => {
                    assert!(told == place, "entry {entry} was told {told}, and took {place}");
                }
                Some(Fate::Unknown) => {}
                Some(Fate::Refused) => panic!("entry {entry} was refused, and took {place}"),
                None => panic!("entry {entry} at place {place} was never written"),
            }
        }
        for (&place, entry) in &self.places {
            assert!(
                found.contains(entry),
                "entry {entry} was acknowledged at {place}, and is lost"
            );
        }
    }

    pub(crate) fn told(&self) -> Told {
        let mut told = Told { reads: self.reads, ..Told::default() };
        for fate in &self.fates {
            match fate {
                Fate::Unknown => told.unknown += 1,
                Fate::Refused => told.refused += 1,
                Fate::Acknowledged(_) => told.acknowledged += 1,
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One write that was acknowledged, one that was refused, one that nobody knows of.
    fn three() -> (History, [Asked; 3]) {
        let mut history = History::default();
        let asked = [(); 3].map(|()| history.write());
        history.acknowledged(asked[0], 8);
        history.refused(asked[1]);
        (history, asked)
    }

    fn ledger(asked: &[Asked]) -> Vec<u8> {
        asked.iter().flat_map(Asked::entry).collect()
    }

    #[test]
    fn a_right_end_is_right() {
        let (mut history, [first, _, third]) = three();
        history.end(&ledger(&[first]));
        history.end(&ledger(&[first, third]));
        let told = Told { acknowledged: 1, refused: 1, unknown: 1, reads: 2 };
        assert_eq!(history.told(), told);
    }

    #[test]
    #[should_panic(expected = "1 had been told before the question")]
    fn a_lost_write_is_seen() {
        three().0.end(b"");
    }

    #[test]
    #[should_panic(expected = "entry 0 was acknowledged at 1, and is lost")]
    fn a_write_that_another_replaced_is_seen() {
        let (mut history, [_, _, third]) = three();
        history.end(&ledger(&[third]));
    }

    #[test]
    #[should_panic(expected = "entry 0 is in the ledger twice")]
    fn a_write_that_was_applied_twice_is_seen() {
        let (mut history, [first, ..]) = three();
        history.end(&ledger(&[first, first]));
    }

    #[test]
    #[should_panic(expected = "entry 1 was refused, and took 2")]
    fn a_refused_write_that_was_applied_is_seen() {
        let (mut history, [first, second, _]) = three();
        history.end(&ledger(&[first, second]));
    }

    #[test]
    #[should_panic(expected = "an answer shows 0 entries; 1 had been told")]
    fn a_stale_read_is_seen() {
        let (mut history, _) = three();
        let asked = history.read();
        history.saw(asked, b"");
    }

    #[test]
    #[should_panic(expected = "both took place 1")]
    fn two_writes_in_one_place_are_seen() {
        let (mut history, [_, _, third]) = three();
        history.acknowledged(third, 8);
    }

    #[test]
    #[should_panic(expected = "rewritten at place 1")]
    fn a_rewritten_ledger_is_seen() {
        let (mut history, [first, second, _]) = three();
        let asked = history.read();
        history.saw(asked, &ledger(&[first]));
        history.saw(asked, &ledger(&[second]));
    }
}
