//! A recovery by force, crashed at every operation of its disk, in many ways each: what is left is
//! the old node or the new one, another try comes to its end or says that it is done, and of a
//! sound log nothing is lost.

use super::{Disk, Lives, config, format, restored::Run};
use crate::{
    disk::{
        hard_state::{BLOCK_BYTES, HardState, OFFSETS},
        segment::SLOT_BYTES,
    },
    membership::Member,
    report::Forced,
    storage::*,
    types::ClusterId,
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};

const FORCE: Start = Start::ForceSoleVoter { acknowledged_loss: true };

/// What is wrong with the survivor's disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Damage {
    Nothing,
    /// An entry; its slot tells which.
    Entry,
    /// An entry and its slot.
    Both,
    /// The first entry of a full segment, of which a restart reads the end record alone.
    Sealed,
    /// The newest segment.
    Segment,
    /// The last entries are in the cache alone: their sync failed, and the process was killed for it.
    CachedTail,
    /// An entry among others that a peer gave again, of the newest segment or of a full one.
    Cached,
    CachedSealed,
}

impl Damage {
    const fn is_cached(self) -> bool {
        matches!(self, Self::CachedTail | Self::Cached | Self::CachedSealed)
    }
}

/// A member of three that has lived a while, its last entry, and the first one that is bad.
struct Survivor {
    disk: Disk,
    last: LogId,
    bad: Option<LogIndex>,
    term: Term,
}

fn survivor(seed: u64, damage: Damage) -> Option<Survivor> {
    let mut lives = Lives::new(seed);
    for _ in 0..600 {
        lives.step();
    }
    while !lives.in_flight.is_empty() || lives.storage.journal.cut.is_some() {
        lives.complete();
    }
    // Writes pause, and what is durable is said.
    if damage != Damage::CachedTail {
        lives.now = lives.now.after(std::time::Duration::from_secs(1));
        lives.settle();
    }
    while !lives.in_flight.is_empty() {
        lives.complete();
    }
    let (last, hard) = (lives.last(), lives.storage.promises().durable());
    let (term, is_proven) = (hard.term, hard.durable_hint.max(hard.commit_hint) == last.index);
    if damage == Damage::CachedTail && is_proven {
        return None;
    }
    let journal = &lives.storage.journal;
    let snapshot = lives.storage.snapshot().index;
    let active = journal.active.as_ref().filter(|active| active.slots.len() > 4)?;
    let (n, sequence, first) = (active.slots.len() - 3, active.sequence, active.first);
    let (slot_at, entry_at) = (active.layout.slot_offset(n as u32), active.slots[n].offset);
    let (of_last, slot) = (active.slots.len() as u32 - 1, active.slots.last()?);
    let slot_of_last = active.layout.slot_offset(of_last) as usize;
    let ends = [slot_of_last..slot_of_last + SLOT_BYTES, slot.offset as usize..slot.end() as usize];
    let sealed = journal.sealed.back().map(|sealed| (sealed.sequence, sealed.layout, sealed.first));
    let mut disk = lives.disk;
    let mut flip = |sequence, at: usize| {
        let inode = disk.inode(File::Segment(sequence)).expect("it is there");
        Arc::make_mut(&mut inode.durable)[at] ^= 0x10;
        if !damage.is_cached() {
            Arc::make_mut(&mut inode.bytes)[at] ^= 0x10;
        }
    };
    let bad = match damage {
        Damage::Nothing => None,
        Damage::Entry | Damage::Both => {
            flip(sequence, entry_at as usize + 8);
            if damage == Damage::Both {
                flip(sequence, slot_at as usize + 8);
            }
            Some(LogIndex(first.0 + n as u64))
        }
        Damage::Cached => {
            flip(sequence, entry_at as usize + 8);
            None
        }
        Damage::CachedTail => {
            let durable = &mut disk.inode(File::Segment(sequence)).expect("it is there").durable;
            ends.into_iter().for_each(|range| Arc::make_mut(durable)[range].fill(0));
            None
        }
        Damage::Sealed | Damage::CachedSealed => {
            let (sequence, layout, first) = sealed?;
            flip(sequence, layout.data_at as usize + 8);
            Some(first).filter(|_| damage == Damage::Sealed)
        }
        Damage::Segment => {
            disk.names.remove(&File::Segment(sequence));
            disk.durable_names.remove(&File::Segment(sequence));
            Some(first)
        }
    };
    // What a snapshot covers is another story.
    (bad.is_none_or(|bad| bad > snapshot) && last.index > snapshot).then_some(Survivor {
        disk,
        last,
        bad,
        term,
    })
}

fn refused(start: Start, disk: &Disk) -> (&'static str, String) {
    match Run::new(disk.clone(), start, 3).go(usize::MAX).1 {
        Some(Halt::Refused { row, expected, found, .. }) => (row, format!("{expected}; {found}")),
        other => panic!("{other:?}"),
    }
}

/// The node that is left, as an ordinary start finds it.
fn check_alone(disk: Disk, survivor: &Survivor) {
    let mut run = Run::new(disk, Start::Run, 11);
    let (_, halted) = run.go(usize::MAX);
    assert_eq!(halted, None);
    let recovered = run.recovered.expect("it is up");
    assert_eq!(recovered.identity.cluster_epoch, 1, "once, however often it was tried");
    assert_eq!((recovered.term, recovered.vote), (survivor.term.next(), Some(NodeId(1))));
    assert!(recovered.membership.is_sole_voter(NodeId(1)));
    assert_eq!(recovered.membership.members().count(), 1);
    assert!(recovered.membership.is_former(NodeId(3)), "ids are used once");
    assert_eq!(recovered.gate, None);
    let end = survivor.bad.map_or(survivor.last.index, LogIndex::previous);
    assert_eq!(recovered.last.index, end);
    assert!(
        recovered.membership.at.index == end.next()
            && recovered.membership.at.term > recovered.last.term
    );
    assert!(recovered.committed <= end);
}

#[test]
fn a_recovery_by_force_that_crashes_anywhere_leaves_the_old_node_or_the_new_one() {
    let kinds = [Damage::Nothing, Damage::Entry, Damage::Both, Damage::Sealed, Damage::Segment];
    for damage in kinds {
        let (mut old, mut new, mut tried) = (0, 0, 0);
        for survivor in (0..12).filter_map(|seed| survivor(seed, damage)).take(2) {
            tried += 1;
            let mut run = Run::new(survivor.disk.clone(), FORCE, 1);
            let (operations, halted) = run.go(usize::MAX);
            let Some(Halt::Forced(forced)) = halted else { panic!("{damage:?}: {halted:?}") };
            check_report(&forced, &survivor);
            assert!(run.storage.marks().has(Mark::QuorumForced));
            assert_eq!(run.storage.marks().has(Mark::CutRepeated), survivor.bad.is_some());
            done_means_durable(&survivor);
            for crash_at in 0..=operations {
                for seed in 0..4 {
                    let mut run = Run::new(survivor.disk.clone(), FORCE, 1);
                    run.go(crash_at);
                    let mut again = Run::new(run.crashed(seed), FORCE, 2);
                    // It may crash once more.
                    again.go(crash_at.wrapping_mul(7) % operations);
                    let disk = again.crashed(seed + 9);
                    match Run::new(disk.clone(), FORCE, 3).go(usize::MAX).1 {
                        Some(Halt::Forced(_)) => {
                            old += 1;
                            let mut last = Run::new(disk, FORCE, 3);
                            last.go(usize::MAX);
                            check_alone(last.crashed(seed), &survivor);
                        }
                        Some(Halt::Refused { row: "already-alone", .. }) => {
                            new += 1;
                            check_alone(disk, &survivor);
                        }
                        other => panic!("{damage:?}, crashed at {crash_at}: {other:?}"),
                    }
                }
            }
        }
        assert!(tried > 0 && old > 10 && new > 5, "{damage:?}: {tried}, {old} old, {new} new");
    }
}

/// Nobody gives it again to one who is alone: what reads good is durable before it is said to be done, and before
/// any start would find it done.
#[test]
fn a_recovery_by_force_rests_on_nothing_that_the_cache_alone_has() {
    for damage in [Damage::CachedTail, Damage::Cached, Damage::CachedSealed] {
        let mut tried = 0;
        for survivor in (0..24).filter_map(|seed| survivor(seed, damage)).take(2) {
            tried += 1;
            let mut run = Run::new(survivor.disk.clone(), FORCE, 1);
            let (operations, halted) = run.go(usize::MAX);
            let Some(Halt::Forced(forced)) = halted else { panic!("{damage:?}: {halted:?}") };
            check_report(&forced, &survivor);
            done_means_durable(&survivor);
            let mut done = 0;
            for (crash_at, seed) in (0..=operations).flat_map(|at| (0..4).map(move |n| (at, n))) {
                let mut run = Run::new(survivor.disk.clone(), FORCE, 1);
                run.go(crash_at);
                let disk = run.crashed(seed);
                let again = Run::new(disk.clone(), FORCE, 2).go(usize::MAX).1;
                if matches!(again, Some(Halt::Refused { row: "already-alone", .. })) {
                    done += 1;
                    check_alone(disk, &survivor);
                }
            }
            assert!(done > 3, "{damage:?}, done after {done} crashes");
        }
        assert!(tried > 0, "{damage:?} is not tried");
    }
}

/// Operations end in any order: who is told that it is done finds it done, whatever comes then.
fn done_means_durable(survivor: &Survivor) {
    for seed in 0..24 {
        let mut run = Run::new(survivor.disk.clone(), FORCE, 1);
        run.order = Some(ChaCha8Rng::seed_from_u64(seed));
        run.writes_last = seed.is_multiple_of(3);
        let halted = run.go(usize::MAX).1;
        assert!(matches!(&halted, Some(Halt::Forced(forced)) if forced.is_done), "{halted:?}");
        check_alone(run.crashed(seed), survivor);
    }
}

fn check_report(forced: &Forced, survivor: &Survivor) {
    assert!(forced.is_done);
    assert_eq!((forced.epoch, forced.term), ((0, 1), (survivor.term, survivor.term.next())));
    assert_eq!(forced.cut, survivor.bad);
    assert_eq!(forced.members.members().count(), 3);
    let end = survivor.bad.map_or(survivor.last.index, LogIndex::previous);
    assert_eq!(forced.last.index, end);
    if survivor.bad.is_none() {
        assert_eq!(forced.known_loss(), None);
    }
}

/// Not acknowledged: the same is told, and not a byte is written.
#[test]
fn what_is_not_acknowledged_is_told_and_not_done() {
    let survivor = survivor(1, Damage::Both).expect("it has lived long enough");
    let start = Start::ForceSoleVoter { acknowledged_loss: false };
    let mut run = Run::new(survivor.disk.clone(), start, 1);
    let Some(Halt::Forced(forced)) = run.go(usize::MAX).1 else { panic!("it is told") };
    assert!(!forced.is_done);
    let (from, to) = forced.known_loss().expect("it is known to have been durable");
    assert_eq!((Some(from), to >= from), (survivor.bad, true));
    for (before, after) in survivor.disk.inodes.iter().zip(&run.disk.inodes) {
        assert!(before.bytes == after.bytes);
    }
    assert_eq!(survivor.disk.names, run.disk.names);
}

/// A log that was given up comes from a leader again, and there is none any more.
#[test]
fn a_gated_node_says_what_it_knows_to_be_lost_and_its_gate_goes() {
    let survivor = survivor(1, Damage::Both).expect("it has lived long enough");
    let mut gated = Run::new(survivor.disk, Start::Run, 4);
    gated.go(usize::MAX);
    let recovered = gated.recovered.as_ref().expect("it waits for a leader");
    assert!(recovered.gate.is_some());
    let (last, bad) = (recovered.last, survivor.bad.expect("it is damaged"));
    let mut forced = Run::new(gated.crashed(1), FORCE, 5);
    let Some(Halt::Forced(told)) = forced.go(usize::MAX).1 else { panic!("it is forced") };
    let (from, to) = told.known_loss().expect("it knew of more than it has");
    assert_eq!((from, to >= bad.previous()), (last.index.next(), true));
    assert!(told.to_string().contains("IS LOST"), "{told}");
    let survivor = Survivor { last, bad: None, term: told.term.0, disk: Disk::default() };
    check_alone(forced.crashed(2), &survivor);
}

#[test]
fn a_node_that_must_not_be_the_only_one_is_refused_with_its_reason() {
    assert_eq!(Run::new(Disk::default(), FORCE, 1).go(9).1, Some(Halt::NotFormatted));
    let started = |start| {
        let mut run = Run::new(Disk::default(), start, 1);
        run.go(usize::MAX);
        run.crashed(1)
    };
    let (row, why) = refused(FORCE, &started(format()));
    assert_eq!(row, "not-formed", "{why}");
    let (row, why) = refused(FORCE, &started(Start::Join { cluster: ClusterId(5) }));
    assert_eq!(row, "never-member", "{why}");
    let alone = Member { id: NodeId(1), incarnation: 0, address: Bytes::new() };
    let members = Arc::new(Membership::of([alone]));
    let (row, why) = refused(FORCE, &started(Start::Format { cluster: ClusterId(5), members }));
    assert_eq!(row, "already-alone", "{why}");
    assert!(why.contains("start this node"), "{why}");
}

/// A member that was removed, and does not know it yet or did not come to its end.
#[test]
fn a_node_that_was_removed_is_refused() {
    let survivor = survivor(1, Damage::Nothing).expect("it has lived long enough");
    let mut run = Run::new(survivor.disk, Start::Run, 4);
    run.go(usize::MAX);
    let members = Arc::clone(&run.recovered.as_ref().expect("it is up").membership);
    let mut others = Membership::clone(&members);
    others.voters.retain(|voter| voter.id != NodeId(1));
    // As committed as the log's beginning: in force for long.
    run.storage.set_membership(Arc::new(others), members);
    run.go(usize::MAX);
    let (row, why) = refused(FORCE, &run.crashed(1));
    assert_eq!(row, "no-member", "{why}");
    assert!(why.contains("voters 2,3"), "{why}");
}

/// A file of a later cluster epoch than the hard state's: an old copy of that was put back.
#[test]
fn a_hard_state_of_before_the_recovery_is_refused_and_older_files_are_its_own() {
    let survivor = survivor(1, Damage::Nothing).expect("it has lived long enough");
    let mut forced = Run::new(survivor.disk.clone(), FORCE, 1);
    forced.go(usize::MAX);
    let mut up = Run::new(forced.disk, Start::Run, 2);
    up.go(usize::MAX);
    // The next segment is opened under the new epoch.
    let (seed, mut last) = {
        let recovered = up.recovered.as_ref().expect("it is up");
        (recovered.seed, recovered.last)
    };
    for _ in 0..60 {
        let id = LogId::new(survivor.term, last.index.next());
        let batch = crate::entry::Batch::one(&[7; 1500]);
        let (head, frame) = batch.seal(seed, id, last.term, Timestamp(9));
        up.storage.append(head, frame, 0);
        up.go(usize::MAX);
        last = id;
    }
    let mut disk = up.crashed(3);
    let mut again = Run::new(disk.clone(), Start::Run, 2);
    assert_eq!(again.go(usize::MAX).1, None, "segments of both epochs are read");
    assert_eq!(again.recovered.expect("it is up").last, last);
    // It names the newer segments, as if only the epoch were of before.
    let group = config().group;
    let newest = disk.inode(File::HardState).expect("it is there").clone();
    let mut hards: Vec<HardState> = OFFSETS
        .as_flattened()
        .iter()
        .filter_map(|at| {
            let at = *at as usize;
            let block = &newest.durable[at..at + BLOCK_BYTES];
            HardState::decode(block, group).ok()
        })
        .collect();
    hards.sort_by_key(|hard| hard.number);
    let mut back = hards.pop().expect("one is good");
    back.identity.cluster_epoch = 0;
    let block = back.encode();
    for at in OFFSETS.as_flattened() {
        let at = *at as usize;
        let inode = disk.inode(File::HardState).expect("it is there");
        for bytes in [&mut inode.bytes, &mut inode.durable] {
            Arc::make_mut(bytes)[at..at + block.len()].copy_from_slice(&block);
        }
    }
    let (row, why) = refused(Start::Run, &disk);
    assert_eq!(row, "term-regressed");
    assert!(why.contains("cluster epoch than 0; epoch 1"), "{why}");
}
