//! A segment, byte by byte: both headers, the end record, every slot and every entry up to what is
//! known to have been durable.

use super::Findings;
use crate::{
    disk::{
        Fault, FileSeed,
        segment::{EndRecord, Header, SLOT_BYTES, Slot},
    },
    entry::{HEAD_BYTES, Head, Malformed, Seed},
    file::File,
    report::{Defect, Inspection},
    storage::{found::SegmentFound, found::last_nonzero, look::Look, terms::Terms},
    types::{LogId, LogIndex, Term},
};

/// How many bytes are read at a time.
const READ_BYTES: u64 = 1 << 20;

/// A segment, and what must be in it.
#[derive(Clone, Debug)]
pub(super) struct SegmentCheck {
    pub(super) file: File,
    len: u64,
    align: u64,
    /// `None`: neither copy of it is good.
    header: Option<Header>,
    /// Whether its end record counts.
    is_sealed: bool,
    /// Whether its end record must be there.
    is_followed: bool,
    /// The last entry that must be whole.
    proven: LogIndex,
    /// The last entry that is there. What of them is not proven durable may be what a crash left.
    last: LogIndex,
    /// The terms of its entries, if its end record tells them.
    terms: Option<Terms>,
    seed: Seed,
    file_seed: FileSeed,
    /// What a restart does about what it finds.
    then: &'static str,
    /// It finds nothing wrong, and goes by the slots as far as the log is proven durable.
    goes_by_slots: bool,
}

/// Every segment of the log.
pub(super) fn checks<'a>(
    look: &'a Look,
    inspection: &'a Inspection,
) -> impl Iterator<Item = SegmentCheck> + 'a {
    let next = |n: usize| {
        let header = look.segments.get(n + 1)?.header.as_ref();
        Some(header.map_or(LogIndex(0), |header| header.first))
    };
    look.segments
        .iter()
        .enumerate()
        .map(move |(n, found)| SegmentCheck::new(look, found, next(n), inspection))
}

impl SegmentCheck {
    /// `next`: where the segment behind it begins, if there is one; zero if that is not known.
    fn new(
        look: &Look,
        found: &SegmentFound,
        next: Option<LogIndex>,
        inspection: &Inspection,
    ) -> Self {
        let (group, is_followed) = (look.group(), next.is_some());
        let is_sealed = found.end.is_some();
        let next = next.filter(|next| next.0 > 0).map_or(LogIndex(u64::MAX), LogIndex::previous);
        let kept = found.as_sealed().map_or(LogIndex(0), |sealed| sealed.last.index);
        let proven = if is_sealed { kept } else { look.proven().min(next) };
        Self {
            file: File::Segment(found.sequence),
            len: found.len,
            align: look.align(),
            header: found.header.clone(),
            is_sealed,
            is_followed,
            proven,
            last: kept.max(proven),
            terms: found.terms_told(),
            seed: look.seed(),
            file_seed: FileSeed::new(group, found.sequence),
            then: inspection.judgement.does,
            goes_by_slots: inspection.defects.is_empty(),
        }
    }

    /// All of it, as it is read.
    pub(super) fn pieces(&self) -> Vec<(u64, u32)> {
        let piece = |offset: u64| (offset, (self.len - offset).min(READ_BYTES) as u32);
        (0..self.len).step_by(READ_BYTES as usize).map(piece).collect()
    }

    pub(super) fn check(&self, image: &[u8], findings: &mut Findings) {
        let Some(header) = &self.header else {
            let found = format!("{} bytes and no header that fits them", self.len);
            let defect = self.defect(
                0,
                self.align,
                "a header, and as many bytes as it says".into(),
                found,
                self.then.into(),
            );
            return findings.defects.push(defect);
        };
        self.check_headers(header, image, findings);
        self.check_end(header, image, findings);
        self.check_entries(header, image, findings);
    }

    fn defect(
        &self,
        offset: u64,
        bytes: u64,
        expected: String,
        found: String,
        then: String,
    ) -> Defect {
        Defect { file: self.file, offset, bytes, expected, found, then }
    }

    fn check_headers(&self, header: &Header, image: &[u8], findings: &mut Findings) {
        for (name, offset) in ['A', 'B'].into_iter().zip(header.layout.header_offsets()) {
            let decoded = Header::decode(
                block(image, offset, self.align),
                header.identity.group,
                header.sequence,
            );
            let found = match decoded {
                Ok(other) if other == *header => continue,
                Ok(_) => "another header".into(),
                Err(fault) => fault.to_string(),
            };
            let expected = format!("header {name}");
            let then = "reads the other copy of the header".into();
            findings.defects.push(self.defect(offset, self.align, expected, found, then));
        }
    }

    fn check_end(&self, header: &Header, image: &[u8], findings: &mut Findings) {
        let offset = header.layout.end_offset();
        let bytes = block(image, offset, self.align);
        let fault = match EndRecord::decode(bytes, header.identity.group, header.sequence) {
            Ok(_) => return,
            // The last segment has none before it is full.
            Err(Fault::Absent)
                if !self.is_followed && !self.is_sealed && last_nonzero(bytes).is_none() =>
            {
                return;
            }
            Err(fault) => fault,
        };
        let expected = "the end record of a full segment".into();
        let then = "reads all of the segment instead".into();
        findings.defects.push(self.defect(offset, self.align, expected, fault.to_string(), then));
    }

    fn check_entries(&self, header: &Header, image: &[u8], findings: &mut Findings) {
        // Where the entry before it ended, and its term, as long as both are known.
        let (mut end, mut prev_term) = (Some(header.layout.data_at), Some(header.prev_term));
        let mut last: Option<(Head, u64)> = None;
        for n in 0..header.layout.slot_count {
            let index = LogIndex(header.first.0 + u64::from(n));
            if index > self.last {
                break;
            }
            let slot = self.slot(header, image, n, index);
            match self.entry(header, image, index, prev_term, slot.as_ref(), end) {
                Ok((head, offset)) => {
                    findings.verified.entries += 1;
                    if index > self.proven {
                        // A slot that is missing here was not awaited by anybody.
                    } else if slot.is_none() {
                        findings.defects.push(self.bad_slot(header, image, n, &head));
                    } else if !slot.is_some_and(|slot| slot.agrees(&head)) {
                        findings.defects.push(self.disagreement(offset, &head, slot));
                    }
                    end = Some(offset + u64::from(head.total_bytes));
                    prev_term = Some(head.id.term);
                    last = Some((head, offset));
                }
                // What follows an entry of which nothing is known is not known either.
                Err((_, None)) => {}
                Err(_) if index > self.proven => break,
                Err((why, Some(offset))) => {
                    let follows = slot.as_ref().and_then(|slot| self.follows(header, image, slot));
                    findings.defects.push(match (last.take(), follows) {
                        (Some((head, at)), Some(term)) => self.another(at, &head, term),
                        _ => self.bad_entry(index, slot.as_ref(), why, offset),
                    });
                    end = slot.as_ref().map(Slot::end);
                    prev_term = slot.map(|slot| slot.id.term);
                }
            }
        }
    }

    fn slot(&self, header: &Header, image: &[u8], n: u32, index: LogIndex) -> Option<Slot> {
        let bytes = image.get(header.layout.slot_offset(n) as usize..)?;
        let slot = Slot::decode(bytes, self.file_seed, index)?;
        let is_placed = u64::from(slot.offset) >= header.layout.data_at
            && slot.end() <= header.layout.data_end();
        (is_placed && self.is_ours(slot.id)).then_some(slot)
    }

    /// Whether the log may hold it, as far as the end record says.
    fn is_ours(&self, id: LogId) -> bool {
        self.terms.as_ref().is_none_or(|terms| terms.hold(id))
    }

    /// The entry, where its slot says or else behind the one before it; or why not, and where.
    fn entry(
        &self,
        header: &Header,
        image: &[u8],
        index: LogIndex,
        prev_term: Option<Term>,
        slot: Option<&Slot>,
        end: Option<u64>,
    ) -> Result<(Head, u64), (Malformed, Option<u64>)> {
        let data_end = header.layout.data_end() as usize;
        let at = |offset: u64| {
            let bytes = image.get(offset as usize..data_end).unwrap_or_default();
            let head = Head::parse_whole(bytes, self.seed).map_err(|why| (why, Some(offset)))?;
            let chains = prev_term.is_none_or(|term| term == head.prev_term);
            if head.id.index == index && chains && self.is_ours(head.id) {
                Ok((head, offset))
            } else {
                Err((Malformed::Field, Some(offset)))
            }
        };
        match (slot, end) {
            (Some(slot), _) => at(u64::from(slot.offset)),
            (None, Some(end)) => {
                at(end).or_else(|first| at(header.layout.block_after(end)).map_err(|_| first))
            }
            (None, None) => Err((Malformed::Magic, None)),
        }
    }

    /// The term that the entry of a slot says the one before it has, if that entry is good.
    fn follows(&self, header: &Header, image: &[u8], slot: &Slot) -> Option<Term> {
        let bytes = image.get(slot.offset as usize..header.layout.data_end() as usize)?;
        let head = Head::parse_whole(bytes, self.seed).ok()?;
        slot.agrees(&head).then_some(head.prev_term)
    }

    fn bad_slot(&self, header: &Header, image: &[u8], n: u32, head: &Head) -> Defect {
        let offset = header.layout.slot_offset(n);
        let bytes = block(image, offset, SLOT_BYTES as u64);
        let found = if last_nonzero(bytes).is_none() { "zeros" } else { "bytes that are not it" };
        let then = if self.is_sealed {
            let index = head.id.index;
            format!("does not read there: it is made anew when the node reads entry {index} back")
        } else {
            "writes it again from its entry".into()
        };
        let expected = format!("the slot of entry {}, term {}", head.id.index, head.id.term);
        self.defect(offset, SLOT_BYTES as u64, expected, found.into(), then)
    }

    fn disagreement(&self, offset: u64, head: &Head, slot: Option<Slot>) -> Defect {
        let expected = slot.map_or_else(String::new, |slot| {
            let id = slot.id;
            format!("entry {}, term {}, as its slot has it", id.index, id.term)
        });
        let found = format!("another entry {} of term {}", head.id.index, head.id.term);
        let then = self.then_of(head.id.index, true);
        self.defect(offset, u64::from(head.total_bytes), expected, found, then)
    }

    /// By itself it is good, and so is its slot; the next entry follows one of this term.
    fn another(&self, offset: u64, head: &Head, term: Term) -> Defect {
        let expected = format!("entry {}, term {term}, as the next one has it", head.id.index);
        let found = format!("another entry {} of term {}", head.id.index, head.id.term);
        let then = self.then_of(head.id.index, false);
        self.defect(offset, u64::from(head.total_bytes), expected, found, then)
    }

    /// All of it if its body is bad, else its header.
    fn bad_entry(
        &self,
        index: LogIndex,
        slot: Option<&Slot>,
        why: Malformed,
        offset: u64,
    ) -> Defect {
        let bytes = match (why, slot) {
            (Malformed::BodyChecksum, Some(slot)) => slot.total_bytes,
            _ => HEAD_BYTES as u32,
        };
        let expected = match slot {
            Some(slot) => format!("entry {index}, term {}", slot.id.term),
            None => format!("entry {index}; its slot is bad too"),
        };
        let then = self.then_of(index, slot.is_some());
        self.defect(offset, bytes.into(), expected, why.as_str().into(), then)
    }

    /// A restart trusts the end record of a full segment, and slots up to what is proven durable. An entry is
    /// known by its slot.
    fn then_of(&self, index: LogIndex, is_known: bool) -> String {
        let then = match (self.is_sealed || self.goes_by_slots, is_known) {
            (false, _) => return self.then.into(),
            (true, true) => "asks its peers for it",
            (true, false) => "begins behind it with a snapshot, or gives its log up",
        };
        format!("does not read there: when it reads entry {index} back it {then}")
    }
}

fn block(image: &[u8], offset: u64, bytes: u64) -> &[u8] {
    image.get(offset as usize..(offset + bytes) as usize).unwrap_or_default()
}
