//! Storage alone, on a disk that does at once what it is asked: what is written is found again,
//! whatever the order of rolls, cuts, snapshots and restarts.

mod alone;
mod captures;
mod catching_up;
mod clearing;
mod combined;
mod compacted;
mod copies;
mod crash;
mod cuts;
mod debts;
mod decisions;
mod failures;
mod forced;
mod heads;
mod holes;
mod in_flight;
mod joins;
mod leads_on;
mod looks;
mod lost;
mod plain;
mod reading;
mod refills;
mod replays;
mod restores;
mod rolling;
mod scrubs;
mod served;
mod slots;
mod strangers;
mod told;
mod unreadable;
mod verify;
mod walk;
mod writing;

use super::*;
use crate::{
    action::Machine,
    entry::{Batch, Kind, frames, seal_body},
    event::Completion,
    file::{DiskError, DiskRequest},
    membership::Member,
    types::{ClusterId, GroupId},
};
use std::collections::{BTreeMap, VecDeque};

const SECOND: u64 = 1_000_000_000;

/// Files as they are; every request is done when it is asked.
#[derive(Clone, Default)]
struct Disk {
    files: BTreeMap<File, Vec<u8>>,
    requests: Vec<DiskRequest>,
    is_full: bool,
    /// What fails, and is not done.
    fails: Option<fn(&DiskRequest) -> bool>,
    /// Which read from now on fails, counting from zero.
    read_fails: Option<usize>,
    /// A block that no read of this file may cover.
    unreadable: Option<(File, u64)>,
}

impl Disk {
    fn is_read_failing(&mut self) -> bool {
        let left = self.read_fails;
        self.read_fails = left.and_then(|left| left.checked_sub(1));
        left == Some(0)
    }

    fn perform(&mut self, request: DiskRequest) -> Result<Completion, DiskError> {
        self.requests.push(request.clone());
        if self.fails.is_some_and(|fails| fails(&request)) {
            return Err(DiskError::Io { errno: 5 });
        }
        match request {
            DiskRequest::List => Ok(Completion::Listed(
                self.files.iter().map(|(file, bytes)| (*file, bytes.len() as u64)).collect(),
            )),
            // What begins with nothing may find a little.
            DiskRequest::Create { len, .. } if self.is_full && len > 0 => Err(DiskError::Full),
            DiskRequest::Create { file, len, .. } => {
                self.files.insert(file, vec![0; len as usize]);
                Ok(Completion::Done)
            }
            DiskRequest::Read { .. } if self.is_read_failing() => Err(DiskError::Io { errno: 5 }),
            DiskRequest::Read { file, offset, len }
                if self.unreadable.is_some_and(|(bad, at)| {
                    bad == file && (offset..offset + u64::from(len)).contains(&at)
                }) =>
            {
                Err(DiskError::Io { errno: 5 })
            }
            DiskRequest::Read { file, offset, len } => {
                let bytes = self.files.get(&file).ok_or(DiskError::NotFound)?;
                let from = bytes.len().min(offset as usize);
                let to = bytes.len().min(offset as usize + len as usize);
                Ok(Completion::Read(Bytes::copy_from_slice(&bytes[from..to])))
            }
            DiskRequest::Write { file, at, and, .. } => {
                let bytes = self.files.get_mut(&file).ok_or(DiskError::NotFound)?;
                for extent in [Some(at), and].into_iter().flatten() {
                    let (offset, new) = (extent.offset, extent.whole());
                    let to = offset as usize + new.len();
                    if to > bytes.len() {
                        assert!(matches!(file, File::Part(..)), "{file} must not grow");
                        bytes.resize(to, 0);
                    }
                    bytes[offset as usize..to].copy_from_slice(&new);
                }
                Ok(Completion::Done)
            }
            DiskRequest::Rename { from, to } => {
                let bytes = self.files.remove(&from).ok_or(DiskError::NotFound)?;
                self.files.insert(to, bytes);
                Ok(Completion::Done)
            }
            DiskRequest::Remove { file } => {
                self.files.remove(&file).map(|_| Completion::Done).ok_or(DiskError::NotFound)
            }
            DiskRequest::Sync { .. } | DiskRequest::SyncDirectory => Ok(Completion::Done),
        }
    }
}

fn config() -> Config {
    let mut config = Config::new(GroupId(1), NodeId(1));
    config.disk_align = 512;
    config.segment_bytes = 32 << 10;
    config.tuning.append_bytes_max = 8 << 10;
    config
}

fn format() -> Start {
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    let members = Arc::new(Membership::of([member(1), member(2), member(3)]));
    Start::Format { cluster: ClusterId(5), members }
}

/// A storage, its disk, and what a machine was told.
struct Node {
    storage: Storage,
    disk: Disk,
    now: Instant,
    recovered: Option<Recovered>,
    restored: Vec<u8>,
    /// What the machine has taken in and not answered yet: so many pieces, at most, that it is behind.
    unanswered: VecDeque<u64>,
    behind: usize,
    captured: usize,
    /// How large its state is.
    state_bytes: usize,
    last: LogId,
    halted: Option<Halt>,
}

impl Node {
    fn start(disk: Disk, start: Start) -> Self {
        Self::start_as(&config(), disk, start)
    }

    fn start_as(config: &Config, disk: Disk, start: Start) -> Self {
        Self::start_behind(config, disk, start, 0)
    }

    fn start_behind(config: &Config, disk: Disk, start: Start, behind: usize) -> Self {
        let mut storage = Storage::new(config, 42);
        storage.on_start(start);
        let mut node = Self {
            storage,
            disk,
            now: Instant(SECOND),
            recovered: None,
            restored: Vec::new(),
            unanswered: VecDeque::new(),
            behind,
            captured: 0,
            state_bytes: 100_000,
            last: LogId::ZERO,
            halted: None,
        };
        node.settle();
        if let Some(recovered) = &node.recovered {
            node.last = recovered.last;
            node.storage.promise(recovered.term.max(Term(1)), recovered.vote);
            node.settle();
        }
        node
    }

    fn restart(self) -> Self {
        Self::start(self.disk, Start::Run)
    }

    fn recovered(&self) -> &Recovered {
        self.recovered.as_ref().unwrap_or_else(|| panic!("halted: {:?}", self.halted))
    }

    fn settle(&mut self) {
        loop {
            let mut out = Vec::new();
            self.recovered =
                self.storage.recover(self.now, &mut out).or_else(|| self.recovered.take());
            self.storage.persist(self.now, &mut out);
            self.storage.journal.holes.check();
            self.halted = self.storage.halt().or_else(|| self.halted.take());
            if out.is_empty() || self.halted.is_some() {
                return;
            }
            out.into_iter().for_each(|action| self.perform(action));
        }
    }

    /// What is asked of the disk now, and not done yet.
    fn ask(&mut self) -> Vec<Action> {
        let mut out = Vec::new();
        self.storage.persist(self.now, &mut out);
        out
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Disk { op, request, .. } => {
                let result = self.disk.perform(request);
                self.storage.on_completed(self.now, op, result);
            }
            Action::Machine(Machine::CaptureNext { capture, bytes_max }) => {
                let bytes = Bytes::from(vec![7; 30_000.min(bytes_max as usize)]);
                self.captured += bytes.len();
                let last = self.captured >= self.state_bytes;
                self.storage.on_captured(capture, Ok(Chunk { bytes, last }));
            }
            Action::Machine(Machine::Restore { offset, bytes, .. }) => {
                self.restored.truncate(offset as usize);
                self.restored.extend_from_slice(&bytes);
                self.unanswered.push_back(self.restored.len() as u64);
                self.answer(self.behind);
            }
            _ => {}
        }
    }

    /// The machine answers all but so many pieces.
    fn answer(&mut self, behind: usize) {
        while self.unanswered.len() > behind {
            let through = self.unanswered.pop_front().expect("there is one");
            self.storage.on_restored(through, Ok(()));
        }
    }

    fn append(&mut self, term: u64, bytes: usize) {
        let seed = self.recovered().seed;
        let id = LogId::new(Term(term), self.last.index.next());
        let (head, frame) = if bytes == 0 {
            seal_body(Kind::Empty, &[], seed, id, self.last.term, Timestamp(9))
        } else {
            Batch::one(&vec![id.index.0 as u8; bytes]).seal(seed, id, self.last.term, Timestamp(9))
        };
        self.storage.append(head, frame, 0);
        self.last = id;
    }

    fn append_all(&mut self, term: u64, sizes: impl IntoIterator<Item = usize>) {
        let (_, vote) = self.storage.promised();
        self.storage.promise(Term(term), vote.filter(|_| self.storage.promised().0.0 == term));
        self.settle();
        for (n, bytes) in sizes.into_iter().enumerate() {
            self.append(term, bytes);
            if n % 3 == 0 {
                self.settle();
            }
        }
        self.settle();
    }

    fn truncate(&mut self, last: LogId) {
        self.storage.truncate(last);
        self.last = last;
    }

    /// All entries from `from` on, as they are read back.
    fn read(&mut self, from: u64) -> Vec<(LogId, usize)> {
        let (mut seen, mut next) = (Vec::new(), LogIndex(from));
        while next <= self.storage.durable() {
            self.storage.read(Reader::Machine, next, LogIndex(u64::MAX), 10_000);
            self.settle();
            let (_, read) = self.storage.take_read().unwrap_or_else(|| panic!("{:?}", self.halted));
            assert_eq!(read.first, next);
            seen.extend(frames(&read.frames).map(|entry| (entry.id, entry.body.len())));
            next = read.last.next();
        }
        seen
    }
}

fn sizes() -> impl Iterator<Item = usize> {
    (0..300).map(|n| n * 37 % 1900)
}

#[test]
fn a_wiped_disk_is_refused_and_a_formatted_one_is_not_formatted_again() {
    assert_eq!(Node::start(Disk::default(), Start::Run).halted, Some(Halt::NotFormatted));
    let node = Node::start(Disk::default(), format());
    assert_eq!(node.recovered().last, LogId::ZERO);
    assert_ne!(node.recovered().identity.incarnation, 0);
    assert_eq!(Node::start(node.disk, format()).halted, Some(Halt::AlreadyFormatted));
}

#[test]
fn what_is_appended_is_found_after_every_restart() {
    let mut node = Node::start(Disk::default(), format());
    let mut expected = Vec::new();
    for term in 1..6 {
        node.append_all(term, sizes());
        assert_eq!(node.storage.durable(), node.last.index);
        expected.extend(sizes().enumerate().map(|(n, bytes)| {
            let index = LogIndex((term - 1) * 300 + n as u64 + 1);
            (LogId::new(Term(term), index), if bytes == 0 { 0 } else { bytes + 4 })
        }));
        node = node.restart();
        assert_eq!(node.recovered().last, LogId::new(Term(term), LogIndex(term * 300)));
        let terms: Vec<_> = (1..=term).map(|t| (LogIndex((t - 1) * 300 + 1), Term(t))).collect();
        assert_eq!(node.recovered().terms, terms);
        assert_eq!(node.recovered().last_time, Timestamp(9));
        assert_eq!(node.read(1), expected);
    }
    assert!(node.disk.files.len() > 20, "the log was rolled many times");
}

/// A node spoke as of an epoch that its disk did not hold yet: a crash took it back, and its next life was
/// given the same. What was said to the one was taken as said to the other.
#[test]
fn an_epoch_is_that_of_one_life_alone() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    let epoch = node.storage.write_epoch();
    node.truncate(LogId::new(Term(1), LogIndex(2)));
    let mut out = Vec::new();
    node.storage.persist(node.now, &mut out);
    assert!(!out.is_empty(), "the cut is to be marked");
    assert_eq!(node.storage.write_epoch(), epoch, "nothing of it is durable");
    assert_eq!(Node::start(node.disk.clone(), Start::Run).storage.write_epoch(), epoch + 1);
    out.into_iter().for_each(|action| node.perform(action));
    node.settle();
    assert_eq!(node.storage.write_epoch(), epoch + 1);
    assert_eq!(node.restart().storage.write_epoch(), epoch + 2);
}

/// Its entry was never written: another one has its index, and a snapshot holds that one.
#[test]
fn a_membership_of_another_entry_is_not_in_force_for_a_snapshot_that_lies_behind() {
    let mut node = Node::start(Disk::default(), format());
    let formatted = node.recovered().membership.clone();
    node.append_all(2, [40, 50, 60]);
    let member = Member { id: NodeId(1), incarnation: 0, address: Bytes::new() };
    let never = Membership { at: LogId::new(Term(1), LogIndex(2)), ..Membership::of([member]) };
    node.storage.set_membership(Arc::new(never), Arc::clone(&formatted));
    node.storage.hint_committed(node.last.index);
    assert!(node.storage.capture(node.last, Arc::clone(&formatted), Timestamp(9)));
    node.settle();
    let node = node.restart();
    assert_eq!(node.storage.restored(), Some(LogId::new(Term(2), LogIndex(3))));
    assert_eq!(node.recovered().membership.at, formatted.at);
}

/// A cut had taken all entries of the last segment, and the restart took that one's time for the
/// log's: none. The node led, and its entries were of an earlier time than those before them
/// (storm of three, seed 3024: its clients' sessions had been used before they were opened).
#[test]
fn the_time_of_the_last_entry_is_found_in_whichever_segment_it_is() {
    let mut without_entries = 0;
    for last in 1..100 {
        let mut node = Node::start(Disk::default(), format());
        node.append_all(1, (0..100).map(|n| 700 + n));
        node.truncate(LogId::new(Term(1), LogIndex(last)));
        node.settle();
        node = node.restart();
        assert_eq!(node.recovered().last.index, LogIndex(last));
        assert_eq!(node.recovered().last_time, Timestamp(9), "behind {last}");
        node.append_all(2, [700]);
        let begun = node.storage.journal.active.as_ref().map(|active| active.first);
        without_entries += u64::from(begun == Some(LogIndex(last + 1)));
    }
    assert!(without_entries > 0, "no cut ended where a segment begins");
}

/// A full segment held more terms than its end record has room for, so its slots were read; what
/// was proven durable lay in the segment behind it, and was looked for in this one. The node
/// refused to start, of a log in which nothing was wrong (found by the kill test, after 775 s of
/// elections had filled 64 MiB).
#[test]
fn a_segment_of_too_many_terms_ends_where_the_next_one_begins() {
    let mut node = Node::start(Disk::default(), format());
    for term in 1..=700 {
        node.append_all(term, [600]);
        if term % 50 == 0 {
            // Writes pause, and what is durable is said in the hard state.
            node.now = node.now.after(std::time::Duration::from_secs(1));
            node.settle();
            node = node.restart();
            assert_eq!(node.recovered().last, LogId::new(Term(term), LogIndex(term)));
        }
    }
    assert_eq!(node.read(1).len(), 700);
}

#[test]
fn a_vote_is_found_again() {
    let mut node = Node::start(Disk::default(), format());
    node.storage.promise(Term(7), Some(NodeId(3)));
    assert_eq!(node.storage.promised(), (Term(1), None), "not before both copies hold it");
    node.settle();
    assert_eq!(node.storage.promised(), (Term(7), Some(NodeId(3))));
    let node = node.restart();
    assert_eq!((node.recovered().term, node.recovered().vote), (Term(7), Some(NodeId(3))));
}

#[test]
fn snapshots_are_restored_and_the_log_below_them_goes() {
    let mut node = Node::start(Disk::default(), format());
    let members = node.recovered().membership.clone();
    for round in 1..=4u64 {
        node.append_all(round, sizes());
        node.storage.hint_committed(node.last.index);
        node.storage.retain(node.last.index, None);
        node.captured = 0;
        assert!(node.storage.capture(node.last, members.clone(), Timestamp(9)));
        node.settle();
        assert_eq!(node.storage.snapshot(), node.last);
        let captured = node.captured;
        node = node.restart();
        assert_eq!(node.recovered().snapshot, LogId::new(Term(round), LogIndex(round * 300)));
        assert_eq!(node.storage.restored(), Some(node.recovered().snapshot));
        assert!(node.restored.iter().all(|&byte| byte == 7));
        assert_eq!(node.restored.len(), captured);
        let first = node.recovered().first;
        assert!(first.0 <= (round - 1).max(1) * 300, "the log reaches the older snapshot");
        assert!(round < 3 || first.0 > (round - 2) * 300 - 100, "{first} in round {round}");
        assert_eq!(node.read(first.0).len() as u64, round * 300 + 1 - first.0);
    }
    let snapshots = node.disk.files.keys().filter(|f| matches!(f, File::Snapshot(_))).count();
    assert_eq!(snapshots, 2);
}

/// What one member's snapshot was too far ago for went for all: another one's was given up with it.
#[test]
fn a_pin_that_is_too_far_behind_leaves_what_the_limit_keeps() {
    let mut config = config();
    config.tuning.retain_log_bytes = 0;
    config.tuning.transfer_log_bytes_max = 24 * config.segment_bytes;
    let mut node = Node::start_as(&config, Disk::default(), format());
    let members = node.recovered().membership.clone();
    for round in 1..=4u64 {
        node.append_all(round, sizes());
        node.storage.hint_committed(node.last.index);
        node.storage.retain(node.last.index, Some(LogIndex(1)));
        node.captured = 0;
        assert!(node.storage.capture(node.last, members.clone(), Timestamp(9)));
        node.settle();
    }
    let first = node.storage.first();
    assert!(LogIndex(300) < first && first < LogIndex(750), "{first}");
}

#[test]
fn a_bad_newest_snapshot_yields_to_the_older_one() {
    let mut node = Node::start(Disk::default(), format());
    let members = node.recovered().membership.clone();
    for round in 1..=2u64 {
        node.append_all(round, sizes());
        node.captured = 0;
        assert!(node.storage.capture(node.last, members.clone(), Timestamp(9)));
        node.settle();
    }
    let newest = File::Snapshot(node.storage.snapshot());
    node.disk.files.get_mut(&newest).expect("it was just made")[50_000] ^= 1;
    node = node.restart();
    assert_eq!(node.storage.restored(), Some(LogId::new(Term(1), LogIndex(300))));
    assert!(node.restored.len() >= 100_000, "{} bytes", node.restored.len());
}

#[test]
fn a_full_disk_is_said_and_forgotten_when_there_is_room() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    node.disk.is_full = true;
    node.append_all(1, sizes());
    assert!(node.storage.is_full());
    assert!(node.storage.durable() < node.last.index);
    assert_eq!(node.halted, None);
    node.disk.is_full = false;
    while node.storage.is_full() {
        node.now = node.storage.deadline().expect("it is tried again");
        node.settle();
    }
    assert_eq!(node.storage.durable(), node.last.index);
    let node = node.restart();
    assert_eq!(node.recovered().last.index, LogIndex(600));
}

/// While a segment was opened a second spare was made, as long as that segment and so too short for
/// the next. It stayed: half of the disk was spares, and since there was a spare, a node without
/// room for the next segment never said so (found on a small file system).
#[test]
fn spares_fit_the_next_segment_and_are_no_more_than_one() {
    let mut growing = config();
    growing.segment_bytes = 4 << 20;
    let mut node = Node::start_as(&growing, Disk::default(), format());
    for _ in 0..10 {
        node.append_all(1, sizes());
        let len = |file: &File| node.disk.files[file].len();
        let (segments, spares) =
            (|f: &&File| matches!(f, File::Segment(_)), |f: &&File| matches!(f, File::Spare(_)));
        let longest = node.disk.files.keys().filter(segments).map(len).max();
        let spares: Vec<_> = node.disk.files.keys().filter(spares).map(len).collect();
        let [spare] = spares[..] else { panic!("{spares:?}") };
        assert_eq!(Some(spare), longest.map(|len| (2 * len).min(4 << 20)));
    }
    node.disk.is_full = true;
    while node.storage.durable() == node.last.index {
        node.append_all(1, [1500]);
    }
    assert!(node.storage.is_full());
}

fn spares(disk: &Disk) -> Vec<(File, usize)> {
    let spares = disk.files.iter().filter(|(file, _)| matches!(file, File::Spare(_)));
    spares.map(|(file, bytes)| (*file, bytes.len())).collect()
}

/// A restart removed its spare before the node could vote, which takes the system as long as all
/// else, and zeroed another one.
#[test]
fn a_restart_keeps_its_spare_and_the_next_roll_takes_it() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    let before = spares(&node.disk);
    assert_eq!(before.len(), 1);
    node.disk.requests.clear();
    node = node.restart();
    let made = |request: &DiskRequest| {
        matches!(request, DiskRequest::Create { .. } | DiskRequest::Remove { .. })
    };
    assert_eq!(node.disk.requests.iter().find(|request| made(request)), None);
    assert_eq!(spares(&node.disk), before);
    assert!(node.storage.marks().has(Mark::SpareKept));
    let last = node.last;
    let [(spare, _)] = before[..] else { unreachable!("there is one") };
    node.append_all(2, [6_000; 8]);
    let taken = |request: &DiskRequest| matches!(request, DiskRequest::Rename { from, .. } if *from == spare);
    assert!(node.disk.requests.iter().any(taken), "the log has gone on in it");
    assert!(!spares(&node.disk).contains(&before[0]), "its number is not given again");
    let end = node.last;
    node = node.restart();
    assert_eq!((node.recovered().last, end.index > last.index), (end, true));
}

/// What a crash left unfinished, a new node's hard state in the making, more than are ever needed.
#[test]
fn what_is_no_room_for_a_segment_goes_at_a_restart() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    let [(kept, len)] = spares(&node.disk)[..] else { panic!("there is one") };
    for (number, len) in [(0, len), (7, len - 512), (8, len + 512), (9, 0)] {
        node.disk.files.insert(File::Spare(number), vec![0; len]);
    }
    node = node.restart();
    assert_eq!(spares(&node.disk), [(kept, len)]);
    let config = config();
    let many = 2 + 2 * config.tuning.snapshot_log_bytes.div_ceil(config.segment_bytes);
    for number in 100..100 + many {
        node.disk.files.insert(File::Spare(number), vec![9; len]);
    }
    node = node.restart();
    let left = spares(&node.disk);
    assert_eq!(left.len() as u64, many - 1);
    assert_eq!(left.first().map(|spare| spare.0), Some(File::Spare(101)), "the newest are kept");
    // What is in them is nobody's.
    node.append_all(2, [6_000; 30]);
    let last = node.last;
    assert_eq!(node.restart().recovered().last, last);
}

/// A spare could not be made; then a segment that was not needed any more became one. The instant
/// at which it was to be tried again passed, stayed the deadline, and a driver would have spun on it
/// (found as a seed that never ended).
#[test]
fn a_recycled_segment_ends_the_wait_for_room() {
    let mut node = Node::start(Disk::default(), format());
    let members = node.recovered().membership.clone();
    let capture = |node: &mut Node, at| {
        node.storage.hint_committed(node.last.index);
        node.captured = 0;
        assert!(node.storage.capture(at, members.clone(), Timestamp(9)));
        node.settle();
    };
    for round in 1..=2 {
        node.append_all(round, sizes());
        let at = node.last;
        capture(&mut node, at);
    }
    node.disk.is_full = true;
    while node.storage.durable() == node.last.index {
        node.append_all(2, [1500]);
    }
    let at = LogId::new(Term(2), node.storage.durable());
    capture(&mut node, at);
    assert_eq!(node.storage.durable(), node.last.index, "a segment was recycled");
    assert!(!node.storage.is_full(), "another was, for the next time");
    for _ in 0..5 {
        let deadline = node.storage.deadline();
        assert!(deadline.is_none_or(|next| next > node.now), "it would spin");
        node.now = deadline.unwrap_or(node.now);
        node.settle();
    }
    // The node counted as one that had sought room in vain until it made a spare again, which one whose
    // segments are recycled may never do: it looked after everything in each turn (a walk).
    assert_eq!(node.storage.sought_room(), 0);
    node.storage.look_around();
    assert!(node.storage.is_plain());
}

/// A snapshot waited for the log, the log for room, and that for the snapshot's part to go.
#[test]
fn a_snapshot_that_waits_for_a_log_without_room_gives_its_own_back() {
    let mut node = Node::start(Disk::default(), format());
    let members = node.recovered().membership.clone();
    node.append_all(1, sizes());
    node.disk.is_full = true;
    node.append_all(1, sizes());
    assert!(node.storage.durable() < node.last.index);
    assert!(node.storage.capture(node.last, members.clone(), Timestamp(9)));
    node.settle();
    assert_eq!(node.storage.take_given_up(), Some(DiskError::Full));
    assert!(!node.disk.files.keys().any(|file| matches!(file, File::Part(..))));
    // One that the log has come up with goes on.
    let at = LogId::new(Term(1), node.storage.durable());
    assert!(node.storage.capture(at, members, Timestamp(9)));
    node.settle();
    assert_eq!((node.storage.take_given_up(), node.storage.snapshot()), (None, at));
}

/// One file of an earlier life was kept and the next one filled with zeros at once, which the one
/// compaction freed soon after then was no use for: a log under load wrote all of it twice.
#[test]
fn a_log_that_is_compacted_as_it_grows_needs_no_more_zeros() {
    let mut steady = config();
    steady.tuning.snapshot_log_bytes = 3 * steady.segment_bytes;
    let mut node = Node::start_as(&steady, Disk::default(), format());
    let members = node.recovered().membership.clone();
    let mut created = Vec::new();
    for _ in 0..12 {
        node.disk.requests.clear();
        // Four segments and a bit.
        (0..4).for_each(|_| node.append_all(1, [6_000; 5]));
        node.storage.hint_committed(node.last.index);
        node.storage.retain(node.last.index, None);
        node.captured = 0;
        assert!(node.storage.capture(node.last, members.clone(), Timestamp(9)));
        node.settle();
        let zeroed = |r: &&DiskRequest| matches!(r, DiskRequest::Create { zeroed: true, .. });
        created.push(node.disk.requests.iter().filter(zeroed).count());
    }
    assert!(created[0] >= 4, "{created:?}");
    assert!(created[4..].iter().all(|&files| files == 0), "{created:?}");
    let spares = node.disk.files.keys().filter(|file| matches!(file, File::Spare(_))).count();
    assert!(spares <= 1 + 2 * 3, "{spares} files wait for a log that may never come");
}

#[test]
fn one_bad_hard_state_block_is_repaired_and_four_are_refused() {
    let mut node = Node::start(Disk::default(), format());
    node.storage.promise(Term(7), Some(NodeId(3)));
    node.settle();
    for bad in 1u32..16 {
        let mut disk = node.disk.clone();
        let bytes = disk.files.get_mut(&File::HardState).expect("it was formatted");
        for (n, offset) in crate::disk::hard_state::OFFSETS.iter().flatten().enumerate() {
            if bad >> n & 1 == 1 {
                bytes[*offset as usize + 100] ^= 1;
            }
        }
        let restarted = Node::start(disk, Start::Run);
        if bad == 15 {
            let Some(Halt::Refused { row, .. }) = restarted.halted else { panic!("it started") };
            assert_eq!(row, "hard-state-lost");
        } else if restarted.recovered().term == Term(7) {
            assert_eq!(restarted.recovered().vote, Some(NodeId(3)));
        } else {
            assert!(bad.count_ones() > 1, "one bad block loses nothing: {bad:b}");
        }
    }
}

/// The last write's slot has a floor that does not prove it. Were the hint not written when writes
/// pause, a flipped bit in a log at rest would be taken for a torn tail, and acknowledged entries
/// cut.
#[test]
fn a_pause_proves_the_last_write() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    assert!(node.storage.promises().durable().durable_hint < node.last.index);
    node.now = node.storage.deadline().expect("the hint is written when writes pause");
    node.settle();
    assert_eq!(node.storage.promises().durable().durable_hint, node.last.index);
    assert_eq!(node.storage.deadline(), None, "and not again");
}

/// While writes go on, slots alone prove what was durable before them: an entry that is bad below
/// such a floor is damage, to be sent again, and not the end of a log whose tail is torn.
#[test]
fn a_slot_proves_what_was_durable_before_it() {
    let mut node = Node::start(Disk::default(), format());
    for bytes in [40, 50, 60] {
        node.append_all(1, [bytes]);
    }
    assert!(node.storage.promises().durable().durable_hint < LogIndex(2));
    let mut disk = node.disk;
    let segment = disk.files.iter_mut().find(|(file, _)| matches!(file, File::Segment(_)));
    let bytes = segment.expect("a log").1;
    let body = bytes.windows(50).position(|window| window == [2; 50]).expect("the second entry");
    bytes[body] ^= 1;
    let node = Node::start(disk, Start::Run);
    assert_eq!(node.recovered().last.index, LogIndex(3));
    assert_eq!(node.storage.hole().map(|hole| hole.index), Some(LogIndex(2)));
}

#[test]
fn every_bit_of_a_proven_entry_is_guarded() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    node.now = node.storage.deadline().expect("the hint is written when writes pause");
    node.settle();
    let disk = node.restart().disk;
    let segment = *disk.files.keys().find(|f| matches!(f, File::Segment(_))).expect("a log");
    let used: Vec<usize> = {
        let bytes = &disk.files[&segment];
        let data = bytes.windows(4).position(|w| w == b"LAKE").expect("entries");
        (512..552).chain(data..data + 60).collect()
    };
    for (place, bit) in used.into_iter().flat_map(|place| (0..8).map(move |bit| (place, bit))) {
        let mut disk = disk.clone();
        disk.files.get_mut(&segment).expect("it is there")[place] ^= 1 << bit;
        let node = Node::start(disk, Start::Run);
        match &node.halted {
            Some(Halt::Refused { row, .. }) => assert!(["damaged", "tail-unknown"].contains(row)),
            Some(other) => panic!("{other:?}"),
            None => assert_eq!(node.recovered().last.index, LogIndex(3), "byte {place}"),
        }
    }
}

/// Storms of one, seeds 1225 and 97: the log could not be read once, at a restart. Its last entries
/// were taken for torn and cut, though they had been acknowledged; and a term was forgotten whose
/// other copy was bad.
#[test]
fn a_read_that_fails_once_loses_nothing() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    assert!(node.storage.capture(node.last, node.recovered().membership.clone(), Timestamp(9)));
    node.append_all(7, [40, 50]);
    node.storage.promise(Term(7), Some(NodeId(3)));
    node.settle();
    let (disk, last) = (node.disk.clone(), node.last);
    let mut halts = 0;
    for failing in 0.. {
        let mut disk = disk.clone();
        disk.read_fails = Some(failing);
        let mut restarted = Node::start(disk, Start::Run);
        if restarted.disk.read_fails.is_some() {
            assert!(failing > 8 && halts > 3, "{halts} of {failing} reads matter");
            return;
        }
        if let Some(halt) = &restarted.halted {
            assert!(matches!(halt, Halt::DiskFailed { .. }), "{halt}");
            halts += 1;
            restarted = restarted.restart();
        }
        let found = restarted.recovered();
        assert_eq!((found.term, found.vote, found.last), (Term(7), Some(NodeId(3)), last));
        // A log from entry 1 does without its snapshot.
        let restored = restarted.storage.restored().expect("it is there");
        assert!([0, 300].contains(&restored.index.0), "{restored}");
        assert_eq!(
            restarted.read(restored.index.0 + 1).len() as u64,
            last.index.0 - restored.index.0
        );
    }
}
