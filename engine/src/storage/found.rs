//! Files of the log and snapshots as a restart found them, one by one.
//!
//! Knows no other file: what they are together is `look.rs`.

use super::{
    journal::{Active, Sealed},
    leftover::Leftover,
    scan::{self, Scanned, Tail},
    terms::Terms,
};
use crate::{
    disk::{
        segment::{EndRecord, Header, Slot},
        snapshot::{self, Origin, block_bytes},
    },
    entry,
    file::File,
    types::{Identity, LogId, LogIndex, Timestamp},
};
use bytes::{Bytes, BytesMut};
use std::ops::Range;

#[derive(Clone, Debug)]
pub(super) struct SnapshotFound {
    pub(super) at: LogId,
    pub(super) len: u64,
    pub(super) header: Bytes,
    pub(super) footer: Bytes,
    /// One of both could not be read: it is done without, and stays.
    pub(super) is_unread: bool,
}

/// A snapshot that never became whole.
#[derive(Clone, Debug)]
pub(super) struct PartFound {
    pub(super) left: Leftover,
    pub(super) header: Bytes,
}

impl PartFound {
    pub(super) const fn file(&self) -> File {
        self.left.file()
    }

    /// Whether a peer was sending it to this node, and may go on to.
    pub(super) fn is_of(&self, identity: &Identity, align: u32) -> bool {
        let header = snapshot::Header::decode(&self.header, identity.group, self.left.at);
        header.is_ok_and(|header| {
            header.identity == *identity
                && (header.id, header.origin) == (self.left.id, Origin::Installed)
                && header.block_bytes == block_bytes(align)
        })
    }
}

#[derive(Clone, Debug)]
pub(super) struct SegmentFound {
    pub(super) sequence: u64,
    pub(super) len: u64,
    pub(super) header: Option<Header>,
    pub(super) end: Option<EndRecord>,
    /// The blocks at its end could not be read, and are not read again.
    pub(super) is_foot_unread: bool,
    /// Its bytes, as far as they were read; zeros elsewhere.
    pub(super) image: BytesMut,
    /// Which of its entries were read.
    pub(super) read: Range<u64>,
    /// What its end record proves, where it was taken away: the slots are wanted.
    pub(super) proven: LogIndex,
    /// Something is wrong with it: no slot is believed without its entry.
    pub(super) is_doubted: bool,
    pub(super) scanned: Option<Scanned>,
}

impl SegmentFound {
    pub(super) fn new(sequence: u64, len: u64) -> Self {
        Self {
            sequence,
            len,
            header: None,
            end: None,
            is_foot_unread: false,
            image: BytesMut::new(),
            read: 0..0,
            proven: LogIndex(0),
            is_doubted: false,
            scanned: None,
        }
    }

    /// What must be read before anything can be said of its entries: all behind the header, which
    /// is known, or the slots and the end record.
    pub(super) fn first_wanted(&self, believes: bool) -> [Range<u64>; 2] {
        let Some(Header { layout, .. }) = &self.header else { return [0..0, 0..0] };
        let end = if self.is_foot_unread { layout.data_end() } else { layout.len };
        if !believes {
            return [layout.align..end, end..end];
        }
        let slots_end = layout.slot_block(layout.slot_count - 1) + layout.align;
        [layout.align..slots_end, layout.end_offset().min(end)..end]
    }

    /// Room for what is read of it. Pages that nothing is read into cost nothing.
    pub(super) fn make_room(&mut self) {
        self.image = BytesMut::zeroed(self.len as usize);
        if let (Some(header), true) = (&self.header, self.is_foot_unread) {
            // Nobody knows that nothing is there.
            self.image[header.layout.data_end() as usize..].fill(0xff);
        }
    }

    /// What must be read yet before the scan counts: what it looked at, and what a write in flight
    /// can have left behind the last entry. All that was believed, if anything is wrong; that may be there
    /// already, with the first block of what it looked at, and then another scan is all that is wanted.
    pub(super) fn wanted(&mut self) -> Option<Range<u64>> {
        let (header, scanned) = (self.header.as_ref()?, self.scanned.as_ref()?);
        let layout = &header.layout;
        let to = scanned.looked_at.end.max(self.window_end(scanned)).min(layout.data_end());
        let (from, to) = (layout.block_before(scanned.looked_at.start), layout.block_after(to));
        if self.read.is_empty() {
            return Some(from..to).filter(|wanted| !wanted.is_empty());
        }
        if self.read.end < to {
            return Some(self.read.end..to);
        }
        let is_wrong = scanned.tail != Tail::End && scanned.believed > 0;
        self.is_doubted |= is_wrong;
        is_wrong.then_some(layout.data_at..self.read.start)
    }

    /// Entries that were believed were read one by one, perhaps all. `Some`: one is not what its slot says, and
    /// these are to be read for another scan; none, if they were read with others.
    pub(super) fn confirmed(&mut self, all: bool) -> Option<Range<u64>> {
        let (header, scanned) = (self.header.as_ref()?, self.scanned.as_mut()?);
        let is_bad = scanned.believed > 0 && self.is_doubted;
        let believed = header.layout.data_at..self.read.start;
        if all || is_bad {
            scanned.believed = 0;
        }
        is_bad.then_some(believed).inspect(|wanted| self.reads(wanted))
    }

    /// These entries are being read. They adjoin what was read before.
    pub(super) fn reads(&mut self, range: &Range<u64>) {
        let read = &self.read;
        self.read = if read.is_empty() {
            range.clone()
        } else {
            read.start.min(range.start)..read.end.max(range.end)
        };
    }

    /// The first and the last entry that were believed.
    pub(super) fn believed(&self) -> Option<(LogIndex, LogIndex)> {
        let scanned = self.scanned.as_ref()?;
        let slots = &scanned.slots[..scanned.believed as usize];
        Some((slots.first()?.id.index, slots.last()?.id.index))
    }

    /// A full segment, as its end record says; without one, as the scan found it.
    pub(super) fn as_sealed(&self) -> Option<Sealed> {
        let header = self.header.as_ref()?;
        let scanned = || self.scanned.as_ref();
        let last = self.end.as_ref().map(|end| end.last);
        let data_bytes = self.end.as_ref().map(|end| end.data_bytes);
        Some(Sealed {
            window_bytes: header.window_bytes,
            sequence: self.sequence,
            layout: header.layout,
            first: header.first,
            prev_term: header.prev_term,
            last: last.or_else(|| Some(scan::last_of(header, &scanned()?.slots)))?,
            data_bytes: data_bytes.or_else(|| Some(self.end_of_entries(scanned()?)))?,
            last_time: self.last_time(),
        })
    }

    /// The terms of its entries, if its end record tells them.
    pub(super) fn terms_told(&self) -> Option<Terms> {
        let (header, end) = self.header.as_ref().zip(self.end.as_ref())?;
        let mut terms = Terms::behind(LogId::new(header.prev_term, header.first.previous()));
        end.runs.iter().for_each(|&(index, term)| terms.push(LogId::new(term, index)));
        (!end.runs.is_empty()).then_some(terms)
    }

    pub(super) fn last_time(&self) -> Timestamp {
        let slot = self.scanned.as_ref().and_then(|scanned| {
            // What is missing tells its time when it is there again.
            let is_missing = |slot: &Slot| {
                scanned.holes.binary_search_by_key(&slot.id.index, |hole| hole.id.index).is_ok()
            };
            scanned.slots.iter().rev().find(|slot| !is_missing(slot))
        });
        let head = slot.map(|slot| entry::time_of(&self.image[slot.offset as usize..]));
        let end = self.end.as_ref().map(|end| end.last_time);
        head.or(end).unwrap_or_default()
    }

    /// The segment that takes new entries, as the scan left it.
    pub(super) fn as_active(&self) -> Option<Active> {
        let (header, scanned) = (self.header.as_ref()?, self.scanned.as_ref()?);
        let Header { sequence, layout, first, prev_term, window_bytes, .. } = *header;
        let (slots, group) = (scanned.slots.clone(), header.identity.group);
        let mut active =
            Active::new(sequence, layout, first, prev_term, window_bytes, slots, group);
        active.last_time = self.last_time();
        Some(active)
    }

    /// Where the entries that were kept end.
    pub(super) fn end_of_entries(&self, scanned: &Scanned) -> u64 {
        let data_at = self.header.as_ref().map_or(0, |header| header.layout.data_at);
        scanned.slots.last().map_or(data_at, Slot::end)
    }

    /// Where a write that was in flight can have reached.
    pub(super) fn window_end(&self, scanned: &Scanned) -> u64 {
        let header = self.header.as_ref().expect("a scanned segment has a header");
        let layout = &header.layout;
        let from = layout.block_after(self.end_of_entries(scanned));
        let reach = from.saturating_add(header.window_bytes).min(layout.data_end());
        layout.block_after(reach).min(layout.data_end())
    }

    /// Whether a slot, or a byte in the window, lies behind what was kept.
    pub(super) fn has_leavings(&self, scanned: &Scanned) -> bool {
        let (from, to) = (self.end_of_entries(scanned), self.window_end(scanned));
        scanned.slots_to as usize > scanned.slots.len()
            || last_nonzero(&self.image[from as usize..to as usize]).is_some()
    }
}

/// Where the last byte lies that is not zero. A window is 4 MiB or more: it is gone through by many bytes
/// at a time.
pub(super) fn last_nonzero(bytes: &[u8]) -> Option<usize> {
    const STRIDE: usize = 256;
    let is_zero = |stride: &[u8]| stride.iter().fold(0, |all, byte| all | byte) == 0;
    let mut end = bytes.len();
    for stride in bytes.rchunks(STRIDE) {
        let start = end - stride.len();
        if !is_zero(stride) {
            return stride.iter().rposition(|&byte| byte != 0).map(|at| start + at);
        }
        end = start;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_byte_that_is_not_zero_is_found_wherever_it_lies() {
        for len in [0, 1, 255, 256, 257, 1000] {
            assert_eq!(last_nonzero(&vec![0; len]), None);
            for at in 0..len {
                let mut bytes = vec![0; len];
                (bytes[at / 2], bytes[at]) = (1, 0x80);
                assert_eq!(last_nonzero(&bytes), Some(at), "of {len}");
            }
        }
    }

    /// Its checksum holds: a restart, and a look, panicked.
    #[test]
    fn a_window_that_no_file_has_is_no_reach() {
        use crate::{
            disk::{hard_state::Cut, segment::Layout},
            entry::Seed,
            types::*,
        };
        let layout = Layout::new(1 << 20, 4096);
        let header = Header {
            identity: Identity::default(),
            sequence: 1,
            first: LogIndex(1),
            prev_term: Term(0),
            epoch: 1,
            layout,
            window_bytes: u64::MAX - 8192,
            staged_for: SnapshotId(0),
        };
        let header = Header::decode(&header.encode(), GroupId(0), 1).expect("its checksum holds");
        let mut found = SegmentFound::new(1, layout.len);
        found.header = Some(header.clone());
        found.make_room();
        let seed = Seed::new(ClusterId(0), GroupId(0));
        let (cut, proven) = (Cut::default(), LogIndex(0));
        let (stop, believes, terms) = (None, false, None);
        let rules = scan::Rules { seed, cut, stop, proven, epoch: 2, believes, terms };
        let scanned = scan::scan(&header, &found.image, &rules);
        assert!(!found.has_leavings(&scanned));
    }
}
