//! The log as a whole: segment after segment, as far as each goes on where the one before ends; and what
//! of it must be read before that is known.

use super::{Instead, Look};
use crate::{
    disk::{
        hard_state::First,
        segment::{EndRecord, Header, Slot},
        snapshot,
    },
    entry::Seed,
    file::File,
    storage::{
        found::{SegmentFound, SnapshotFound},
        scan::{self, Damage, Rules, Scanned, Tail},
    },
    types::{LogId, LogIndex},
};
use bytes::BytesMut;
use std::ops::Range;

/// The log as a whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pub(super) first: LogIndex,
    pub(super) last: LogId,
    pub(super) proven: LogIndex,
    /// The first thing wrong with it.
    pub(super) wrong: Option<Wrong>,
    /// Whether something lies behind the last entry.
    pub(super) is_torn: bool,
    /// Whether it is unknown only behind its end, where the newest snapshot is: of what is proven nothing is missing.
    pub(super) is_short: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Wrong {
    pub(super) file: File,
    pub(super) damage: Damage,
    pub(super) is_unknown: bool,
}

impl Look {
    pub(super) fn rules(&self) -> Rules<'static> {
        let hard = self.hard();
        Rules {
            seed: Seed::new(hard.identity.cluster, hard.identity.group),
            cut: hard.cut,
            stop: hard.cutting.then_some(hard.cut.from),
            proven: hard.durable_hint.max(hard.commit_hint),
            epoch: hard.write_epoch + 1,
            believes: self.believes(),
            terms: None,
        }
    }

    /// Believes no slot: all entries are read.
    pub(in crate::storage) const fn read_all(&mut self) {
        self.reads_all = true;
    }

    /// Whether the slots of proven entries are believed. A cut that is repeated clears all there is.
    pub(in crate::storage) fn believes(&self) -> bool {
        !self.is_cutting() && !self.reads_all
    }

    /// Of what was believed all was read that is not in doubt, or where each term begins. Tells what must be read of
    /// what is in doubt.
    pub(in crate::storage) fn confirmed(&mut self, all: bool) -> Vec<(u32, Range<u64>)> {
        let confirmed = (0..).zip(&mut self.segments);
        confirmed.filter_map(|(n, found)| Some((n, found.confirmed(all)?))).collect()
    }

    /// Scans what must be, and tells what of it must be read before that counts. With nothing left
    /// to be read the log is judged.
    pub(in crate::storage) fn judge_log(&mut self) -> Vec<(u32, Range<u64>)> {
        let rules = self.rules_of_log();
        // What is proven may lie in the next segment: it is not missing from the one before it.
        let first = |found: &SegmentFound| found.header.as_ref().map(|header| header.first);
        let next: Vec<_> = self.segments.iter().skip(1).map(first).chain([None]).collect();
        for (found, next) in self.segments.iter_mut().zip(next) {
            if let (Some(header), None) = (&found.header, &found.end) {
                let stop = [rules.stop, next].into_iter().flatten().min();
                let believes = rules.believes && !found.is_doubted;
                let rules = Rules { stop, believes, ..rules };
                found.scanned = Some(scan::scan(header, &found.image, &rules));
            }
        }
        let wanted = self.wanted();
        if wanted.is_empty() {
            self.follow_log();
        }
        wanted
    }

    fn rules_of_log(&self) -> Rules<'static> {
        let mut rules = self.rules();
        rules.proven = rules.proven.max(self.saved()).max(self.named());
        // A record in a later segment proves all before it.
        for found in &self.segments {
            let header = found.header.as_ref().map(|header| header.first.previous());
            let end = found.end.as_ref().map(EndRecord::floor);
            rules.proven = rules.proven.max(header.unwrap_or_default());
            rules.proven = rules.proven.max(end.unwrap_or(found.proven));
        }
        rules
    }

    /// With each segment judged: all of them as one log.
    pub(in crate::storage) fn follow_log(&mut self) {
        self.log = self.follow(&self.rules_of_log(), self.hard().first);
    }

    /// Full segments that hold what no snapshot does.
    pub(in crate::storage) fn sealed_behind_snapshot(&self) -> impl Iterator<Item = u32> {
        let snapshot = self.snapshot().index;
        let ends = self.segments.iter().map(|found| found.end.as_ref());
        let behind = (0..)
            .zip(ends)
            .filter(move |(_, end)| end.is_some_and(|end| end.last.index > snapshot));
        behind.map(|(segment, _)| segment)
    }

    /// All of a full segment was read: whether nothing is bad that no snapshot holds; and its bytes, if nothing
    /// at all is.
    pub(in crate::storage) fn judge_sealed(&mut self, segment: u32) -> (bool, Option<BytesMut>) {
        let (rules, snapshot) = (self.rules_of_log(), self.snapshot().index);
        let found = &mut self.segments[segment as usize];
        let (image, terms) = (std::mem::take(&mut found.image), found.terms_told());
        let (Some(header), Some(end)) = (&found.header, &found.end) else { return (true, None) };
        let (stop, terms) = (Some(end.last.index.next()), terms.as_ref());
        let rules = Rules { stop, believes: false, terms, ..rules };
        let scanned = scan::scan(header, &image, &rules);
        let is_whole = scanned.tail == Tail::End;
        let is_known = !matches!(scanned.tail, Tail::Unknown(_));
        let is_owed = scanned.holes.last().is_some_and(|hole| hole.id.index > snapshot);
        if is_whole {
            return (true, Some(image));
        }
        (found.scanned, found.image, found.end) = (Some(scanned), image, None);
        (is_known && !is_owed, None)
    }

    /// It is not known what some of the log was, but the newest snapshot holds what it did: the log
    /// begins with the first segment from which on it is known.
    pub(in crate::storage) fn begin_later(&mut self) {
        let Some((first, log)) = self.later() else { return };
        let lost = std::mem::replace(&mut self.log, log).wrong.expect("it is not known");
        let dead = self.segments.extract_if(.., |found| found.sequence < first.segment);
        self.doomed.extend(dead.map(|found| File::Segment(found.sequence)));
        // From an older snapshot nothing leads on.
        let useless = self.snapshots.extract_if(.., |found| found.at.index.next() < first.index);
        self.doomed.extend(useless.map(|found| File::Snapshot(found.at)));
        self.instead = Some(Instead::BegunLater(first, lost));
    }

    /// Where it would, and with what.
    fn later(&self) -> Option<(First, Log)> {
        if self.is_log_known() || self.is_cutting() {
            return None;
        }
        let (rules, hard) = (self.rules_of_log(), self.hard());
        let covered = self.snapshot().index.next();
        let behind = self.segments.iter().filter(|found| found.sequence > hard.first.segment);
        let later = behind.filter_map(|found| {
            let Header { first: index, prev_term, .. } = *found.header.as_ref()?;
            (index <= covered).then_some(First { index, prev_term, segment: found.sequence })
        });
        let mut later = later.map(|first| (first, self.follow(&rules, first)));
        later.find(|(_, log)| !log.is_unknown())
    }

    /// Whether the newest snapshot alone stands for some of the log that is bad or gone, though the log would
    /// have led on from an older one; `is_forced`: and what cannot be had is given up.
    pub(in crate::storage) fn rests_on_snapshot(&self, is_forced: bool) -> bool {
        let snapshot = self.snapshot();
        // What is bad and not behind the snapshot is what is not known, and then the log ends before that.
        let gives_up = is_forced && self.log.last.index < snapshot.index;
        snapshot != LogId::ZERO && (gives_up || self.later().is_some())
    }

    /// What whole snapshots prove. A peer's gets its name in front of a log that may not be durable up to
    /// it, and proves nothing before the hard state names it.
    fn saved(&self) -> LogIndex {
        let whole = self.whole_snapshots();
        let proves = whole.iter().filter(|found| !self.is_unrecorded(&found.header));
        proves.map(|found| found.header.at.index).max().unwrap_or_default()
    }

    /// What the names of snapshots prove that are not whole any more: a snapshot gets its name when the
    /// log is durable up to it, or with what takes the log's place. One of an earlier cluster epoch
    /// may lie above what a recovery by force has left; where the header is bad too, only a node that
    /// saw no such recovery can tell.
    fn named(&self) -> LogIndex {
        let identity = self.hard().identity;
        let is_ours = |found: &&SnapshotFound| {
            let header = snapshot::Header::decode(&found.header, identity.group, found.at);
            header.map_or(
                identity.cluster_epoch == 0,
                |snapshot::Header { identity: of, .. }| {
                    (of.cluster, of.cluster_epoch) == (identity.cluster, identity.cluster_epoch)
                },
            )
        };
        let named = self.broken.iter().filter(is_ours).map(|found| found.at.index);
        named.max().unwrap_or_default()
    }

    fn wanted(&mut self) -> Vec<(u32, Range<u64>)> {
        let segments = (0..).zip(&mut self.segments);
        let wanted = segments.filter_map(|(n, found)| {
            let wanted = found.wanted()?;
            found.reads(&wanted);
            Some((n, wanted))
        });
        wanted.collect()
    }

    /// The first and the last entry that were taken from their slots alone.
    pub(in crate::storage) fn believed(&self) -> Option<(LogIndex, LogIndex)> {
        let mut believed = self.segments.iter().filter_map(SegmentFound::believed);
        let (first, last) = believed.next()?;
        Some((first, believed.next_back().map_or(last, |(_, last)| last)))
    }

    /// From the first segment to the last, as long as each goes on where the one before ends.
    fn follow(&self, rules: &Rules<'_>, first: First) -> Log {
        let hard = self.hard();
        let before = LogId::new(first.prev_term, first.index.previous());
        let mut log =
            Log { first: first.index, last: before, proven: rules.proven, ..Log::default() };
        let mut sequence = first.segment;
        for found in self.segments.iter().filter(|found| found.sequence >= first.segment) {
            let file = File::Segment(found.sequence);
            let Some(header) = &found.header else {
                let mut wrong =
                    missing(file, log.last.index.next(), "a header and as many bytes as it says");
                wrong.damage.found = format!("{} bytes and no header that fits them", found.len);
                log.wrong = Some(wrong);
                return log;
            };
            let goes_on =
                header.first == log.last.index.next() && header.prev_term == log.last.term;
            if !goes_on {
                log.wrong = Some(missing(file, log.last.index.next(), "the log before it"));
                return log;
            }
            sequence = found.sequence;
            match (&found.end, &found.scanned) {
                (Some(end), _) => log.last = end.last,
                (None, Some(scanned)) => log.take(file, header, scanned, found),
                (None, None) => unreachable!("a segment without its end was scanned"),
            }
            if log.is_unknown() {
                return log;
            }
        }
        if hard.newest_segment > 0
            && self.segments.last().map(|s| s.sequence) != Some(hard.newest_segment)
        {
            let file = File::Segment(hard.newest_segment);
            log.wrong =
                Some(missing(file, log.last.index.next(), "the segment that the hard state names"));
        } else if log.last.index < log.proven.max(self.snapshot().index)
            && !log.is_stopped(rules)
            && !cfg!(lakebed_break = "take_damage_for_the_end")
        {
            let file = File::Segment(sequence);
            log.is_short = log.last.index >= log.proven;
            log.wrong = Some(missing(file, log.last.index.next(), "entries that were durable"));
        }
        log
    }

    /// The greatest cluster epoch that a file names. A smaller one than the hard state's is this
    /// node's own of before a recovery by force; a greater one no crash makes.
    pub(in crate::storage) fn newest_epoch(&self) -> u64 {
        let segments = self.segments.iter().filter_map(|found| found.header.as_ref());
        let segments = segments.map(|header| header.identity.cluster_epoch);
        let whole = self.whole_snapshots().into_iter();
        let snapshots = whole.map(|found| found.header.identity.cluster_epoch);
        segments.chain(snapshots).max().unwrap_or_default()
    }

    /// The entries that are bad and that no snapshot stands for, as their slots have them.
    pub(super) fn owed(&self) -> impl Iterator<Item = (File, &Slot)> {
        let snapshot = self.snapshot().index;
        let scanned =
            self.segments.iter().filter_map(|found| Some((found, found.scanned.as_ref()?)));
        let holes = scanned.flat_map(|(found, scanned)| {
            scanned.holes.iter().map(|slot| (File::Segment(found.sequence), slot))
        });
        holes.filter(move |(_, slot)| slot.id.index > snapshot)
    }

    /// Whether an entry is bad and no snapshot holds what it did.
    pub(in crate::storage) fn is_owed(&self) -> bool {
        self.owed().next().is_some()
    }

    /// The first entry that is bad here and that no snapshot stands for, or of which it is not known
    /// what it was.
    pub(in crate::storage) fn first_bad(&self) -> Option<LogIndex> {
        let owed = self.owed().map(|(_, slot)| slot.id.index);
        let unknown = (!self.is_log_known()).then(|| self.log.last.index.next());
        owed.chain(unknown).min()
    }

    /// The last segment that begins at or before this entry.
    pub(in crate::storage) fn segment_of(&self, index: LogIndex) -> Option<u64> {
        let begun = self.segments.iter().map_while(|found| {
            let first = found.header.as_ref()?.first;
            (first <= index).then_some(found.sequence)
        });
        begun.last()
    }
}

impl Log {
    fn take(&mut self, file: File, header: &Header, scanned: &Scanned, found: &SegmentFound) {
        self.last = scan::last_of(header, &scanned.slots);
        self.proven = self.proven.max(scanned.proven);
        let wrong =
            |damage: &Damage, is_unknown| Wrong { file, damage: damage.clone(), is_unknown };
        match &scanned.tail {
            Tail::End => self.is_torn = found.has_leavings(scanned),
            Tail::Damaged(damage) => {
                self.is_torn = found.has_leavings(scanned);
                self.wrong.get_or_insert_with(|| wrong(damage, false));
            }
            Tail::Unknown(damage) => self.wrong = Some(wrong(damage, true)),
        }
    }

    /// Whether it is not known what lies behind the last entry.
    pub(super) fn is_unknown(&self) -> bool {
        self.wrong.as_ref().is_some_and(|wrong| wrong.is_unknown)
    }

    /// Whether the log ends where an unfinished cut began.
    fn is_stopped(&self, rules: &Rules<'_>) -> bool {
        rules.stop.is_some_and(|stop| self.last.index.next() == stop)
    }
}

fn missing(file: File, index: LogIndex, what: &str) -> Wrong {
    let damage = Damage {
        index,
        term: None,
        offset: 0,
        expected: format!("{what}, entry {index} on"),
        found: "nothing".into(),
    };
    Wrong { file, damage, is_unknown: true }
}
