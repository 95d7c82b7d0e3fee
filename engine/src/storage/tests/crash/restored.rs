//! A restore from a backup, crashed at every operation of its disk, in many ways each: what is
//! left is refused by an ordinary start or is the whole node, and a restore in its place comes to
//! its end, unless it is the node.

use super::{Disk, config};
use crate::{
    action::Machine,
    backup::Backup,
    event::MachineError,
    file::{DiskError, DiskRequest},
    membership::Member,
    storage::*,
    types::{ClusterId, GroupId, OpId, SnapshotId, Timestamp},
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};
use std::sync::LazyLock;

const STATE_BYTES: usize = 80_000;

static STATE: LazyLock<Bytes> =
    LazyLock::new(|| (0..STATE_BYTES).map(|n| (n / 7 + n) as u8).collect());

fn backup(index: u64) -> Backup {
    Backup {
        cluster: ClusterId(4),
        group: GroupId(1),
        groups: 0,
        node: NodeId(9),
        at: LogId::new(Term(6), LogIndex(index)),
        id: SnapshotId(index + 1),
        bytes: STATE_BYTES as u64,
        digest: crc32c::crc32c(&STATE),
        time: Timestamp(7),
        members: Arc::default(),
    }
}

fn start(backup: Backup) -> Start {
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    let members = Arc::new(Membership::of([member(1), member(2), member(3)]));
    Start::Restore { cluster: ClusterId(5), members, backup: Box::new(backup) }
}

/// One start on a disk, until it halts, is up, or was given `operations`.
pub(super) struct Run {
    pub(super) storage: Storage,
    pub(super) disk: Disk,
    state: Vec<u8>,
    captured: usize,
    restored: Vec<u8>,
    pub(super) recovered: Option<Recovered>,
    in_flight: Vec<(OpId, DiskRequest)>,
    /// Which operation from now on fails, and how.
    fails: Option<(usize, DiskError)>,
    /// Draws which operation in flight ends next; else it is the oldest.
    pub(super) order: Option<ChaCha8Rng>,
    /// A write ends only when nothing else is in flight.
    pub(super) writes_last: bool,
}

impl Run {
    pub(super) fn new(disk: Disk, start: Start, seed: u64) -> Self {
        let mut storage = Storage::new(&config(), seed);
        storage.on_start(start);
        Self {
            storage,
            disk,
            state: STATE.to_vec(),
            captured: 0,
            restored: Vec::new(),
            recovered: None,
            in_flight: Vec::new(),
            fails: None,
            order: None,
            writes_last: false,
        }
    }

    /// `None`: it goes on, or waits for what is in flight.
    fn settle(&mut self) -> Option<Halt> {
        loop {
            let mut out = Vec::new();
            if let Some(recovered) = self.storage.recover(Instant(1), &mut out) {
                self.recovered = Some(recovered);
            }
            self.storage.persist(Instant(1), &mut out);
            if let Some(halt) = self.storage.halt() {
                return Some(halt);
            }
            let mut has_machine_worked = false;
            for action in out {
                match action {
                    Action::Disk { op, request, .. } => self.in_flight.push((op, request)),
                    Action::Machine(step) => {
                        self.perform(step);
                        has_machine_worked = true;
                    }
                    _ => {}
                }
            }
            if !has_machine_worked {
                return None;
            }
        }
    }

    fn perform(&mut self, step: Machine) {
        match step {
            Machine::CaptureNext { capture, bytes_max } => {
                let len = (bytes_max as usize).min(9_000).min(self.state.len() - self.captured);
                let bytes = Bytes::copy_from_slice(&self.state[self.captured..][..len]);
                self.captured += len;
                let last = self.captured == self.state.len();
                self.storage.on_captured(capture, Ok(Chunk { bytes, last }));
            }
            Machine::Restore { offset, bytes, .. } => {
                self.restored.truncate(offset as usize);
                self.restored.extend_from_slice(&bytes);
                self.storage.on_restored(self.restored.len() as u64, Ok(()));
            }
            _ => {}
        }
    }

    /// Performs one operation after the other, at most so many; tells how many, and the end.
    pub(super) fn go(&mut self, most: usize) -> (usize, Option<Halt>) {
        let mut done = 0;
        loop {
            let halted = self.settle();
            let is_over = halted.is_some() || self.in_flight.is_empty() || done == most;
            if is_over {
                return (done, halted);
            }
            let count = self.in_flight.len() as u64;
            let drawn = self.order.as_mut().map_or(0, |order| order.next_u64() % count) as usize;
            let is_write =
                |(_, request): &(OpId, DiskRequest)| matches!(request, DiskRequest::Write { .. });
            let other = self.in_flight.iter().position(|flight| !is_write(flight));
            let next = other.filter(|_| self.writes_last).unwrap_or(drawn);
            let (op, request) = self.in_flight.remove(next);
            let result = match self.fails {
                Some((at, error)) if at == done && request != DiskRequest::List => Err(error),
                _ => self.disk.perform(&request),
            };
            self.storage.on_completed(Instant(1), op, result);
            done += 1;
        }
    }

    pub(super) fn crashed(mut self, seed: u64) -> Disk {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        self.disk.crash(&self.in_flight, &mut |below| rng.next_u64() % below);
        self.disk
    }
}

fn is_node(disk: &Disk) -> bool {
    disk.names.contains_key(&File::HardState)
}

/// The disk holds the whole node, and nothing else.
fn check_whole(disk: Disk, index: u64) {
    let mut run = Run::new(disk, Start::Run, 11);
    let (_, halted) = run.go(usize::MAX);
    assert_eq!(halted, None);
    let recovered = run.recovered.expect("it is up");
    let at = backup(index).at;
    assert_eq!((recovered.last, recovered.snapshot, recovered.term), (at, at, Term(6)));
    assert_eq!((recovered.first, recovered.committed), (at.index.next(), at.index));
    assert_eq!(recovered.origin, Origin { at, id: SnapshotId(index + 1) });
    assert_eq!((recovered.identity.cluster, recovered.vote), (ClusterId(5), None));
    assert!(run.restored == *STATE, "the machine holds what the backup does");
}

fn refuses_to_run(disk: &Disk) {
    let is_empty = disk.names.keys().all(|file| matches!(file, File::Spare(_)));
    match Run::new(disk.clone(), Start::Run, 12).go(usize::MAX).1 {
        Some(Halt::NotFormatted) if is_empty => {}
        Some(Halt::Refused { row: "restore-unfinished", .. }) if !is_empty => {}
        other => panic!("half a node started: {other:?}"),
    }
}

#[test]
fn a_restore_that_crashes_anywhere_leaves_no_half_node() {
    let operations = Run::new(Disk::default(), start(backup(50)), 1).go(usize::MAX).0;
    assert!(operations > 12, "{operations} operations are a whole restore");
    let (mut whole, mut repeated) = (0, 0);
    for crash_at in 0..=operations {
        for seed in 0..40 {
            let mut run = Run::new(Disk::default(), start(backup(50)), 1);
            let halted = run.go(crash_at).1;
            let is_done = halted == Some(Halt::Built(backup(50).at));
            assert!(is_done == (crash_at == operations), "{halted:?}");
            let disk = run.crashed(seed);
            if is_node(&disk) {
                whole += 1;
                let again = Run::new(disk.clone(), start(backup(50)), 2).go(usize::MAX).1;
                assert_eq!(again, Some(Halt::AlreadyFormatted));
                check_whole(disk, 50);
                continue;
            }
            assert!(!is_done, "what was said to be built is gone");
            refuses_to_run(&disk);
            // The second one may be of another backup, and crash as well.
            let mut again = Run::new(disk, start(backup(70)), 3);
            again.go(seed as usize % operations);
            let disk = again.crashed(seed);
            if !is_node(&disk) {
                refuses_to_run(&disk);
                let mut third = Run::new(disk, start(backup(60)), 4);
                assert_eq!(third.go(usize::MAX).1, Some(Halt::Built(backup(60).at)));
                repeated += u32::from(third.storage.marks().has(Mark::RestoreRepeated));
                check_whole(third.crashed(seed), 60);
            }
        }
    }
    assert!(whole > 40 && repeated > 100, "{whole} whole, {repeated} begun anew over others");
}

/// A full disk, or one that fails, at any operation: said with the file, and nothing is a node.
#[test]
fn a_restore_whose_disk_fails_is_no_node() {
    let operations = Run::new(Disk::default(), start(backup(50)), 1).go(usize::MAX).0;
    for error in [DiskError::Full, DiskError::Io { errno: 5 }] {
        for at in 1..operations - 1 {
            let mut run = Run::new(Disk::default(), start(backup(50)), 1);
            run.fails = Some((at, error));
            match run.go(usize::MAX).1 {
                Some(Halt::DiskFailed { error: found, .. }) => assert_eq!(found, error, "{at}"),
                other => panic!("operation {at} failed: {other:?}"),
            }
            assert!(!is_node(&run.disk), "operation {at}");
            let again = Run::new(run.disk, start(backup(50)), 2).go(usize::MAX).1;
            assert_eq!(again, Some(Halt::Built(backup(50).at)), "operation {at}");
        }
    }
}

/// The machine gives another state than the backup is said to hold.
#[test]
fn a_state_that_is_not_the_backups_is_not_named() {
    for damage in [0, STATE_BYTES / 2, STATE_BYTES - 1] {
        let mut run = Run::new(Disk::default(), start(backup(50)), 1);
        run.state[damage] ^= 4;
        let halted = run.go(usize::MAX).1;
        assert!(matches!(halted, Some(Halt::Refused { row: "backup-differs", .. })), "{halted:?}");
        assert!(
            !is_node(&run.disk) && !run.disk.names.contains_key(&File::Snapshot(backup(50).at))
        );
    }
    let mut run = Run::new(Disk::default(), start(backup(50)), 1);
    run.state.truncate(STATE_BYTES - 1);
    assert!(matches!(run.go(usize::MAX).1, Some(Halt::Refused { row: "backup-differs", .. })));
}

#[test]
fn a_restore_that_cannot_be_meant_is_refused_with_its_reason() {
    let halted = |cluster: u64, group: u64, members: Vec<Member>| {
        let backup = Backup { cluster: ClusterId(cluster), group: GroupId(group), ..backup(50) };
        let members = Arc::new(Membership::of(members));
        let backup = Box::new(backup);
        let start = Start::Restore { cluster: ClusterId(5), members, backup };
        let mut run = Run::new(Disk::default(), start, 1);
        match run.go(usize::MAX).1 {
            Some(Halt::Refused { row, .. }) if run.disk.names.is_empty() => row,
            other => panic!("{other:?}, {:?}", run.disk.names),
        }
    };
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    assert_eq!(halted(5, 1, vec![member(1)]), "same-cluster");
    assert_eq!(halted(4, 2, vec![member(1)]), "foreign");
    assert_eq!(halted(4, 1, vec![member(2)]), "no-member");
    assert_eq!(halted(4, 1, vec![member(1), member(2), member(2)]), "member-twice");
    assert_eq!(halted(4, 1, (1..=33).map(member).collect()), "too-many-members");
    let far = Member { address: vec![b'a'; 65].into(), ..member(1) };
    assert_eq!(halted(4, 1, vec![far]), "too-many-members");
}

/// A node that lives there, or what is left of one, is not written over.
#[test]
fn a_restore_into_a_nodes_directory_changes_nothing() {
    let mut node = Run::new(Disk::default(), super::format(), 1);
    node.go(usize::MAX);
    let before: Vec<File> = node.disk.names.keys().copied().collect();
    let mut run = Run::new(node.disk, start(backup(50)), 1);
    assert_eq!(run.go(usize::MAX), (1, Some(Halt::AlreadyFormatted)));
    assert_eq!(run.disk.names.keys().copied().collect::<Vec<_>>(), before);
}

#[test]
fn a_machine_that_fails_while_it_is_captured_ends_the_restore() {
    let mut run = Run::new(Disk::default(), start(backup(50)), 1);
    run.go(3);
    run.storage.on_captured(CaptureId(1), Err(MachineError("the file is gone".into())));
    let halted = run.settle();
    assert_eq!(halted, Some(Halt::Machine(MachineError("the file is gone".into()))));
}
