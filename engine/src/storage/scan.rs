//! Judging a segment: which entries it holds, and whether what ends them is torn or damaged.
//!
//! Every entry has two witnesses, itself and its slot; every slot says what was durable when it was
//! submitted. *Proven* is the most that any record here or elsewhere says. A bad or missing record
//! above *proven* is what a crash leaves: torn. At or below it is damage. A valid record with a
//! greater index proves nothing by itself, because writes in flight finish in any order.
//!
//! What is proven was durable with both witnesses, so that one of them is enough to know it: a scan
//! may believe the slots of proven entries, and read the rest alone.

use crate::{
    disk::{
        FileSeed,
        hard_state::Cut,
        segment::{FloorLag, Header, Layout, Slot},
    },
    entry::{HEAD_BYTES, Head, Malformed, Seed},
    storage::{found::last_nonzero, terms::Terms},
    types::{GroupId, Identity, LogId, LogIndex, SnapshotId, Term},
};
use std::{cell::Cell, ops::Range};

/// What the scan must know beside the segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) seed: Seed,
    /// What lies at or above its start with a smaller epoch is dead.
    pub(crate) cut: Cut,
    /// Everything from here on is dead, for a cut was marked and perhaps not cleared; or it lies in
    /// the next segment.
    pub(crate) stop: Option<LogIndex>,
    /// What other records prove: hints, snapshot, other segments.
    pub(crate) proven: LogIndex,
    /// Slots that are rebuilt get this epoch.
    pub(crate) epoch: u64,
    /// Whether slots of proven entries are believed, up to the last of those that follow each other.
    pub(crate) believes: bool,
    /// The terms of all entries there, if they are known: what has another one was cut away.
    pub(crate) terms: Option<&'a Terms>,
}

impl Rules<'_> {
    /// Whether a record of this index and epoch was cut away.
    pub(crate) fn is_dead(&self, index: LogIndex, epoch: u64) -> bool {
        self.cut.from.0 != 0 && index >= self.cut.from && epoch < self.cut.epoch
    }
}

/// A segment, judged.
#[derive(Clone, Debug)]
pub(crate) struct Scanned {
    /// The slots of all entries kept, as found or rebuilt.
    pub(crate) slots: Vec<Slot>,
    /// The first slot that was rebuilt and must be written.
    pub(crate) first_rebuilt: Option<u32>,
    /// Of these the ones whose entries are bad and were proven durable: their slots tell what they
    /// were.
    pub(crate) holes: Vec<Slot>,
    pub(crate) proven: LogIndex,
    pub(crate) tail: Tail,
    /// Behind the last slot that holds anything of this file's life.
    pub(crate) slots_to: u32,
    /// How many slots were believed.
    pub(crate) believed: u32,
    /// The first byte of entries that had a say in it, and behind the last one.
    pub(crate) looked_at: Range<u64>,
}

/// What ends the entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Tail {
    /// Nothing follows that was ever acknowledged.
    End,
    /// As before, but entries that are known by their slots are bad: the first of them.
    Damaged(Damage),
    /// From here on it is not known what there was.
    Unknown(Damage),
}

/// A bad record at or below what is proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Damage {
    pub(crate) index: LogIndex,
    /// The term, where the slot tells.
    pub(crate) term: Option<Term>,
    pub(crate) offset: u64,
    pub(crate) expected: String,
    pub(crate) found: String,
}

struct Scan<'a> {
    header: &'a Header,
    image: &'a [u8],
    rules: &'a Rules<'a>,
    /// By position; `None`: absent, torn, or dead.
    table: Vec<Option<Slot>>,
    slots_to: u32,
    /// Behind the last byte of entries that was looked at.
    reach: Cell<u64>,
}

/// A full segment in use: all of it up to `last` is live, and durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Full<'a> {
    pub(crate) sequence: u64,
    pub(crate) layout: Layout,
    pub(crate) first: LogIndex,
    /// The term of the entry before `first`.
    pub(crate) prev_term: Term,
    pub(crate) last: LogIndex,
    /// See [`Rules::terms`].
    pub(crate) terms: Option<&'a Terms>,
}

impl Full<'_> {
    /// Judges its bytes; slots that are bad are made anew, with this epoch.
    pub(crate) fn scan(&self, image: &[u8], seed: Seed, group: GroupId, epoch: u64) -> Scanned {
        let Self { sequence, layout, first, prev_term, last, terms } = *self;
        let (stop, proven) = (Some(last.next()), last);
        let header = Header {
            identity: Identity { group, ..Identity::default() },
            sequence,
            first,
            prev_term,
            epoch,
            layout,
            window_bytes: 0,
            staged_for: SnapshotId(0),
        };
        let (cut, believes) = (Cut::default(), false);
        scan(&header, image, &Rules { seed, cut, stop, proven, epoch, believes, terms })
    }
}

/// Judges the segment whose bytes are `image`.
pub(crate) fn scan(header: &Header, image: &[u8], rules: &Rules<'_>) -> Scanned {
    let reach = Cell::new(header.layout.data_at);
    let mut scan = Scan { header, image, rules, table: Vec::new(), slots_to: 0, reach };
    scan.read_slots();
    let proven = scan.proven();
    let slots: Vec<Slot> = if rules.believes { scan.believed(proven) } else { Vec::new() };
    let from = slots.last().map_or(header.layout.data_at, Slot::end);
    let mut scanned = Scanned {
        believed: slots.len() as u32,
        slots,
        first_rebuilt: None,
        holes: Vec::new(),
        proven,
        tail: Tail::End,
        slots_to: scan.slots_to,
        looked_at: from..from,
    };
    scan.entries(&mut scanned);
    scanned.looked_at.end = scan.reach.get().max(from);
    scanned
}

impl Scan<'_> {
    fn index(&self, n: u32) -> LogIndex {
        LogIndex(self.header.first.0 + u64::from(n))
    }

    fn read_slots(&mut self) {
        let layout = &self.header.layout;
        let seed = FileSeed::new(self.header.identity.group, self.header.sequence);
        // Most of a segment's slots are empty, unless its entries are as short as can be.
        let all = layout.slot_block(0) as usize..self.image.len().min(layout.data_at as usize);
        let used = last_nonzero(self.image.get(all).unwrap_or_default());
        for n in 0..used.map_or(0, |at| layout.slots_through(at as u64)) {
            let bytes = self.image.get(layout.slot_offset(n) as usize..).unwrap_or_default();
            let slot = Slot::decode(bytes, seed, self.index(n)).filter(|slot| self.is_placed(slot));
            if slot.is_some() {
                self.slots_to = n + 1;
            }
            self.table.push(slot.filter(|slot| self.is_live(slot)));
        }
        self.table.truncate(self.slots_to as usize);
    }

    fn is_placed(&self, slot: &Slot) -> bool {
        let layout = &self.header.layout;
        u64::from(slot.offset) >= layout.data_at && slot.end() <= layout.data_end()
    }

    fn is_live(&self, slot: &Slot) -> bool {
        let is_stopped = self.rules.stop.is_some_and(|stop| slot.id.index >= stop);
        !is_stopped && !self.rules.is_dead(slot.id.index, slot.epoch) && self.is_ours(slot.id)
    }

    /// Whether the log may hold it, as far as its terms are known.
    fn is_ours(&self, id: LogId) -> bool {
        self.rules.terms.is_none_or(|terms| terms.hold(id))
    }

    fn proven(&self) -> LogIndex {
        let floors = self.table.iter().flatten().map(|slot| slot.floor_lag.floor(slot.id.index));
        let most = floors.max().unwrap_or_default();
        most.max(self.rules.proven).max(self.header.first.previous())
    }

    /// The slots of proven entries, as they follow each other from the first on. Not the last of
    /// them: its entry is read, and tells the time.
    fn believed(&self, proven: LogIndex) -> Vec<Slot> {
        let is_proven =
            |slot: &Slot| slot.id.index <= proven || cfg!(lakebed_break = "believe_unproven_slots");
        let (mut term, mut end) = (self.header.prev_term, self.header.layout.data_at);
        let follows = |slot: &Slot| {
            let at = u64::from(slot.offset);
            let follows =
                slot.id.term >= term && (at == end || at == self.header.layout.block_after(end));
            (term, end) = (slot.id.term, slot.end());
            follows
        };
        let slots = self.table.iter().map_while(|slot| slot.filter(is_proven));
        let mut believed: Vec<Slot> = slots.take_while(follows).collect();
        believed.pop();
        believed
    }

    fn entries(&self, to: &mut Scanned) {
        let proven = to.proven;
        for n in to.believed..self.header.layout.slot_count {
            let index = self.index(n);
            if self.rules.stop.is_some_and(|stop| index >= stop) {
                return;
            }
            let prev_term = to.slots.last().map_or(self.header.prev_term, |slot| slot.id.term);
            let slot = self.table.get(n as usize).copied().flatten();
            let end = to.slots.last().map_or(self.header.layout.data_at, Slot::end);
            match self.entry(index, prev_term, end, slot.as_ref()) {
                Ok((head, offset)) => match slot {
                    Some(slot) if slot.agrees(&head) => to.slots.push(slot),
                    // Above what is proven an old entry under a new slot, or the reverse, is torn.
                    Some(_) if index > proven => return,
                    Some(slot) if self.next_prev_term(index) != Some(head.id.term) => {
                        let (damage, is_known) = self.disagree(index, &slot, &head);
                        if !to.take_damage(damage, Some(slot).filter(|_| is_known)) {
                            return;
                        }
                    }
                    _ => {
                        let (epoch, lag) = (self.rules.epoch, FloorLag::NOTHING);
                        to.slots.push(Slot::of(&head, offset, epoch, lag));
                        to.first_rebuilt = to.first_rebuilt.or(Some(n));
                    }
                },
                Err(_) if cfg!(lakebed_break = "torn_tail_is_whole") && slot.is_some() => {
                    to.slots.extend(slot);
                }
                Err(_) if index > proven || cfg!(lakebed_break = "take_damage_for_the_end") => {
                    return;
                }
                Err(why) => {
                    if let Some(damage) = self.older_than_next(to) {
                        return to.lose_last(damage);
                    }
                    let damage = self.damage(index, end, slot.as_ref(), why);
                    if !to.take_damage(damage, slot) {
                        return;
                    }
                }
            }
        }
    }

    /// The entry of `index`: where its slot says, or else right behind the one before it, or at the
    /// next block. It must chain to the one before it.
    fn entry(
        &self,
        index: LogIndex,
        prev_term: Term,
        end: u64,
        slot: Option<&Slot>,
    ) -> Result<(Head, u64), Malformed> {
        let at = |offset: u64| {
            let bytes = self.image.get(offset as usize..self.header.layout.data_end() as usize);
            let bytes = bytes.unwrap_or_default();
            let head = Head::parse(bytes, self.rules.seed);
            let len = head.map_or(HEAD_BYTES as u64, |head| u64::from(head.total_bytes));
            self.reach.set(self.reach.get().max(offset + len));
            let head = Head::parse_whole(bytes, self.rules.seed)?;
            let chains = head.id.index == index && head.prev_term == prev_term;
            if chains && self.is_ours(head.id) { Ok((head, offset)) } else { Err(Malformed::Field) }
        };
        match slot {
            Some(slot) => at(u64::from(slot.offset)),
            None => at(end).or_else(|_| at(self.header.layout.block_after(end))),
        }
    }

    /// The previous term that the record after `index` names.
    fn next_prev_term(&self, index: LogIndex) -> Option<Term> {
        let n = index.0 + 1 - self.header.first.0;
        let next = self.table.get(n as usize)?.as_ref()?;
        let head = Head::parse(self.image.get(next.offset as usize..)?, self.rules.seed).ok()?;
        next.agrees(&head).then_some(head.prev_term)
    }

    /// The last entry kept, if the next one is whole and follows another one: it was cut away, and the write of
    /// what took its place was lost.
    fn older_than_next(&self, to: &Scanned) -> Option<Damage> {
        let last = to.slots.last()?;
        let term = self.next_prev_term(last.id.index).filter(|term| *term != last.id.term)?;
        Some(Damage {
            index: last.id.index,
            term: Some(term),
            offset: u64::from(last.offset),
            expected: format!("entry {}", LogId::new(term, last.id.index)),
            found: format!("entry {}", last.id),
        })
    }

    /// What is wrong, and whether it is known that the slot is right.
    fn disagree(&self, index: LogIndex, slot: &Slot, head: &Head) -> (Damage, bool) {
        let damage = Damage {
            index,
            term: Some(slot.id.term),
            offset: u64::from(slot.offset),
            expected: format!("entry {} as its slot has it", slot.id),
            found: format!("entry {}", head.id),
        };
        (damage, self.next_prev_term(index) == Some(slot.id.term))
    }

    fn damage(&self, index: LogIndex, end: u64, slot: Option<&Slot>, why: Malformed) -> Damage {
        Damage {
            index,
            term: slot.map(|slot| slot.id.term),
            offset: slot.map_or(end, |slot| u64::from(slot.offset)),
            expected: match slot {
                Some(slot) => format!("entry {}", slot.id),
                None => format!("entry {index}"),
            },
            found: why.as_str().into(),
        }
    }
}

impl Scanned {
    /// The last one is not what there was.
    fn lose_last(&mut self, damage: Damage) {
        let last = self.slots.pop();
        self.holes.pop_if(|hole| Some(*hole) == last);
        self.tail = Tail::Unknown(damage);
    }

    /// An entry that was proven durable is bad. True if its slot tells what it was, so that the
    /// scan can go on behind it.
    fn take_damage(&mut self, damage: Damage, slot: Option<Slot>) -> bool {
        let Some(slot) = slot else {
            self.tail = Tail::Unknown(damage);
            return false;
        };
        self.slots.push(slot);
        self.holes.push(slot);
        if self.tail == Tail::End {
            self.tail = Tail::Damaged(damage);
        }
        true
    }
}

/// The first of these slots of which the entry is bad or another, or does not chain to the one before it.
/// `bytes` begin at `base`; `before` is the term of what comes before the first.
pub(crate) fn first_bad<'a>(
    bytes: &[u8],
    base: u64,
    slots: &'a [Slot],
    mut before: Option<Term>,
    seed: Seed,
) -> Option<&'a Slot> {
    slots.iter().find(|slot| {
        let at = (u64::from(slot.offset) - base) as usize;
        let head = Head::parse_whole(bytes.get(at..).unwrap_or_default(), seed);
        let prev_term = before.replace(slot.id.term);
        !head.is_ok_and(|head| {
            slot.agrees(&head) && prev_term.is_none_or(|term| term == head.prev_term)
        })
    })
}

/// The last entry kept, or what comes before the segment.
pub(crate) fn last_of(header: &Header, slots: &[Slot]) -> LogId {
    let before = LogId::new(header.prev_term, header.first.previous());
    slots.last().map_or(before, |slot| slot.id)
}
