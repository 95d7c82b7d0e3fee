//! A snapshot, block by block, and all its bytes against the footer's checksum. Header and footer
//! were read by the look: without them it is not whole.

use super::Findings;
use crate::{
    disk::snapshot::decode_block,
    file::File,
    report::Defect,
    storage::{look::Look, snapshots::SnapshotFile},
    types::GroupId,
};

/// How many blocks are read at a time.
const RUN_BLOCKS: u64 = 16;

/// A whole snapshot, and how far it was read.
#[derive(Clone, Debug)]
pub(in crate::storage) struct SnapshotCheck {
    snapshot: SnapshotFile,
    group: GroupId,
    align: u32,
    /// The next block.
    next: u64,
    payload_bytes: u64,
    digest: u32,
    is_bad: bool,
    /// What a restart does about a bad block.
    then: &'static str,
}

/// Every whole snapshot, oldest first.
pub(in crate::storage) fn checks(look: &Look) -> impl Iterator<Item = SnapshotCheck> {
    let whole = look.whole_snapshots();
    let count = whole.len();
    let (group, align, is_alone) = (look.group(), look.align() as u32, look.is_alone());
    let holds_all = look.begins_with_the_first();
    whole.into_iter().enumerate().map(move |(n, snapshot)| {
        let then = if n + 1 < count {
            "does not read it: a newer one is there"
        } else if n > 0 {
            "begins with the snapshot before it"
        } else if holds_all {
            "forgets it and applies the log, which holds all it did"
        } else if is_alone {
            "ends when it comes to it: there is no other"
        } else {
            "comes to it, removes it, and waits for a peer's"
        };
        SnapshotCheck {
            snapshot,
            group,
            align,
            next: 0,
            payload_bytes: 0,
            digest: 0,
            is_bad: false,
            then,
        }
    })
}

impl SnapshotCheck {
    pub(in crate::storage) const fn file(&self) -> File {
        self.snapshot.file()
    }

    /// Where its blocks lie, a run of them at a time.
    pub(in crate::storage) fn pieces(&self) -> Vec<(u64, u32)> {
        let blocks = self.snapshot.footer.blocks;
        let run = |first: u64| {
            let last = (first + RUN_BLOCKS).min(blocks) - 1;
            let offset = self.snapshot.block_offset(first, self.align);
            let end = self.snapshot.block_offset(last, self.align)
                + u64::from(self.snapshot.block_len(last, self.align));
            (offset, (end - offset) as u32)
        };
        (0..blocks).step_by(RUN_BLOCKS as usize).map(run).collect()
    }

    pub(in crate::storage) fn check(&mut self, run: &[u8], findings: &mut Findings) {
        let blocks = self.snapshot.footer.blocks;
        let to = (self.next + RUN_BLOCKS).min(blocks);
        let base = self.snapshot.block_offset(self.next, self.align);
        for number in self.next..to {
            let offset = self.snapshot.block_offset(number, self.align);
            let bytes = u64::from(self.snapshot.block_len(number, self.align));
            let at = (offset - base) as usize;
            let block = run.get(at..run.len().min(at + bytes as usize)).unwrap_or_default();
            findings.verified.blocks += 1;
            match decode_block(block, number, self.group, self.snapshot.header.id) {
                Ok(payload) => {
                    self.payload_bytes += payload.len() as u64;
                    self.digest = crc32c::crc32c_append(self.digest, payload);
                }
                Err(fault) => {
                    self.is_bad = true;
                    let expected = format!("block {number} of {blocks}");
                    findings.defects.push(self.defect(offset, bytes, expected, fault.to_string()));
                }
            }
        }
        self.next = to;
        if to == blocks && !self.is_bad {
            self.check_footer(findings);
        }
    }

    fn check_footer(&self, findings: &mut Findings) {
        let footer = &self.snapshot.footer;
        if (self.payload_bytes, self.digest) == (footer.payload_bytes, footer.digest) {
            return;
        }
        let offset = self.snapshot.block_offset(footer.blocks - 1, self.align)
            + u64::from(self.snapshot.block_len(footer.blocks - 1, self.align));
        let told = |bytes, digest| format!("{bytes} bytes of state, checksum {digest:08x}");
        let expected = told(footer.payload_bytes, footer.digest);
        let found = told(self.payload_bytes, self.digest);
        findings.defects.push(self.defect(offset, u64::from(self.align), expected, found));
    }

    fn defect(&self, offset: u64, bytes: u64, expected: String, found: String) -> Defect {
        Defect { file: self.file(), offset, bytes, expected, found, then: self.then.into() }
    }
}
