//! One script of operations on every disk: the same results as the plain directory's, which does
//! one thing after the other.

use bytes::Bytes;
use lakebed::{
    Class, Completion, DiskError, DiskRequest, Event, Extent, File, LogId, LogIndex, OpId,
    SnapshotId, Term, files::Directory,
};
use lakebed_runtime::{
    Disk, DiskKind,
    disk::{self, UringDisk},
};
use std::{collections::BTreeMap, fs, future::poll_fn, os::unix, path::Path, task::Poll};
use tempfile::tempdir;

type Ending = Result<Completion, DiskError>;

const SEGMENT: File = File::Segment(1);
const SPARE: File = File::Spare(0);
const PART: File = File::Part(LogId::new(Term(2), LogIndex(9)), SnapshotId(5));
const SNAPSHOT: File = File::Snapshot(LogId::new(Term(2), LogIndex(9)));
const BLOCK: usize = 4096;

fn block(fill: u64) -> Bytes {
    Bytes::from(vec![fill as u8; BLOCK])
}

/// A block that no allocator aligns.
fn crooked(fill: u64) -> Bytes {
    Bytes::from(vec![fill as u8; BLOCK + 1]).slice(1..)
}

fn at(block: u64, bytes: Bytes) -> Extent {
    Extent::new(block * BLOCK as u64, bytes)
}

fn write(file: File, at: Extent, and: Option<Extent>, durable: bool) -> DiskRequest {
    DiskRequest::Write { file, at, and, durable }
}

fn read(file: File, offset: u64, len: u32) -> DiskRequest {
    DiskRequest::Read { file, offset, len }
}

fn create(file: File, blocks: u64, zeroed: bool) -> DiskRequest {
    DiskRequest::Create { file, len: blocks * BLOCK as u64, zeroed }
}

/// What is in one step may be done in any order; steps follow each other.
fn script() -> Vec<Vec<(Class, DiskRequest)>> {
    use Class::{Background, Commit, Serve};
    let many = |n: u64| {
        let and = Some(at(300 + n, crooked(n + 1)));
        (Commit, write(SEGMENT, at(n, block(n)), and, !n.is_multiple_of(3)))
    };
    vec![
        vec![(Serve, DiskRequest::List), (Commit, read(SEGMENT, 0, 10))],
        vec![(Background, create(SPARE, 600, true)), (Serve, create(PART, 0, false))],
        vec![(Commit, DiskRequest::List), (Commit, read(SPARE, 599 * 4096, 5000))],
        vec![(Commit, DiskRequest::Rename { from: SPARE, to: SEGMENT })],
        vec![(Commit, DiskRequest::SyncDirectory), (Serve, read(SPARE, 0, 1))],
        (0..250).map(many).collect(),
        vec![
            (Commit, DiskRequest::Sync { file: SEGMENT }),
            (Serve, read(SEGMENT, 0, 250 * 4096)),
            (Background, read(SEGMENT, 300 * 4096 - 7, 300 * 4096)),
        ],
        vec![(Commit, write(SEGMENT, at(3, block(77)), None, true))],
        vec![(Commit, read(SEGMENT, 3 * 4096, 4096))],
        // What goes around the page cache nowhere goes through it, and is read beside what went around it.
        vec![(Commit, write(SEGMENT, Extent::new(5, crooked(78).slice(..7)), None, true))],
        vec![(Commit, read(SEGMENT, 0, 2 * 4096))],
        // A file that grows.
        vec![(Background, write(PART, at(0, block(5)), None, false))],
        vec![(Background, write(PART, at(1, crooked(6)), None, false))],
        vec![(Background, DiskRequest::Sync { file: PART })],
        vec![(Serve, DiskRequest::Rename { from: PART, to: SNAPSHOT })],
        vec![(Serve, read(SNAPSHOT, 4000, 9999)), (Serve, DiskRequest::List)],
        // The same name, another file: what is open must not be taken for it.
        vec![(Commit, DiskRequest::Remove { file: SEGMENT })],
        vec![(Commit, write(SEGMENT, at(0, block(1)), None, true))],
        vec![(Commit, create(SEGMENT, 2, true))],
        vec![(Commit, read(SEGMENT, 0, 9000))],
        vec![(Commit, write(SEGMENT, at(1, block(8)), None, true)), (Serve, read(SNAPSHOT, 0, 3))],
        vec![(Commit, create(SPARE, 1, true)), (Commit, read(SEGMENT, 0, 9000))],
        vec![(Commit, DiskRequest::Rename { from: SPARE, to: SEGMENT })],
        vec![(Commit, write(SEGMENT, at(0, block(9)), None, true))],
        vec![(Commit, read(SEGMENT, 0, 9000)), (Serve, DiskRequest::List)],
        vec![(Serve, DiskRequest::Remove { file: PART })],
        vec![(Serve, DiskRequest::Rename { from: PART, to: SPARE })],
        vec![(Serve, DiskRequest::Sync { file: PART })],
    ]
}

/// Submits a step, and waits until each of its operations has ended, once.
async fn perform(
    disk: &mut impl Disk,
    step: Vec<(Class, DiskRequest)>,
    next: &mut u64,
) -> Vec<Ending> {
    let first = *next;
    for (class, request) in step {
        disk.submit(OpId(*next), class, request);
        *next += 1;
    }
    disk.flush();
    let mut endings = BTreeMap::new();
    let (mut events, count) = (Vec::new(), (*next - first) as usize);
    poll_fn(|cx| {
        disk.poll_completed(cx, &mut events);
        for event in events.drain(..) {
            let Event::Completed { op, result } = event else { panic!("{event:?}") };
            let again = endings.insert(op, result);
            assert!(again.is_none() && op.0 >= first, "{op} ended twice");
        }
        if endings.len() < count { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    assert!(disk.is_idle());
    endings.into_values().collect()
}

async fn run(disk: &mut impl Disk, script: Vec<Vec<(Class, DiskRequest)>>) -> Vec<Vec<Ending>> {
    let (mut endings, mut next) = (Vec::new(), 0);
    for step in script {
        endings.push(perform(disk, step, &mut next).await);
    }
    endings
}

fn expected() -> Vec<Vec<Ending>> {
    let temporary = tempdir().unwrap();
    let directory = Directory::open(temporary.path()).unwrap();
    let perform = |(_, request): &(Class, DiskRequest)| directory.perform(request);
    script().iter().map(|step| step.iter().map(perform).collect()).collect()
}

fn files(path: &Path) -> Box<dyn Disk + Send> {
    disk::open(DiskKind::Files, Directory::open(path).unwrap()).unwrap()
}

/// `None` where the kernel does not let us.
fn uring(path: &Path) -> Option<UringDisk> {
    let disk = UringDisk::new(Directory::open(path).unwrap());
    disk.inspect_err(|(_, error)| eprintln!("nothing to test, no io_uring here: {error}")).ok()
}

fn assert_same(found: &[Vec<Ending>], expected: &[Vec<Ending>]) {
    for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (op, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(found == expected, "step {step}, operation {op}: {found:?}, not {expected:?}");
        }
    }
    assert_eq!(found.len(), expected.len());
}

#[tokio::test]
async fn threads_do_what_the_directory_does() {
    let temporary = tempdir().unwrap();
    assert_same(&run(&mut files(temporary.path()), script()).await, &expected());
}

#[tokio::test]
async fn the_ring_does_what_the_directory_does() {
    let temporary = tempdir().unwrap();
    let Some(mut disk) = uring(temporary.path()) else { return };
    assert_same(&run(&mut disk, script()).await, &expected());
}

/// What is open belongs to a life of the disk; a new one finds the same bytes.
#[tokio::test]
async fn one_disk_reads_what_the_other_wrote() {
    let temporary = tempdir().unwrap();
    let writes = |fill| {
        let write = write(SEGMENT, at(1, crooked(fill)), Some(at(0, block(fill))), true);
        vec![vec![(Class::Commit, write)]]
    };
    let reads = || vec![vec![(Class::Serve, read(SEGMENT, 0, 8192))]];
    let content = |fill| vec![vec![Ok(Completion::Read(Bytes::from(vec![fill; 8192])))]];
    run(&mut files(temporary.path()), vec![vec![(Class::Commit, create(SEGMENT, 2, true))]]).await;
    for fill in [1, 3] {
        run(&mut files(temporary.path()), writes(fill)).await;
        let Some(mut disk) = uring(temporary.path()) else { return };
        assert_eq!(run(&mut disk, reads()).await, content(fill as u8));
        run(&mut disk, writes(fill + 1)).await;
        drop(disk);
        assert_eq!(run(&mut files(temporary.path()), reads()).await, content(fill as u8 + 1));
    }
}

/// More segments than are kept open, written and read at the same time.
async fn long_log(disk: &mut impl Disk) {
    let each = |request: fn(File) -> DiskRequest| -> Vec<_> {
        (0..150).map(|n| (Class::Commit, request(File::Segment(n)))).collect()
    };
    let script = vec![
        each(|file| create(file, 1, true)),
        each(|file| write(file, at(0, block(9)), None, true)),
        each(|file| read(file, 4095, 9)),
    ];
    let endings = run(disk, script).await;
    assert_eq!(endings[1], vec![Ok(Completion::Done); 150]);
    assert_eq!(endings[2], vec![Ok(Completion::Read(Bytes::from_static(&[9]))); 150]);
}

#[tokio::test]
async fn a_log_may_have_many_segments() {
    let (one, two) = (tempdir().unwrap(), tempdir().unwrap());
    long_log(&mut files(one.path())).await;
    let Some(mut disk) = uring(two.path()) else { return };
    long_log(&mut disk).await;
}

/// A process may have only so many open.
async fn opens_few(disk: &mut impl Disk, path: &Path) {
    long_log(disk).await;
    let open =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let count = open.filter(|file| file.starts_with(path)).count();
    // Two descriptors of each of 64, the directory's own and its lock's.
    assert!(count <= 2 * 64 + 4, "{count} are open");
}

#[tokio::test]
async fn of_a_long_log_few_files_are_open() {
    let (one, two) = (tempdir().unwrap(), tempdir().unwrap());
    opens_few(&mut files(one.path()), one.path()).await;
    let Some(mut disk) = uring(two.path()) else { return };
    opens_few(&mut disk, two.path()).await;
}

/// All at once it would hold up whatever else the device has to do. Whoever keeps a descriptor of the file, or
/// its lock, leaves it to the system, which does just that.
async fn gives_back(disk: &mut impl Disk, path: &Path) {
    const LARGE: u64 = 40 << 20;
    run(disk, vec![vec![(Class::Commit, create(SEGMENT, 1, true))]]).await;
    let large = fs::OpenOptions::new().write(true).open(path.join(SEGMENT.name())).unwrap();
    large.set_len(LARGE).unwrap();
    let script = vec![
        vec![(Class::Commit, write(SEGMENT, at(0, block(1)), None, true))],
        vec![(Class::Background, DiskRequest::Remove { file: SEGMENT })],
    ];
    assert_eq!(run(disk, script).await, [[Ok(Completion::Done)], [Ok(Completion::Done)]]);
    let left = large.metadata().unwrap().len();
    assert!(left <= 8 << 20, "{left} bytes are left to be given back at once");
}

#[tokio::test]
async fn the_room_of_a_file_that_was_written_is_given_back_piece_by_piece() {
    let (one, two) = (tempdir().unwrap(), tempdir().unwrap());
    gives_back(&mut files(one.path()), one.path()).await;
    let Some(mut disk) = uring(two.path()) else { return };
    gives_back(&mut disk, two.path()).await;
}

async fn without_room(disk: &mut impl Disk) {
    let write = |durable| write(SEGMENT, at(0, block(1)), None, durable);
    let step = vec![(Class::Commit, write(true)), (Class::Background, write(false))];
    assert_eq!(run(disk, vec![step]).await, [[Err(DiskError::Full), Err(DiskError::Full)]]);
}

#[tokio::test]
async fn a_write_that_finds_no_room_says_so() {
    let temporary = tempdir().unwrap();
    let full = || unix::fs::symlink("/dev/full", temporary.path().join(SEGMENT.name())).unwrap();
    let directory = Directory::open(temporary.path()).unwrap();
    full();
    without_room(&mut disk::open(DiskKind::Files, directory).unwrap()).await;
    fs::remove_file(temporary.path().join(SEGMENT.name())).unwrap();
    let Some(mut disk) = uring(temporary.path()) else { return };
    full();
    without_room(&mut disk).await;
}

fn abandon(mut disk: impl Disk, path: &Path) {
    for n in 0..200 {
        let write = write(SEGMENT, at(n, block(n)), None, true);
        disk.submit(OpId(n), Class::Commit, write);
    }
    disk.submit(OpId(200), Class::Background, create(SPARE, 500, true));
    disk.flush();
    assert!(!disk.is_idle());
    drop(disk);
    // Were an operation still under way, its descriptor would hold the lock of its file.
    drop(Directory::open(path).unwrap());
}

/// An old write that lands late destroys what a new engine wrote.
#[tokio::test]
async fn a_disk_that_is_dropped_leaves_nothing_under_way() {
    let temporary = tempdir().unwrap();
    let path = temporary.path();
    run(&mut files(path), vec![vec![(Class::Commit, create(SEGMENT, 200, true))]]).await;
    abandon(files(path), path);
    let Some(disk) = uring(path) else { return };
    abandon(disk, path);
}
