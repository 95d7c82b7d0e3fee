//! What survives, preset by preset, and what the disk does not let an engine do.

mod lies;

use super::*;
use crate::prng::{Concern, Draw};
use bytes::Bytes;
use lakebed::{LogId, LogIndex, SnapshotId, Term};
use std::collections::BTreeSet;

const SECTOR: usize = 512;
const LOG: File = File::Segment(1);

fn draw(seed: u64) -> Draw {
    Draw::new(seed, Concern::Disk, 0, 0)
}

fn part() -> File {
    File::Part(LogId::new(Term(1), LogIndex(1)), SnapshotId(1))
}

/// A disk and the next operation's id.
#[derive(Clone)]
struct Probe {
    disk: SimDisk,
    op: u64,
}

impl Probe {
    /// A log of eight durable sectors, all zero, its name durable.
    fn with_log() -> Self {
        Self::of(Geometry { sector: 512, align: 512, tears: false, sync_names: false })
    }

    fn of(geometry: Geometry) -> Self {
        let mut probe = Self { disk: SimDisk::new(geometry), op: 0 };
        probe.run(create(LOG, 8 * SECTOR as u64)).unwrap();
        probe.run(DiskRequest::SyncDirectory).unwrap();
        probe
    }

    fn submit(&mut self, request: DiskRequest) -> OpId {
        self.op += 1;
        self.disk.submit(OpId(self.op), request);
        OpId(self.op)
    }

    fn run(&mut self, request: DiskRequest) -> Result<Completion, DiskError> {
        let op = self.submit(request);
        self.disk.complete(op)
    }

    /// The first byte of each sector after this crash.
    fn after_crash(&self, survivors: Survivors, seed: u64) -> Option<Vec<u8>> {
        let mut disk = self.disk.clone();
        disk.cut_power(survivors, &mut draw(seed));
        assert_eq!(disk.pending(), 0);
        Some(disk.content(LOG)?.chunks(SECTOR).map(uniform).collect())
    }

    /// Every outcome of this crash.
    fn outcomes(&self, survivors: Survivors) -> BTreeSet<Vec<u8>> {
        (0..200).filter_map(|seed| self.after_crash(survivors, seed)).collect()
    }
}

/// The byte a sector is filled with; a mixed sector would be a torn one.
fn uniform(sector: &[u8]) -> u8 {
    assert!(sector.iter().all(|byte| *byte == sector[0]), "torn within a sector");
    sector[0]
}

fn create(file: File, len: u64) -> DiskRequest {
    DiskRequest::Create { file, len, zeroed: true }
}

fn extent(sector: u64, fill: &[u8]) -> Extent {
    let bytes: Vec<u8> = fill.iter().flat_map(|byte| [*byte; SECTOR]).collect();
    Extent::new(sector * SECTOR as u64, Bytes::from(bytes))
}

fn write(sector: u64, fill: &[u8]) -> DiskRequest {
    DiskRequest::Write { file: LOG, at: extent(sector, fill), and: None, durable: false }
}

fn durable(sector: u64, fill: &[u8]) -> DiskRequest {
    DiskRequest::Write { file: LOG, at: extent(sector, fill), and: None, durable: true }
}

fn sync() -> DiskRequest {
    DiskRequest::Sync { file: LOG }
}

fn set(outcomes: &[&[u8]]) -> BTreeSet<Vec<u8>> {
    outcomes.iter().map(|outcome| outcome.to_vec()).collect()
}

/// One synced sector, three that ended, one in flight.
fn mixed() -> Probe {
    let mut probe = Probe::with_log();
    probe.run(durable(0, &[9])).unwrap();
    probe.run(write(1, &[1, 2])).unwrap();
    probe.run(write(3, &[3])).unwrap();
    probe.submit(write(4, &[4]));
    probe
}

#[test]
fn every_preset_keeps_what_it_says() {
    let probe = mixed();
    assert_eq!(probe.outcomes(Survivors::None), set(&[&[9, 0, 0, 0, 0, 0, 0, 0]]));
    assert_eq!(probe.outcomes(Survivors::All), set(&[&[9, 1, 2, 3, 4, 0, 0, 0]]));
    assert_eq!(probe.outcomes(Survivors::OnlyLast), set(&[&[9, 0, 0, 0, 4, 0, 0, 0]]));
    assert_eq!(probe.outcomes(Survivors::AllButFirst), set(&[&[9, 0, 2, 3, 4, 0, 0, 0]]));
    let prefixes = set(&[
        &[9, 0, 0, 0, 0, 0, 0, 0],
        &[9, 1, 0, 0, 0, 0, 0, 0],
        &[9, 1, 2, 0, 0, 0, 0, 0],
        &[9, 1, 2, 3, 0, 0, 0, 0],
        &[9, 1, 2, 3, 4, 0, 0, 0],
    ]);
    assert_eq!(probe.outcomes(Survivors::Prefix), prefixes);
    let suffixes = set(&[
        &[9, 0, 0, 0, 0, 0, 0, 0],
        &[9, 0, 0, 0, 4, 0, 0, 0],
        &[9, 0, 0, 3, 4, 0, 0, 0],
        &[9, 0, 2, 3, 4, 0, 0, 0],
        &[9, 1, 2, 3, 4, 0, 0, 0],
    ]);
    assert_eq!(probe.outcomes(Survivors::Suffix), suffixes);
    assert_eq!(probe.outcomes(Survivors::Random).len(), 16);
}

#[test]
fn writes_that_ended_are_seen_and_those_in_flight_are_not() {
    let probe = mixed();
    let seen: Vec<u8> = probe.disk.content(LOG).unwrap().chunks(SECTOR).map(uniform).collect();
    assert_eq!(seen, [9, 1, 2, 3, 0, 0, 0, 0]);
}

#[test]
fn who_reads_amid_a_write_sees_each_sector_as_before_or_as_behind_it() {
    let mut probe = Probe::with_log();
    probe.run(durable(0, &[1; 8])).unwrap();
    let writing = probe.submit(write(1, &[2; 7]));
    let read = |probe: &mut Probe| {
        let read = DiskRequest::Read { file: LOG, offset: 0, len: 8 * SECTOR as u32 };
        let Ok(Completion::Read(bytes)) = probe.run(read) else { panic!("it can be read") };
        bytes.chunks(SECTOR).map(uniform).collect::<Vec<_>>()
    };
    let amid = read(&mut probe);
    let landed = amid[1..].iter().filter(|byte| **byte == 2).count();
    assert!(amid[0] == 1 && (1..7).contains(&landed), "{amid:?}");
    assert_eq!(probe.outcomes(Survivors::None), set(&[&[1; 8]]));
    probe.disk.complete(writing).unwrap();
    assert_eq!(read(&mut probe), [1, 2, 2, 2, 2, 2, 2, 2]);
}

#[test]
fn sync_covers_what_ended_before_it_was_submitted() {
    let mut probe = Probe::with_log();
    probe.run(write(0, &[1])).unwrap();
    let late = probe.submit(write(1, &[2]));
    let sync = probe.submit(sync());
    probe.disk.complete(late).unwrap();
    probe.run(write(2, &[3])).unwrap();
    probe.disk.complete(sync).unwrap();
    assert_eq!(probe.outcomes(Survivors::None), set(&[&[1, 0, 0, 0, 0, 0, 0, 0]]));
}

#[test]
fn a_durable_write_covers_itself_alone() {
    let mut probe = Probe::with_log();
    probe.run(write(0, &[1])).unwrap();
    probe.run(durable(1, &[2])).unwrap();
    assert_eq!(probe.outcomes(Survivors::None), set(&[&[0, 2, 0, 0, 0, 0, 0, 0]]));
}

#[test]
fn any_version_of_a_sector_may_survive_but_none_that_was_replaced_durably() {
    let mut probe = Probe::with_log();
    probe.run(write(0, &[1])).unwrap();
    probe.run(write(0, &[2])).unwrap();
    probe.submit(write(0, &[3]));
    let versions = probe.outcomes(Survivors::Random);
    assert_eq!(versions.iter().map(|v| v[0]).collect::<Vec<_>>(), [0, 1, 2, 3]);

    let mut probe = Probe::with_log();
    probe.run(write(0, &[1, 1, 1])).unwrap();
    probe.run(durable(1, &[2])).unwrap();
    let outcomes = probe.outcomes(Survivors::Random);
    assert!(outcomes.iter().all(|outcome| outcome[1] == 2), "{outcomes:?}");
    assert_eq!(outcomes.len(), 4, "its neighbours are as undecided as before");
}

/// Which bytes are in the second sector after this crash, and whether they come as a first part and a last one, in words,
/// or not mixed at all.
fn second_sector(probe: &Probe, survivors: Survivors, seed: u64) -> (BTreeSet<u8>, usize) {
    let mut disk = probe.disk.clone();
    disk.cut_power(survivors, &mut draw(seed));
    let content = disk.content(LOG).unwrap();
    let mut sectors = content.chunks(SECTOR);
    assert_eq!(uniform(sectors.next().unwrap()), 9, "what is durable does not tear");
    let sector = sectors.next().unwrap();
    let borders = sector.windows(2).filter(|pair| pair[0] != pair[1]).count();
    (sector.iter().copied().collect(), borders)
}

#[test]
fn a_sector_that_tears_mixes_what_came_down_last_with_what_was_there() {
    let mut probe = Probe::of(Geometry { sector: 512, align: 512, tears: true, sync_names: false });
    probe.run(durable(0, &[9])).unwrap();
    probe.run(write(1, &[1])).unwrap();
    probe.run(write(1, &[2])).unwrap();
    let looks = |survivors| (0..600).map(move |seed| (survivors, seed));
    let mut found: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut finest = 0;
    for (survivors, seed) in looks(Survivors::Random) {
        let (bytes, borders) = second_sector(&probe, survivors, seed);
        finest = finest.max(borders);
        found.insert(bytes.into_iter().collect());
    }
    let all: [&[u8]; 6] = [&[0], &[0, 1], &[0, 2], &[1], &[1, 2], &[2]];
    assert!(found.iter().eq(&all), "never three versions: {found:?}");
    assert!(finest > 10, "words here and there: {finest}");
    for (survivors, whole) in [(Survivors::None, 0), (Survivors::All, 2)] {
        assert!(looks(survivors).all(|(survivors, seed)| {
            second_sector(&probe, survivors, seed) == (BTreeSet::from([whole]), 0)
        }));
    }
}

#[test]
fn a_durable_write_in_flight_may_be_there_or_not() {
    let mut probe = Probe::with_log();
    probe.submit(durable(0, &[1]));
    assert_eq!(probe.outcomes(Survivors::Random).len(), 2);
}

#[test]
fn a_rename_is_old_or_new_and_never_neither() {
    let mut probe = Probe::with_log();
    probe.run(create(File::Spare(0), 512)).unwrap();
    probe.run(DiskRequest::SyncDirectory).unwrap();
    probe.run(DiskRequest::Rename { from: File::Spare(0), to: File::HardState }).unwrap();
    for seed in 0..50 {
        for survivors in Survivors::ALL {
            let mut disk = probe.disk.clone();
            disk.cut_power(survivors, &mut draw(seed));
            let names: Vec<File> = disk.list().map(|(file, _)| file).collect();
            let old = names == [LOG, File::Spare(0)];
            let new = names == [File::HardState, LOG];
            assert!(old || new, "{names:?}");
        }
    }
}

/// The name of a file that replaced another one is lost, and its renaming is not: what had the name
/// before does not take its place. Else a node that was formatted twice would find an empty hard
/// state (an enumeration found it, in two crashes).
#[test]
fn a_rename_moves_the_file_it_was_asked_to_and_no_other() {
    let mut probe = Probe::with_log();
    probe.run(create(File::Spare(0), 0)).unwrap();
    probe.run(DiskRequest::SyncDirectory).unwrap();
    probe.run(create(File::Spare(0), 512)).unwrap();
    probe.run(DiskRequest::Rename { from: File::Spare(0), to: File::HardState }).unwrap();
    let lens = |kept: u64| -> Vec<(File, u64)> {
        let mut disk = probe.disk.clone();
        disk.cut_power_exactly(kept);
        disk.list().filter(|(file, _)| *file != LOG).collect()
    };
    assert_eq!(lens(0b00), [(File::Spare(0), 0)]);
    assert_eq!(lens(0b01), [(File::Spare(0), 512)]);
    assert_eq!(lens(0b10), [(File::Spare(0), 0)]);
    assert_eq!(lens(0b11), [(File::HardState, 512)]);
}

/// Two sectors pending, a creation and a change of names in flight: each alone is there or not.
#[test]
fn every_subset_of_what_is_undecided_can_be_had() {
    let mut probe = Probe::with_log();
    probe.run(write(0, &[1])).unwrap();
    probe.submit(write(1, &[2]));
    probe.submit(create(File::Spare(0), 1024));
    probe.submit(DiskRequest::Remove { file: LOG });
    assert_eq!(probe.disk.undecided(), 2 + 2 + 2);
    let outcomes: BTreeSet<u64> = (0..1 << 6)
        .map(|kept| {
            let mut disk = probe.disk.clone();
            disk.cut_power_exactly(kept);
            disk.digest()
        })
        .collect();
    // The log whole or without either sector, or gone; the spare gone, or of three lengths.
    assert_eq!(outcomes.len(), (4 + 1) * (1 + 3));
}

#[test]
fn names_are_durable_after_a_sync_of_the_directory_submitted_later() {
    let mut probe = Probe::with_log();
    let early = probe.submit(DiskRequest::SyncDirectory);
    probe.run(create(File::Segment(2), 512)).unwrap();
    probe.disk.complete(early).unwrap();
    let mut disk = probe.disk.clone();
    disk.cut_power(Survivors::None, &mut draw(0));
    assert_eq!(disk.list().count(), 1);
    probe.run(DiskRequest::SyncDirectory).unwrap();
    probe.disk.cut_power(Survivors::None, &mut draw(0));
    assert_eq!(probe.disk.list().count(), 2);
}

#[test]
fn whatever_makes_durable_may_keep_all_names_given_before() {
    let [second, third] = [2, 3].map(File::Segment);
    let left = |sync_names: bool, request: DiskRequest, is_early: bool| {
        let mut probe = Probe::of(Geometry { sector: 512, align: 512, tears: false, sync_names });
        probe.run(create(second, 512)).unwrap();
        let early = is_early.then(|| probe.submit(request.clone()));
        probe.run(DiskRequest::Rename { from: second, to: third }).unwrap();
        let op = early.unwrap_or_else(|| probe.submit(request));
        probe.disk.complete(op).unwrap();
        probe.disk.cut_power(Survivors::None, &mut draw(0));
        probe.disk.list().map(|(file, _)| file).collect::<Vec<_>>()
    };
    for request in [sync(), durable(0, &[1])] {
        assert_eq!(left(true, request.clone(), true), [LOG, second], "the rename came later");
        assert_eq!(left(true, request.clone(), false), [LOG, third]);
        assert_eq!(left(false, request, false), [LOG]);
    }
    assert_eq!(left(true, write(0, &[1]), false), [LOG], "what is not durable keeps nothing");
}

#[test]
fn a_removed_file_may_come_back_whole() {
    let mut probe = Probe::with_log();
    probe.run(durable(0, &[7])).unwrap();
    probe.run(DiskRequest::Remove { file: LOG }).unwrap();
    assert_eq!(probe.disk.content(LOG), None);
    assert_eq!(probe.after_crash(Survivors::None, 0).unwrap()[0], 7);
    assert_eq!(probe.after_crash(Survivors::All, 0), None);
}

#[test]
fn a_creation_in_flight_leaves_any_length() {
    let mut probe = Probe::with_log();
    probe.submit(create(File::Segment(2), 4 * 512));
    let mut lengths = BTreeSet::new();
    for seed in 0..100 {
        let mut disk = probe.disk.clone();
        disk.cut_power(Survivors::All, &mut draw(seed));
        lengths.extend(disk.list().find(|(file, _)| *file == File::Segment(2)).map(|(_, len)| len));
    }
    assert_eq!(lengths, BTreeSet::from([0, 512, 1024, 1536, 2048]));
}

#[test]
fn a_growing_file_keeps_the_length_that_was_synced() {
    let mut probe = Probe::with_log();
    probe.run(create(part(), 0)).unwrap();
    probe.run(DiskRequest::SyncDirectory).unwrap();
    let grow = |sector| DiskRequest::Write {
        file: part(),
        at: extent(sector, &[5]),
        and: None,
        durable: false,
    };
    probe.run(grow(0)).unwrap();
    probe.run(DiskRequest::Sync { file: part() }).unwrap();
    probe.run(grow(1)).unwrap();
    probe.run(grow(2)).unwrap();
    let mut lengths = BTreeSet::new();
    for seed in 0..100 {
        let mut disk = probe.disk.clone();
        disk.cut_power(Survivors::Random, &mut draw(seed));
        let content = disk.content(part()).unwrap();
        assert_eq!(content[0], 5, "what was synced stays");
        lengths.insert(content.len());
    }
    assert_eq!(lengths, BTreeSet::from([512, 1024, 1536]));
}

/// A process was killed while it made a file: the next one finds some length of it, which a power cut
/// takes back unless it was synced.
#[test]
fn a_length_that_a_kill_has_left_is_durable_after_a_sync() {
    let made = File::Segment(2);
    let mut probe = Probe::with_log();
    probe.submit(create(made, 4 * 512));
    let mut lengths = BTreeSet::new();
    for seed in 0..100 {
        let mut probe = probe.clone();
        probe.disk.kill(&mut draw(seed));
        let len = |disk: &SimDisk| disk.list().find(|(file, _)| *file == made).map(|(_, len)| len);
        let Some(found) = len(&probe.disk) else { continue };
        lengths.insert(found);
        probe.run(DiskRequest::SyncDirectory).unwrap();
        let mut unsynced = probe.disk.clone();
        unsynced.cut_power(Survivors::None, &mut draw(seed));
        assert_eq!(len(&unsynced), Some(0));
        probe.run(DiskRequest::Sync { file: made }).unwrap();
        probe.disk.cut_power(Survivors::None, &mut draw(seed));
        assert_eq!(len(&probe.disk), Some(found));
    }
    assert!(lengths.len() > 1, "{lengths:?}");
}

#[test]
fn a_killed_process_loses_nothing_that_ended() {
    let probe = mixed();
    let mut outcomes = BTreeSet::new();
    for seed in 0..100 {
        let mut disk = probe.disk.clone();
        disk.kill(&mut draw(seed));
        let seen: Vec<u8> = disk.content(LOG).unwrap().chunks(SECTOR).map(uniform).collect();
        assert_eq!(seen[..4], [9, 1, 2, 3]);
        outcomes.insert(seen[4]);
        disk.cut_power(Survivors::None, &mut draw(seed));
        assert_eq!(uniform(&disk.content(LOG).unwrap()[512..1024]), 0, "seen is not durable");
    }
    assert_eq!(outcomes, BTreeSet::from([0, 4]), "the write in flight happened or not");
}

#[test]
fn a_failed_sync_is_believed_once_and_its_pages_are_gone() {
    let mut probe = Probe::with_log();
    probe.run(write(0, &[1])).unwrap();
    let op = probe.submit(sync());
    assert_eq!(probe.disk.fail(op, Failure::CleanKeep), Err(DiskError::Io { errno: EIO }));
    assert_eq!(probe.disk.content(LOG).unwrap()[0], 1, "the cache shows the new");
    probe.run(sync()).unwrap();
    assert_eq!(probe.outcomes(Survivors::All), set(&[&[0; 8]]), "the disk has the old");
    for landed in [0, 1] {
        let mut disk = probe.disk.clone();
        disk.cut_power_exactly(landed);
        assert_eq!(u64::from(disk.content(LOG).unwrap()[0]), landed, "unless it came so far");
    }

    probe.run(write(0, &[1])).unwrap();
    probe.run(sync()).unwrap();
    assert_eq!(probe.outcomes(Survivors::None), set(&[&[1, 0, 0, 0, 0, 0, 0, 0]]), "rewritten");
}

#[test]
fn a_failed_sync_may_show_the_old_again() {
    let mut probe = Probe::with_log();
    probe.run(write(0, &[1])).unwrap();
    let op = probe.submit(sync());
    probe.disk.fail(op, Failure::CleanRevert).unwrap_err();
    assert_eq!(probe.disk.content(LOG).unwrap()[0], 0);
    assert!(!probe.disk.has_pending_sectors());
}

#[test]
fn room_ends_and_comes_back() {
    let mut probe = Probe::with_log();
    probe.disk.set_room(8 * 512 + 1024);
    assert_eq!(probe.run(create(File::Segment(2), 1536)), Err(DiskError::Full));
    assert_eq!(probe.disk.content(File::Segment(2)), Some(Bytes::new()), "a name without room");
    assert_eq!(probe.run(create(File::Segment(2), 1024)), Ok(Completion::Done));
    probe.run(create(part(), 0)).unwrap();
    let grow =
        || DiskRequest::Write { file: part(), at: extent(0, &[5]), and: None, durable: true };
    assert_eq!(probe.run(grow()), Err(DiskError::Full));
    assert_eq!(probe.disk.content(part()).unwrap().len(), 0, "a refused write leaves nothing");
    probe.run(DiskRequest::Remove { file: File::Segment(2) }).unwrap();
    assert_eq!(probe.run(grow()), Ok(Completion::Done));
}

#[test]
fn rot_damages_what_is_there_and_nothing_else() {
    let mut probe = Probe::with_log();
    probe.run(durable(0, &[1, 2, 3])).unwrap();
    probe.disk.rot(LOG, 512..8 * 512);
    let content = probe.disk.content(LOG).unwrap();
    let whole = |sector: usize, fill: u8| {
        content[sector * 512..(sector + 1) * 512].iter().all(|byte| *byte == fill)
    };
    assert!(whole(0, 1) && !whole(1, 2) && !whole(2, 3) && whole(3, 0));
}

#[test]
fn a_lost_file_is_gone_by_each_of_its_names_and_makes_no_other_durable() {
    let mut probe = Probe::with_log();
    let (spare, renamed, other) = (File::Spare(3), File::Segment(3), File::Segment(2));
    probe.run(create(spare, 512)).unwrap();
    probe.run(DiskRequest::SyncDirectory).unwrap();
    probe.run(create(other, 512)).unwrap();
    probe.run(DiskRequest::Rename { from: spare, to: renamed }).unwrap();
    probe.disk.lose(renamed);
    let names = |disk: &SimDisk| disk.list().map(|(file, _)| file).collect::<BTreeSet<_>>();
    assert_eq!(names(&probe.disk), BTreeSet::from([LOG, other]));
    let after: BTreeSet<_> = (0..50)
        .map(|seed| {
            let mut disk = probe.disk.clone();
            disk.cut_power(Survivors::Random, &mut draw(seed));
            names(&disk)
        })
        .collect();
    let outcomes = [BTreeSet::from([LOG]), BTreeSet::from([LOG, other])];
    assert_eq!(after, BTreeSet::from(outcomes), "the other name is as uncertain as it was");
}

#[test]
fn reads_end_at_the_end_of_the_file() {
    let mut probe = mixed();
    let read = |offset, len| DiskRequest::Read { file: LOG, offset, len };
    let Ok(Completion::Read(bytes)) = probe.run(read(1000, 600)) else { panic!("a read") };
    assert_eq!((bytes.len(), bytes[0], bytes[24], bytes[599]), (600, 1, 2, 3));
    let Ok(Completion::Read(bytes)) = probe.run(read(4000, 600)) else { panic!("a read") };
    assert_eq!(bytes.len(), 96);
    let missing = DiskRequest::Read { file: File::Segment(9), offset: 0, len: 1 };
    assert_eq!(probe.run(missing), Err(DiskError::NotFound));
}

#[test]
fn what_is_not_there_cannot_be_removed() {
    let request = DiskRequest::Remove { file: File::Spare(3) };
    assert_eq!(Probe::with_log().run(request), Err(DiskError::NotFound));
}

#[test]
#[should_panic(expected = "overlaps one in flight")]
fn writes_in_flight_must_not_overlap() {
    let mut probe = Probe::with_log();
    probe.submit(write(0, &[1, 1]));
    probe.submit(write(1, &[2]));
}

#[test]
#[should_panic(expected = "goes beyond the end")]
fn a_log_does_not_grow() {
    Probe::with_log().submit(write(8, &[1]));
}

#[test]
#[should_panic(expected = "is not aligned to 512")]
fn writes_are_aligned() {
    let at = Extent::new(512, Bytes::from_static(&[0; 100]));
    Probe::with_log().submit(DiskRequest::Write { file: LOG, at, and: None, durable: false });
}

#[test]
#[should_panic(expected = "spare-3 does not exist")]
fn operations_are_on_files_that_exist() {
    Probe::with_log().submit(DiskRequest::Sync { file: File::Spare(3) });
}
