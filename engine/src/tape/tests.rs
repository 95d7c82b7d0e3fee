//! A tape tells every event again, and no damage to it does harm.

use super::*;
use crate::{
    Backup, Batch, CaptureId, Change, Chunk, ClusterId, Completion, Control, DiskError, File,
    GroupId, LogId, LogIndex, MachineError, Member, Membership, NodeId, OpId, ReadMode, RequestId,
    Requests, SnapshotId, Start, Term, Timestamp, Tuning,
};
use std::{sync::Arc, time::Duration};

fn member(id: u64) -> Member {
    Member { id: NodeId(id), incarnation: id * 7, address: Bytes::from_static(b"somewhere") }
}

fn starts() -> Vec<Event> {
    let members = Arc::new(Membership {
        at: LogId::new(Term(2), LogIndex(3)),
        voters: vec![member(1), member(2)],
        outgoing: vec![member(3)],
        learners: vec![member(4)],
        used: NodeId(0),
    });
    let backup = Backup {
        cluster: ClusterId(8),
        group: GroupId(1),
        groups: 6,
        node: NodeId(2),
        at: LogId::new(Term(1), LogIndex(8)),
        id: SnapshotId(5),
        bytes: 99,
        digest: 0xdead_beef,
        time: Timestamp(12),
        members: members.clone(),
    };
    let starts = [
        Start::Run,
        Start::Format { cluster: ClusterId(9), members: members.clone() },
        Start::Restore {
            cluster: ClusterId(9),
            members: members.clone(),
            backup: Box::new(backup),
        },
        Start::Join { cluster: ClusterId(9) },
        Start::Resume { machine: LogId::new(Term(1), LogIndex(8)) },
        Start::Inspect,
        Start::Verify,
        Start::ForceSoleVoter { acknowledged_loss: true },
    ];
    starts.into_iter().map(Event::Start).collect()
}

fn completions() -> Vec<Event> {
    let id = LogId::new(Term(1), LogIndex(5));
    let files = [
        File::HardState,
        File::Segment(1),
        File::Spare(2),
        File::Snapshot(id),
        File::Part(id, SnapshotId(6)),
    ];
    let listed = files.into_iter().zip(0..).collect();
    let results = [
        Ok(Completion::Done),
        Ok(Completion::Read(Bytes::from_static(b"page"))),
        Ok(Completion::Listed(listed)),
        Err(DiskError::NotFound),
        Err(DiskError::Full),
        Err(DiskError::Io { errno: 5 }),
    ];
    results.into_iter().map(|result| Event::Completed { op: OpId(4), result }).collect()
}

fn controls() -> Vec<Event> {
    let changes = vec![
        Change::AddLearner(member(5)),
        Change::Promote(NodeId(5)),
        Change::Demote(NodeId(5)),
        Change::Remove(NodeId(5)),
        Change::Address(member(1)),
    ];
    let controls = [
        Control::Change(changes),
        Control::Transfer { to: Some(NodeId(2)) },
        Control::Transfer { to: None },
        Control::Snapshot,
        Control::PinSnapshot,
        Control::ReadPinned { file: File::Snapshot(LogId::ZERO), offset: 7, len: 8 },
        Control::Unpin { file: File::Segment(3) },
    ];
    controls.into_iter().map(|control| Event::Control { id: RequestId(1), control }).collect()
}

fn others() -> Vec<Event> {
    let requests = Requests { first: RequestId(3), count: 2 };
    let mut batch = Batch::one(b"set a 1");
    batch.push(b"");
    let mode = ReadMode::Local { stale_max: Duration::new(3, 4) };
    vec![
        Event::Received { from: NodeId(2), bytes: Bytes::from_static(b"message") },
        Event::Link { peer: NodeId(2), up: false },
        Event::Applied { through: LogIndex(7) },
        Event::Captured {
            capture: CaptureId(1),
            result: Ok(Chunk { bytes: Bytes::from_static(b"state"), last: true }),
        },
        Event::Captured { capture: CaptureId(1), result: Err(MachineError("no".into())) },
        Event::Restored { through: 10, result: Ok(()) },
        Event::Propose { first: RequestId(3), time: Timestamp(11), batch },
        Event::Read { requests, mode: ReadMode::Linearizable },
        Event::Read { requests, mode: ReadMode::Lease },
        Event::Read { requests, mode },
        Event::Tune(Box::new(Tuning { lease_drift_ppm: Some(50), ..Tuning::default() })),
        Event::Stop { hand_over: true },
    ]
}

fn every_event() -> Vec<Event> {
    [starts(), completions(), controls(), others()].concat()
}

pub(crate) fn config() -> Config {
    Config::new(GroupId(1), NodeId(1))
}

pub(crate) fn recorded() -> Recorder {
    let mut recorder = Recorder::new(&config(), 42);
    let actions = [
        Action::Members(Arc::new(Membership::of([member(1)]))),
        Action::Send { to: NodeId(2), head: Bytes::from_static(b"h"), body: Bytes::new() },
    ];
    recorder.step(Instant(5), &every_event(), &actions);
    recorder.step(Instant(6), &[], &[]);
    recorder
}

#[test]
fn every_event_is_read_back() {
    let tape = Tape::open(Bytes::copy_from_slice(recorded().bytes())).unwrap();
    assert_eq!((tape.seed, &tape.config), (42, &config()));
    let steps: Vec<Step> = tape.map(Result::unwrap).collect();
    assert_eq!(steps.len(), 2);
    assert_eq!((steps[0].now, &steps[0].events), (Instant(5), &every_event()));
    assert_eq!(steps[0].actions.len(), 2);
    assert_eq!(steps[1], Step { now: Instant(6), events: vec![], actions: vec![] });
}

#[test]
fn a_tape_cut_anywhere_is_whole_to_there_or_malformed() {
    let bytes = Bytes::copy_from_slice(recorded().bytes());
    let first_step = Recorder::new(&config(), 42).bytes().len();
    let second_step = bytes.len() - 16;
    for len in 0..bytes.len() {
        let Ok(tape) = Tape::open(bytes.slice(..len)) else {
            assert!(len < first_step, "a tape of {len} bytes was not opened");
            continue;
        };
        let whole = tape.clone().take_while(Result::is_ok).count();
        assert_eq!(whole, usize::from(len >= second_step), "cut at {len}");
        let clean_end = len == first_step || len == second_step;
        assert_eq!(tape.last().is_none_or(|step| step.is_ok()), clean_end, "cut at {len}");
    }
}

#[test]
fn no_flipped_bit_panics_or_allocates_beyond_the_tape() {
    let bytes = recorded().bytes().to_vec();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xff;
        if let Ok(tape) = Tape::open(damaged.into()) {
            tape.for_each(drop);
        }
    }
}

#[test]
fn what_is_no_tape_is_said_to_be_none() {
    assert_eq!(Tape::open(Bytes::from_static(b"LAKE")).unwrap_err(), TapeError::NotATape);
    let mut newer = recorded().bytes().to_vec();
    newer[8] = 9;
    assert_eq!(Tape::open(newer.into()).unwrap_err(), TapeError::Version { found: 9 });
}

#[test]
fn the_engine_replays_its_own_tape_and_a_changed_one_diverges() {
    let run = |tamper: bool| {
        let mut engine = Engine::new(config(), 1).unwrap();
        let mut recorder = Recorder::new(&config(), 1);
        let mut actions = Vec::new();
        let start = Event::Start(Start::Run);
        engine.handle(Instant(0), [start.clone()], &mut actions);
        assert!(!actions.is_empty(), "a start asks for something");
        if tamper {
            actions.pop();
        }
        recorder.step(Instant(0), &[start], &actions);
        Tape::open(Bytes::copy_from_slice(recorder.bytes())).unwrap().replay()
    };
    assert_eq!(run(false), Ok(1));
    assert!(matches!(run(true), Err(TapeError::Diverged { step: 1, found: Some(_), .. })));
}

#[test]
fn a_digest_tells_steps_apart() {
    let digest = |now, events: &[Event]| {
        let mut digest = Digest::default();
        digest.step(now, events, &[]);
        digest.value()
    };
    let all = every_event();
    let base = digest(Instant(1), &all);
    assert_eq!(base, digest(Instant(1), &all));
    assert_ne!(base, digest(Instant(2), &all));
    for at in 0..all.len() {
        let mut fewer = all.clone();
        fewer.remove(at);
        assert_ne!(base, digest(Instant(1), &fewer));
    }
}
