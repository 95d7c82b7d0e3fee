//! An entry of one term and index is the same bytes behind the same predecessor everywhere
//! (Raft §5.3, figure 3 "Log Matching"), and an index sent in a term never gets other content in
//! that term (storage.md, principle 9).
//!
//! Looks at what goes to disk, where every log comes from. By induction over the predecessors two
//! logs that share an entry share all before it.

use super::{Checked, Violation};
use lakebed::{
    Extent, File, LogId, LogIndex, Term,
    entry::{Head, Seed},
};
use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Content {
    prev_term: Term,
    digest: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Logs {
    seed: Seed,
    entries: BTreeMap<(LogIndex, Term), Content>,
}

impl Logs {
    pub(super) const fn new(seed: Seed) -> Self {
        Self { seed, entries: BTreeMap::new() }
    }

    /// A segment is written: where an extent begins with an entry, entries follow each other.
    pub(super) fn on_write(
        &mut self,
        node: usize,
        file: File,
        extents: [Option<&Extent>; 2],
    ) -> Checked {
        if !matches!(file, File::Segment(_)) {
            return Ok(());
        }
        for extent in extents.into_iter().flatten() {
            let mut rest = &extent.bytes[..];
            while let Ok(head) = Head::parse(rest, self.seed) {
                self.on_entry(node, &head)?;
                rest = rest.get(head.total_bytes as usize..).unwrap_or_default();
            }
        }
        Ok(())
    }

    fn on_entry(&mut self, node: usize, head: &Head) -> Checked {
        let LogId { term, index } = head.id;
        let content = Content { prev_term: head.prev_term, digest: head.digest };
        let known = *self.entries.entry((index, term)).or_insert(content);
        if known != content {
            let what = format!(
                "entry {} is written with digest {:08x} after term {}, and elsewhere it has \
                 digest {:08x} after term {}",
                head.id, content.digest, content.prev_term, known.digest, known.prev_term
            );
            return Err(Violation::new("log matching", node, what));
        }
        let before = (index.previous(), head.prev_term);
        if index > LogIndex(1) && !self.entries.contains_key(&before) {
            let what = format!(
                "entry {} follows {}.{}, which nobody ever wrote",
                head.id, before.1, before.0
            );
            return Err(Violation::new("log matching", node, what));
        }
        Ok(())
    }
}
