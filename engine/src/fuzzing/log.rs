//! What goes into the log: entries, and the batches that become their bodies.

use crate::{
    entry::{Batch, Head, Seed, frames, with_right_crcs},
    types::{ClusterId, GroupId},
};

/// Any entry: as it comes, and under checksums that hold.
pub fn entry(input: &[u8]) {
    judge(input);
    let mut sealed = input.to_vec();
    if with_right_crcs(&mut sealed, seed()) {
        judge(&sealed);
    }
}

fn seed() -> Seed {
    Seed::new(ClusterId(7), GroupId(1))
}

fn judge(bytes: &[u8]) {
    let Ok(head) = Head::parse_whole(bytes, seed()) else { return };
    let frame = &bytes[..head.total_bytes as usize];
    let entries: Vec<_> = frames(frame).collect();
    let [entry] = &entries[..] else { panic!("one entry, not {}", entries.len()) };
    assert_eq!((entry.id, entry.time, entry.kind), (head.id, head.time, head.kind));
    assert_eq!((entry.count, entry.total_bytes()), (head.count, frame.len()));
    let Some(batch) = Batch::from_body(entry.body, head.count) else { return };
    if head.kind == crate::Kind::Commands {
        let (again, bytes) = batch.seal(seed(), head.id, head.prev_term, head.time);
        assert_eq!((again, &bytes[..]), (head, frame), "an entry has one form");
    }
}

/// The body of any batch: how many commands it is said to have (four bytes), and what it has.
pub fn batch(input: &[u8]) {
    let Some((count, body)) = input.split_first_chunk() else { return };
    let count = u32::from_le_bytes(*count);
    let Some(batch) = Batch::from_body(body, count) else { return };
    assert_eq!((batch.count(), batch.body()), (count, body));
    let mut again = Batch::default();
    let mut rest = body;
    while let Some(bytes) = rest.split_off(..4) {
        let bytes = u32::from_le_bytes(*bytes.first_chunk().expect("four were taken"));
        again.push(rest.split_off(..bytes as usize).expect("it was found whole"));
    }
    assert_eq!(again, batch, "what was taken for commands is these commands");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogId, LogIndex, Term, Timestamp, entry::seal_body, fuzzing::corpus::replay};

    #[test]
    fn kept_entries_are_one_form_or_malformed() {
        let id = LogId::new(Term(3), LogIndex(5));
        let mut two = Batch::one(b"set a 1");
        two.push(b"");
        let (_, two) = two.seal(seed(), id, Term(2), Timestamp(11));
        let (_, none) = seal_body(crate::Kind::Empty, &[], seed(), id, Term(2), Timestamp(11));
        replay("entry", entry, &[two.to_vec(), none.to_vec()]);
    }

    #[test]
    fn kept_batches_are_their_commands_or_none() {
        let two = [&2_u32.to_le_bytes()[..], &1_u32.to_le_bytes(), b"a", &[0; 4]].concat();
        replay("batch", batch, &[two, vec![0; 4]]);
    }
}
