//! What the scripted cores ask for, case by case.

use super::script::{FULL, Plant, Step};
use crate::{
    Batch, CaptureId, ClusterId, Completion, DiskError, DiskRequest, Entries, Extent, File,
    GroupId, LogId, LogIndex, Machine, Runs, Term, Timestamp, entry::Seed,
};
use bytes::Bytes;
use std::{path::Path, time::Duration};

/// The names of all cases, in the order in which [`check`](super::check) runs them.
pub const CASES: [&str; 11] = [
    "deadlines",
    "disk content",
    "disk failures",
    "many operations in flight",
    "failures put in",
    "machine order",
    "messages",
    "losses put in",
    "a peer that restarts",
    "a former core's operations",
    "three engines, restarted",
];

/// Blocks of every size that `disk_align` may have are multiples of each other.
const BLOCK: u64 = 4096;
const MIB: u64 = 1 << 20;

/// The script of a case, for each life; `None`: the case is no script.
pub(super) fn script(case: &str, life: u32) -> Option<Vec<Step>> {
    Some(match case {
        "deadlines" => deadlines(),
        "disk content" => disk_content(),
        "disk failures" => disk_failures(),
        "many operations in flight" => many_in_flight(),
        "failures put in" => failures_put_in(),
        "machine order" => machine_order(),
        "a former core's operations" => former_core(life),
        _ => return None,
    })
}

fn done() -> Result<Completion, DiskError> {
    Ok(Completion::Done)
}

fn block(fill: u8) -> Bytes {
    vec![fill; BLOCK as usize].into()
}

fn create(file: File, len: u64) -> DiskRequest {
    DiskRequest::Create { file, len, zeroed: true }
}

fn write(file: File, offset: u64, fill: u8, durable: bool) -> DiskRequest {
    let at = Extent::new(offset, block(fill));
    DiskRequest::Write { file, at, and: None, durable }
}

fn read(file: File, offset: u64, len: u64) -> DiskRequest {
    DiskRequest::Read { file, offset, len: len as u32 }
}

fn found(blocks: &[u8]) -> Result<Completion, DiskError> {
    Ok(Completion::Read(blocks.iter().flat_map(|fill| block(*fill)).collect()))
}

/// Early ones after late ones, and one that passes while the disk is busy. Then something happens
/// for more than two seconds: by then the wall clock must have been told twice.
fn deadlines() -> Vec<Step> {
    let wait = |millis| Step::default().wait(Duration::from_millis(millis));
    let file = File::Spare(1);
    let look = |op| wait(1250).disk(op, read(file, 0, BLOCK), found(&[0]));
    vec![
        wait(30),
        wait(5),
        wait(0),
        wait(60).disk(1, create(file, 4 * MIB), done()),
        wait(1),
        look(3),
        look(4),
        Step::default().disk(2, DiskRequest::Remove { file }, done()),
    ]
}

fn disk_content() -> Vec<Step> {
    let (hard, spare, log) = (File::HardState, File::Spare(1), File::Segment(7));
    let both = DiskRequest::Write {
        file: spare,
        at: Extent::new(0, block(1)),
        and: Some(Extent::new(3 * BLOCK, block(4))),
        durable: true,
    };
    let few = Extent { zeros: BLOCK as u32 - 5, ..Extent::new(0, block(3).slice(..5)) };
    let mostly_zeros = few.whole();
    let short = DiskRequest::Write { file: part(), at: few, and: None, durable: true };
    let apart = DiskRequest::Write {
        file: part(),
        at: Extent::new(0, block(10)),
        and: Some(Extent::new(2 * BLOCK, block(11))),
        durable: false,
    };
    let snapshot = File::Snapshot(LogId::new(Term(1), LogIndex(9)));
    let listed = |files: &[(File, u64)]| Ok(Completion::Listed(files.to_vec()));
    vec![
        Step::default().planted(Plant::Foreign("of-somebody-else")).disk(
            1,
            DiskRequest::List,
            listed(&[]),
        ),
        Step::default().disk(2, create(spare, 4 * BLOCK), done()).disk(
            3,
            create(hard, BLOCK),
            done(),
        ),
        Step::default().disk(4, DiskRequest::SyncDirectory, done()),
        Step::default().disk(5, read(spare, 0, 4 * BLOCK), found(&[0, 0, 0, 0])),
        Step::default().disk(6, both, done()).disk(7, write(spare, BLOCK, 2, false), done()),
        Step::default().disk(8, read(spare, 0, 4 * BLOCK), found(&[1, 2, 0, 4])),
        Step::default().disk(9, DiskRequest::Sync { file: spare }, done()),
        Step::default().disk(10, DiskRequest::Rename { from: spare, to: log }, done()),
        Step::default().disk(11, DiskRequest::SyncDirectory, done()),
        Step::default().disk(12, read(log, 3 * BLOCK, 4 * BLOCK), found(&[4])).disk(
            13,
            read(log, 4 * BLOCK, BLOCK),
            found(&[]),
        ),
        Step::default().disk(14, DiskRequest::List, listed(&[(hard, BLOCK), (log, 4 * BLOCK)])),
        // The same names with other content: nobody may still hold the old files.
        Step::default().disk(15, create(spare, 2 * BLOCK), done()),
        Step::default().disk(16, write(spare, BLOCK, 9, true), done()),
        Step::default().disk(17, DiskRequest::Rename { from: spare, to: log }, done()),
        Step::default().disk(18, write(log, 0, 8, true), done()),
        Step::default().disk(19, read(log, 0, 4 * BLOCK), found(&[8, 9])),
        Step::default().disk(20, create(log, BLOCK), done()),
        Step::default().disk(21, read(log, 0, 4 * BLOCK), found(&[0])),
        // A snapshot in the making is created empty, and grows.
        Step::default().disk(22, create(part(), 0), done()),
        Step::default().disk(23, write(part(), 0, 5, false), done()),
        Step::default().disk(24, write(part(), BLOCK, 6, true), done()),
        Step::default().disk(27, read(part(), 0, 4 * BLOCK), found(&[5, 6])),
        // Zeros are written like bytes are: also over what was there.
        Step::default().disk(28, write(part(), 0, 7, true), done()),
        Step::default().disk(29, short, done()),
        Step::default().disk(30, read(part(), 0, BLOCK), Ok(Completion::Read(mostly_zeros))),
        Step::default().disk(25, DiskRequest::Remove { file: log }, done()),
        Step::default().disk(26, read(log, 0, BLOCK), Err(DiskError::NotFound)),
        // Both places of a write, whether it is durable or not.
        Step::default().disk(31, apart, done()),
        Step::default().disk(32, read(part(), 0, 4 * BLOCK), found(&[10, 6, 11])),
        // Once it is whole a snapshot has its name, is listed, and is there.
        Step::default().disk(33, DiskRequest::Sync { file: part() }, done()),
        Step::default().disk(34, DiskRequest::List, listed(&[(hard, BLOCK), (part(), 3 * BLOCK)])),
        Step::default().disk(35, DiskRequest::Rename { from: part(), to: snapshot }, done()),
        Step::default().disk(36, DiskRequest::SyncDirectory, done()),
        Step::default().disk(
            37,
            DiskRequest::List,
            listed(&[(hard, BLOCK), (snapshot, 3 * BLOCK)]),
        ),
        Step::default().disk(38, read(snapshot, 0, 4 * BLOCK), found(&[10, 6, 11])),
    ]
}

const fn part() -> File {
    File::Part(LogId::new(Term(1), LogIndex(9)), crate::SnapshotId(3))
}

/// Each on a file that is not there, or on a device that has no room; the driver goes on afterwards.
fn disk_failures() -> Vec<Step> {
    let missing = File::Segment(404);
    let not_found = || Err(DiskError::NotFound);
    let rename = DiskRequest::Rename { from: missing, to: File::Segment(405) };
    let mut steps = vec![
        Step::default().disk(1, read(missing, 0, BLOCK), not_found()),
        Step::default().disk(2, write(missing, 0, 1, true), not_found()),
        Step::default().disk(3, DiskRequest::Sync { file: missing }, not_found()),
        Step::default().disk(4, rename, not_found()),
        Step::default().disk(5, DiskRequest::Remove { file: missing }, not_found()),
        Step::default().disk(6, create(missing, BLOCK), done()).disk(
            7,
            read(File::Segment(406), 0, BLOCK),
            not_found(),
        ),
        Step::default().disk(8, read(missing, 0, BLOCK), found(&[0])),
    ];
    // Not every Unix has one.
    if Path::new(FULL).exists() {
        let full = File::Spare(9);
        steps.extend([
            // First: of a file that it never touched nobody knows that there is nothing to sync.
            Step::default().planted(Plant::Full(full)).fails(9, DiskRequest::Sync { file: full }),
            Step::default().fails(10, write(full, 0, 1, true)),
            Step::default().disk(11, read(missing, 0, BLOCK), found(&[0])),
            // Another file of that name has nothing to do with it.
            Step::default().disk(20, DiskRequest::Remove { file: full }, done()),
            Step::default().disk(21, create(full, BLOCK), done()),
            Step::default().disk(22, write(full, 0, 1, true), done()),
            Step::default().disk(23, read(full, 0, BLOCK), found(&[1])),
        ]);
    }
    // Elsewhere it may be synced.
    if cfg!(target_os = "linux") {
        let nowhere = File::Spare(8);
        let both = DiskRequest::Write {
            file: nowhere,
            at: Extent::new(0, block(1)),
            and: Some(Extent::new(BLOCK, block(2))),
            durable: true,
        };
        steps.extend([
            // What is written finds no fault: only whoever syncs it learns that it is not durable.
            Step::default()
                .planted(Plant::Unsynced(nowhere))
                .disk(12, write(nowhere, 0, 1, false), done())
                .fails(13, write(nowhere, 0, 1, true))
                .fails(14, both),
            Step::default().fails(15, DiskRequest::Sync { file: nowhere }),
            Step::default().disk(16, write(missing, 0, 3, true), done()),
            Step::default().disk(17, read(missing, 0, BLOCK), found(&[3])),
            Step::default().disk(24, DiskRequest::Remove { file: nowhere }, done()),
            Step::default().disk(25, create(nowhere, BLOCK), done()),
            Step::default().disk(26, write(nowhere, 0, 1, true), done()),
            Step::default().disk(27, read(nowhere, 0, BLOCK), found(&[1])),
        ]);
    }
    // Of two places one that no file has: whichever comes last, the write has failed.
    let beyond = Extent::new((1 << 63) - BLOCK, block(4));
    for (op, durable) in [(30, false), (33, true)] {
        let both = |at: &Extent, and: &Extent| {
            let (at, and) = (at.clone(), Some(and.clone()));
            DiskRequest::Write { file: missing, at, and, durable }
        };
        let within = Extent::new(0, block(4));
        steps.extend([
            Step::default().fails(op, both(&beyond, &within)),
            Step::default().fails(op + 1, both(&within, &beyond)),
            Step::default().disk(op + 2, write(missing, 0, 5, durable), done()),
        ]);
    }
    steps
}

const BLOCKS: u64 = 64;

/// A slow creation, and beside it more writes than any queue has room for.
fn many_in_flight() -> Vec<Step> {
    let (log, slow) = (File::Segment(1), File::Spare(2));
    let filled: Vec<u8> = (1..=BLOCKS as u8).collect();
    let mut writes = Step::default().disk(2, create(slow, 16 * MIB), done());
    for (n, fill) in (0..).zip(&filled) {
        writes = writes.disk(10 + n, write(log, n * BLOCK, *fill, n % 2 == 0), done());
    }
    let mut reads = Step::default().disk(3, DiskRequest::Sync { file: log }, done());
    for (n, fill) in (0..).zip(&filled) {
        reads = reads.disk(100 + n, read(log, n * BLOCK, BLOCK), found(&[*fill]));
    }
    vec![
        Step::default().disk(1, create(log, BLOCKS * BLOCK), done()),
        writes,
        reads.disk(4, read(slow, 16 * MIB - BLOCK, MIB), found(&[0])),
    ]
}

/// The operations that a [`FaultyDisk`](super::FaultyDisk) fails in this case.
pub(super) const DOOMED: [(u64, DiskError); 9] = [
    (10, DiskError::Io { errno: 5 }),
    (11, DiskError::Full),
    (12, DiskError::Io { errno: 5 }),
    (13, DiskError::Full),
    (14, DiskError::Io { errno: 5 }),
    (15, DiskError::Io { errno: 5 }),
    (16, DiskError::Io { errno: 5 }),
    (17, DiskError::Io { errno: 5 }),
    (18, DiskError::Io { errno: 5 }),
];

/// Without a `FaultyDisk` they simply succeed, and nothing is checked.
fn failures_put_in() -> Vec<Step> {
    let log = File::Segment(1);
    vec![
        Step::default().disk(1, create(log, 4 * BLOCK), done()),
        Step::default()
            .either(10, write(log, 0, 1, true))
            .disk(2, write(log, BLOCK, 2, true), done())
            .either(11, write(log, 2 * BLOCK, 3, false)),
        Step::default().either(12, DiskRequest::Sync { file: log }),
        Step::default().either(13, create(File::Spare(1), BLOCK)),
        // A read that fails is not the end of the file, and a name that is not changed is not.
        Step::default().either(14, read(log, BLOCK, BLOCK)),
        Step::default().either(15, DiskRequest::SyncDirectory),
        Step::default().either(16, DiskRequest::Rename { from: log, to: File::Segment(2) }),
        Step::default().either(17, DiskRequest::Remove { file: File::Segment(2) }),
        Step::default().either(18, DiskRequest::List),
        Step::default().disk(19, create(File::Segment(3), 4 * BLOCK), done()),
        Step::default().disk(20, write(File::Segment(3), BLOCK, 2, true), done()),
        Step::default().disk(3, read(File::Segment(3), BLOCK, BLOCK), found(&[2])),
    ]
}

fn entry(index: u64, commands: &[&[u8]]) -> Machine {
    let mut batch = Batch::default();
    commands.iter().for_each(|command| batch.push(command));
    let seed = Seed::new(ClusterId(1), GroupId(1));
    let at = LogId::new(Term(1), LogIndex(index));
    let (_, frames) = batch.seal(seed, at, Term(1), Timestamp(index));
    Machine::Apply(Entries { first: at.index, last: at.index, frames, runs: Runs::None })
}

/// The state of a [`Witness`](super::Witness) after these commands.
fn state(commands: &[&[u8]]) -> Vec<u8> {
    let mut state = Vec::new();
    commands.iter().for_each(|command| super::witness::record(&mut state, command));
    state
}

/// A view stays what it was while the machine goes on; a stopped one is forgotten; a state is
/// replaced piece by piece, also where another was begun or refused before, and by none at all.
fn machine_order() -> Vec<Step> {
    let capture =
        |id| Machine::Capture { capture: CaptureId(id), at: LogId::new(Term(1), LogIndex(id)) };
    let restored = state(&[b"from", b"elsewhere"]);
    let at = LogId::new(Term(2), LogIndex(50));
    let restore = |from: usize, to: usize| Machine::Restore {
        at,
        offset: from as u64,
        bytes: Bytes::copy_from_slice(&restored[from..to]),
        last: to == restored.len(),
    };
    vec![
        Step::default().machine(entry(1, &[b"one", b"two"])).machine(entry(2, &[b"three"])),
        Step::default().machine(capture(2)).machine(entry(3, &[b"four"])),
        Step::default().captured(CaptureId(2), state(&[b"one", b"two", b"three"])),
        Step::default()
            .machine(capture(3))
            .machine(Machine::CaptureStop { capture: CaptureId(3) })
            .machine(entry(4, &[b"", b"five"]))
            .machine(capture(4)),
        Step::default()
            .captured(CaptureId(4), state(&[b"one", b"two", b"three", b"four", b"", b"five"])),
        Step::default().machine(restore(0, 5)),
        Step::default().refused(restore(6, 9)),
        Step::default().machine(restore(0, 7)).machine(restore(0, 6)),
        Step::default().machine(restore(6, restored.len())),
        Step::default().machine(entry(51, &[b"six"])).machine(capture(51)),
        Step::default().captured(CaptureId(51), state(&[b"from", b"elsewhere", b"six"])),
        Step::default().machine(restore(0, 7)).machine(Machine::EMPTY),
        Step::default().machine(entry(1, &[b"anew"])).machine(capture(1)),
        Step::default().captured(CaptureId(1), state(&[b"anew"])),
    ]
}

/// The first core halts with operations in flight; the second finds a directory at rest.
fn former_core(life: u32) -> Vec<Step> {
    let (slow, log) = (File::Spare(1), File::Segment(1));
    if life == 1 {
        let left_behind = Step::default()
            .unseen(2, create(slow, 32 * MIB))
            .unseen(3, write(log, 0, 1, true))
            .unseen(4, write(log, BLOCK, 1, true));
        return vec![Step::default().disk(1, create(log, 2 * BLOCK), done()), left_behind];
    }
    // Had the creation gone on, it would find its file gone, or bring it back.
    vec![
        Step::default().following_a_core().disk(101, write(log, 0, 2, true), done()).disk(
            102,
            create(slow, BLOCK),
            done(),
        ),
        Step::default().wait(Duration::from_millis(100)),
        Step::default().following_a_core().disk(103, read(log, 0, BLOCK), found(&[2])).disk(
            104,
            read(slow, 0, 2 * BLOCK),
            found(&[0]),
        ),
    ]
}
