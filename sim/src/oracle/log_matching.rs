//! An entry of one term and index is the same bytes behind the same predecessor everywhere
//! (Raft §5.3, figure 3 "Log Matching"), and an index sent in a term never gets other content in
//! that term (storage.md, principle 9).
//!
//! Looks at what goes to disk, where every log comes from. By induction over the predecessors two
//! logs that share an entry share all before it.

use super::{Checked, Violation};
use lakebed::{
    Extent, File, LogId, LogIndex, Membership, Term,
    entry::{Head, Seed},
    inspect,
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
    /// By index, the entry of the first term that was seen there.
    first: Vec<Option<(Term, Content)>>,
    /// Those of other terms.
    others: BTreeMap<(LogIndex, Term), Content>,
}

impl Logs {
    pub(super) const fn new(seed: Seed) -> Self {
        Self { seed, first: Vec::new(), others: BTreeMap::new() }
    }

    /// This entry was written in another cluster.
    pub(super) fn begin_behind(&mut self, at: LogId) {
        let elsewhere = Content { prev_term: Term(0), digest: 0 };
        self.first = vec![None; at.index.0 as usize];
        self.first.push(Some((at.term, elsewhere)));
    }

    /// What is known of this entry; if nothing is, then this from now on.
    fn known(&mut self, id: LogId, content: Content) -> Content {
        let at = id.index.0 as usize;
        if self.first.len() <= at {
            self.first.resize(at + 1, None);
        }
        let (term, first) = *self.first[at].get_or_insert((id.term, content));
        if term == id.term {
            return first;
        }
        *self.others.entry((id.index, id.term)).or_insert(content)
    }

    fn is_known(&self, id: LogId) -> bool {
        let first = self.first.get(id.index.0 as usize).copied().flatten();
        first.is_some_and(|(term, _)| term == id.term)
            || self.others.contains_key(&(id.index, id.term))
    }

    /// A segment is written: where an extent begins with an entry, entries follow each other.
    pub(super) fn on_write(
        &mut self,
        node: usize,
        file: File,
        extents: [Option<&Extent>; 2],
        mut on_members: impl FnMut(Membership),
    ) -> Checked {
        if !matches!(file, File::Segment(_)) {
            return Ok(());
        }
        for extent in extents.into_iter().flatten() {
            let mut rest = &extent.bytes[..];
            while let Ok(head) = Head::parse(rest, self.seed) {
                self.on_entry(node, &head)?;
                if let Some(members) = inspect::members(&head, rest) {
                    on_members(members);
                }
                rest = rest.get(head.total_bytes as usize..).unwrap_or_default();
            }
        }
        Ok(())
    }

    fn on_entry(&mut self, node: usize, head: &Head) -> Checked {
        let content = Content { prev_term: head.prev_term, digest: head.digest };
        let known = self.known(head.id, content);
        if known != content {
            let what = format!(
                "entry {} is written with digest {:08x} after term {}, and elsewhere it has \
                 digest {:08x} after term {}",
                head.id, content.digest, content.prev_term, known.digest, known.prev_term
            );
            return Err(Violation::new("log matching", node, what));
        }
        let before = LogId::new(head.prev_term, head.id.index.previous());
        if head.id.index > LogIndex(1) && !self.is_known(before) {
            let what = format!("entry {} follows {before}, which nobody ever wrote", head.id);
            return Err(Violation::new("log matching", node, what));
        }
        Ok(())
    }
}
