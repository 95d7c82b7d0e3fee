//! Durable appends as the engine writes them, an entry and a slot block in one operation, beside
//! a bare loop of `pwrite` and `fdatasync` over the same bytes.
//!
//! `cargo bench -p lakebed-runtime --bench append [-- DIR]`. Each line takes its turns in the same
//! seconds as the others: the disk is not the same from hour to hour.

use bytes::Bytes;
use lakebed::{Class, Completion, DiskRequest, Event, Extent, File, OpId, files::Directory};
use lakebed_runtime::{Disk, DiskKind, disk};
use std::{
    future::poll_fn,
    os::unix::fs::FileExt,
    path::Path,
    task::Poll,
    time::{Duration, Instant},
};

const SEGMENT: File = File::Segment(1);
const SEGMENT_BYTES: u64 = 64 << 20;
/// Where entries begin; before them are slot blocks.
const DATA: u64 = 2 << 20;
const BLOCK: u64 = 4096;
const TURN: Duration = Duration::from_millis(100);
const TURNS: usize = 15;

/// The n-th append of so many bytes: round and round in one segment, blocks of their own.
fn append(n: u64, bytes: &Bytes) -> (Extent, Extent) {
    let room = (SEGMENT_BYTES - DATA) / bytes.len() as u64;
    let at = Extent::new(DATA + n % room * bytes.len() as u64, bytes.clone());
    let slot = Bytes::from_static(&[1; BLOCK as usize]);
    (at, Extent::new(n % (DATA / BLOCK) * BLOCK, slot))
}

async fn perform(disk: &mut impl Disk, request: DiskRequest) {
    disk.submit(OpId(u64::MAX), Class::Commit, request);
    disk.flush();
    let ended = ended(disk).await;
    assert_eq!(ended, [Event::Completed { op: OpId(u64::MAX), result: Ok(Completion::Done) }]);
}

async fn ended(disk: &mut impl Disk) -> Vec<Event> {
    let mut events = Vec::new();
    poll_fn(|cx| {
        disk.poll_completed(cx, &mut events);
        if events.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    events
}

/// Appends for a turn with so many in flight; how many.
async fn turn(disk: &mut impl Disk, bytes: &Bytes, depth: u64) -> u64 {
    let until = Instant::now() + TURN;
    let (mut begun, mut done) = (0, 0);
    while done < begun || Instant::now() < until {
        while begun < done + depth && Instant::now() < until {
            let (at, slot) = append(begun, bytes);
            let write = DiskRequest::Write { file: SEGMENT, at, and: Some(slot), durable: true };
            disk.submit(OpId(begun), Class::Commit, write);
            begun += 1;
        }
        disk.flush();
        if done < begun {
            for event in ended(disk).await {
                assert!(matches!(event, Event::Completed { result: Ok(_), .. }), "{event:?}");
                done += 1;
            }
        }
    }
    done
}

fn bare_turn(file: &std::fs::File, bytes: &Bytes) -> u64 {
    let until = Instant::now() + TURN;
    let mut done = 0;
    while Instant::now() < until {
        let (at, slot) = append(done, bytes);
        file.write_all_at(&at.whole(), at.offset).expect("a write");
        file.write_all_at(&slot.bytes, slot.offset).expect("a write");
        rustix::fs::fdatasync(file).expect("a sync");
        done += 1;
    }
    done
}

struct Measured {
    name: &'static str,
    appends: Vec<u64>,
}

async fn measure(root: &Path, bytes: &Bytes, depth: u64) -> Vec<Measured> {
    let mut disks = Vec::new();
    for (name, kind) in [("files", DiskKind::Files), ("uring", DiskKind::Uring)] {
        let directory = Directory::open(root.join(name)).expect("a directory");
        let Ok(mut disk) = disk::open(kind, directory) else { continue };
        let len = SEGMENT_BYTES;
        perform(&mut disk, DiskRequest::Create { file: SEGMENT, len, zeroed: true }).await;
        disks.push((disk, Measured { name, appends: Vec::new() }));
    }
    let directory = Directory::open(root.join("bare")).expect("a directory");
    let create = DiskRequest::Create { file: SEGMENT, len: SEGMENT_BYTES, zeroed: true };
    directory.perform(&create).expect("a segment");
    let options = std::fs::OpenOptions::new().write(true).clone();
    let file = directory.open_beside(SEGMENT, &options).expect("a segment");
    let mut bare = Measured { name: "bare", appends: Vec::new() };
    for _ in 0..TURNS {
        bare.appends.push(bare_turn(&file, bytes));
        for (disk, measured) in &mut disks {
            measured.appends.push(turn(disk, bytes, depth).await);
        }
    }
    [bare].into_iter().chain(disks.into_iter().map(|(_, measured)| measured)).collect()
}

fn median(turns: &[u64]) -> f64 {
    let mut turns = turns.to_vec();
    turns.sort_unstable();
    turns[turns.len() / 2] as f64 / TURN.as_secs_f64()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dir = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let root = dir.map_or_else(std::env::temp_dir, Into::into);
    let root = tempfile::tempdir_in(root).expect("a place to write to");
    println!("{:>8} {:>6}  {:>6} {:>10} {:>6}", "bytes", "depth", "disk", "appends/s", "ratio");
    for kib in [4, 64] {
        let bytes = Bytes::from(vec![7; kib << 10]);
        for depth in [1, 8, 32] {
            let measured = measure(root.path(), &bytes, depth).await;
            let bare = median(&measured[0].appends);
            for Measured { name, appends } in measured {
                let rate = median(&appends);
                let ratio = rate / bare;
                println!("{:>8} {depth:>6}  {name:>6} {rate:>10.0} {ratio:>6.2}", kib << 10);
            }
        }
    }
}
