//! Plain turns beside full ones, in the situations that are rare: a change of members, a snapshot on
//! its way, a log that is cut, a disk without room.
//!
//! Disks, machines and wires take their time here, in any order. Invariant: each turn does what the
//! same engine does which was told, just before, something that ends plain turns and changes nothing.

use super::world::{Disk, MS, Node, World, format};
use bytes::Bytes;
use lakebed::{
    Action, Batch, Change, ClusterId, Config, Control, DiskError, DiskRequest, Event, File,
    Instant, Machine, Mark, Marks, Member, NodeId, Note, OpId, ReadMode, RequestId, Requests,
    Start, Timestamp,
};
use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

const VOTERS: u64 = 3;
/// The others wait to be added.
const NODES: u64 = 7;
const STEPS: u64 = 15_000;

/// What goes on beside ordinary traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Situation {
    Nothing,
    Forwards,
    Reads,
    Snapshots,
    Handovers,
    Changes,
    Pins,
    Rest,
    Links,
    /// One after the other is cut off, and goes on alone for a while.
    Splits,
    /// One is away so long that it needs a snapshot.
    Absences,
    /// Entries on disk turn bad.
    Damage,
    /// A disk has no room.
    Shortage,
    Stops,
    /// Who stops finds his disk the worse.
    Losses,
    Tunings,
    /// Disks and machines do nothing for a while.
    Stalls,
    /// One after the other.
    Everything,
}

use Situation::*;

const ALL: [Situation; 18] = [
    Nothing, Forwards, Reads, Snapshots, Handovers, Changes, Pins, Rest, Links, Splits, Absences,
    Damage, Shortage, Stops, Losses, Tunings, Stalls, Everything,
];

/// Marsaglia's xorshift; a test needs no better one.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

struct Slow {
    world: World,
    /// What each disk was asked for and has not done, and each machine.
    disks: Vec<Vec<(OpId, DiskRequest)>>,
    machines: Vec<VecDeque<Machine>>,
    /// Whose disk has no room.
    full: Option<u64>,
    /// Whose disk and whose machine do nothing for a while.
    stuck: [BTreeSet<u64>; 2],
    dice: Dice,
    /// What those met who are gone.
    met: Marks,
    asked: u64,
    pinned: Vec<(u64, File)>,
}

fn tune(config: &mut Config, situation: Situation) {
    config.segment_bytes = 64 << 10;
    let tuning = &mut config.tuning;
    tuning.heartbeat = Duration::from_millis(20);
    tuning.election = (Duration::from_millis(100), Duration::from_millis(200));
    tuning.append_bytes_max = 4 << 10;
    tuning.inflight_bytes_max = 16 << 10;
    tuning.writes_inflight_max = 3;
    tuning.cache_bytes_max = 32 << 10;
    tuning.catch_up_bytes_max = 8 << 10;
    tuning.snapshot_log_bytes = 96 << 10;
    tuning.retain_log_bytes = 64 << 10;
    match situation {
        Rest => tuning.hibernate_after = Duration::from_millis(40),
        Damage => tuning.scrub_interval = Duration::from_millis(2000),
        Reads => tuning.lease_drift_ppm = Some(100),
        Absences => tuning.transfer_bytes_per_second = 256 << 10,
        Pins => tuning.pin_idle = Duration::from_millis(30),
        _ => {}
    }
}

/// What such a situation does not go without.
const fn rare(situation: Situation) -> &'static [Mark] {
    match situation {
        Nothing | Links | Snapshots => &[Mark::SegmentRecycled],
        Forwards => &[Mark::ForwardPlaced],
        Reads => &[Mark::LeaseRead, Mark::ReadsShared],
        Handovers => &[Mark::HandedOver, Mark::ForwardPlaced],
        Changes => &[Mark::JointLeft, Mark::FormerMemberTold, Mark::WriteWaitedForMembership],
        Pins => &[Mark::PinExpired],
        Rest => &[Mark::Hibernated, Mark::HibernationEndedByLink],
        Splits => &[Mark::ConflictTruncated, Mark::CutInsideBlock],
        Absences => &[Mark::Installed, Mark::AppendWaited],
        Damage => &[Mark::ScrubFoundBadEntry, Mark::HoleFilled],
        Shortage => &[Mark::SpareHadNoRoom, Mark::RoomCameBack, Mark::SnapshotGivenUp],
        Stops => &[Mark::SnapshotRestored, Mark::HandedOver],
        Losses => &[Mark::SnapshotLost, Mark::HolesFound],
        Tunings => &[Mark::Hibernated, Mark::LogScrubbed],
        Stalls => &[Mark::ForwardPlaced],
        Everything => {
            &[Mark::Installed, Mark::HoleFilled, Mark::JointLeft, Mark::ConflictTruncated]
        }
    }
}

fn marks(node: &Node) -> Marks {
    node.engine.status().marks
}

fn first_start(id: u64) -> Start {
    if id <= VOTERS { format(VOTERS) } else { Start::Join { cluster: ClusterId(77) } }
}

impl Slow {
    fn new(situation: Situation, seed: u64) -> Self {
        let none = |_| Default::default();
        let mut slow = Self {
            world: World::idle(NODES, |config| tune(config, situation)),
            disks: (0..NODES).map(none).collect(),
            machines: (0..NODES).map(|_| VecDeque::new()).collect(),
            full: None,
            stuck: Default::default(),
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            met: Marks::NONE,
            asked: 1000,
            pinned: Vec::new(),
        };
        for id in 1..=NODES {
            slow.turn(id, Event::Start(first_start(id)));
        }
        slow
    }

    /// Hands an event over, to a twin as well which takes no turn for plain, and keeps what is to be done.
    fn turn(&mut self, id: u64, event: impl Into<Option<Event>>) {
        let (now, node) = (self.world.now, self.world.node(id));
        if !node.running {
            return;
        }
        let event = event.into();
        let file = File::Spare(u64::MAX);
        let odd = Event::Control { id: RequestId(0), control: Control::Unpin { file } };
        let (mut twin, mut expected, mut actions) = (node.engine.clone(), Vec::new(), Vec::new());
        twin.handle(now, [odd].into_iter().chain(event.clone()), &mut expected);
        assert!(matches!(expected.remove(0), Action::Respond { .. }), "it is refused at once");
        node.engine.handle(now, event.clone(), &mut actions);
        assert_eq!(actions, expected, "{id} at {event:?}");
        assert_eq!(node.engine.deadline(), twin.deadline(), "{id} after {event:?}");
        assert_eq!(node.engine.probe(), twin.probe(), "{id} after {event:?}");
        assert_eq!(node.engine.status(), twin.status(), "{id} after {event:?}");
        actions.into_iter().for_each(|action| self.keep(id, action));
    }

    fn keep(&mut self, id: u64, action: Action) {
        let place = id as usize - 1;
        match action {
            Action::Disk { op, request, .. } => self.disks[place].push((op, request)),
            Action::Send { to, head, body } => {
                self.world.wire.push_back((id, to.0, [head, body].concat().into()));
            }
            Action::Machine(step) => self.machines[place].push_back(step),
            Action::Respond { outcome: lakebed::Outcome::Pinned(file, _), .. } => {
                self.pinned.push((id, file));
            }
            Action::Note(Note::PeerFault { peer, reason }) => panic!("{id} of {peer}: {reason}"),
            Action::Respond { .. } | Action::Note(_) | Action::Members(_) => {}
            Action::Halt(halt) => {
                let node = self.world.node(id);
                (node.halted, node.running) = (Some(*halt), false);
            }
        }
    }

    fn anybody(&mut self) -> u64 {
        1 + self.dice.below(NODES)
    }

    fn leader(&self) -> u64 {
        self.world.leader().unwrap_or(1)
    }

    /// One of those who do not lead.
    fn follower(&mut self) -> u64 {
        let leader = self.leader();
        1 + (leader + self.dice.below(VOTERS - 1)) % VOTERS
    }

    fn complete(&mut self, id: u64) -> bool {
        let disk = &mut self.disks[id as usize - 1];
        if disk.is_empty() || self.stuck[0].contains(&id) {
            return false;
        }
        let (op, request) = disk.remove(self.dice.below(disk.len() as u64) as usize);
        // The first file of all is the hard state's: without it there is no node.
        let is_create =
            matches!(request, DiskRequest::Create { file, .. } if file != File::Spare(0));
        let result = match self.full {
            Some(full) if full == id && is_create => Err(DiskError::Full),
            _ => self.world.node(id).disk.perform(request),
        };
        self.turn(id, Event::Completed { op, result });
        true
    }

    fn compute(&mut self, id: u64) -> bool {
        if self.stuck[1].contains(&id) {
            return false;
        }
        let Some(step) = self.machines[id as usize - 1].pop_front() else { return false };
        if let Some(event) = self.world.node(id).step(step) {
            self.turn(id, event);
        }
        true
    }

    fn deliver(&mut self) -> bool {
        let wire = &mut self.world.wire;
        if wire.is_empty() {
            return false;
        }
        let (from, to, _) = wire[self.dice.below(wire.len() as u64) as usize];
        let first = wire.iter().position(|message| (message.0, message.1) == (from, to));
        let (_, _, bytes) = wire.remove(first.expect("it was seen")).expect("it was found");
        let isolated = self.world.isolated;
        if isolated != Some(from) && isolated != Some(to) {
            self.turn(to, Event::Received { from: NodeId(from), bytes });
        }
        true
    }

    /// Goes on to the next deadline, or by so much.
    fn wait(&mut self, most: Option<u64>) {
        let running = self.world.nodes.iter().filter(|node| node.running);
        let next = running.filter_map(|node| node.engine.deadline()).min();
        let later = Instant(self.world.now.0 + most.unwrap_or(5 * MS));
        self.world.now = match (next, most) {
            (Some(next), None) => next.max(self.world.now),
            (_, _) => later,
        };
        for id in 1..=NODES {
            if self.world.at(id).engine.deadline().is_some_and(|due| due <= self.world.now) {
                self.turn(id, None);
            }
        }
    }

    fn ask(&mut self, id: u64, control: Control) {
        self.asked += 1;
        self.turn(id, Event::Control { id: RequestId(self.asked), control });
    }

    fn propose(&mut self, id: u64) {
        let mut batch = Batch::default();
        for _ in 0..=self.dice.below(3) {
            let bytes = "c".repeat(self.dice.below(900) as usize);
            batch.push(format!("{} {bytes}", self.asked + 1).as_bytes());
            self.asked += 1;
        }
        let first = RequestId(self.asked + 1 - batch.count() as u64);
        let time = Timestamp(self.world.now.0);
        self.turn(id, Event::Propose { first, time, batch });
    }

    fn step(&mut self, situation: Situation) {
        match self.dice.below(100) {
            0..4 => {
                let most = self.dice.below(4 * MS);
                self.wait(Some(most));
            }
            4..8 if situation != Rest || self.dice.below(20) == 0 => self.propose(self.leader()),
            8..12 => self.meet(situation),
            _ => self.work(),
        }
    }

    /// Somebody does something of what is to be done; if there is nothing, time goes on.
    fn work(&mut self) {
        let from = self.dice.below(NODES);
        let nodes = || (0..NODES).map(|n| 1 + (from + n) % NODES);
        let is_done = match self.dice.below(3) {
            0 => nodes().any(|id| self.complete(id)),
            1 => nodes().any(|id| self.compute(id)),
            _ => self.deliver(),
        };
        if !is_done && !self.deliver() && !nodes().any(|id| self.complete(id) || self.compute(id)) {
            self.wait(None);
        }
    }

    fn meet(&mut self, situation: Situation) {
        let (leader, follower, anybody) = (self.leader(), self.follower(), self.anybody());
        let dice = self.dice.below(12);
        match situation {
            Nothing => {}
            Everything => {
                let place = self.dice.below(ALL.len() as u64 - 1) as usize;
                self.meet(ALL[place]);
            }
            Forwards => self.propose(follower),
            Reads => {
                let stale_max = Duration::from_millis(50);
                let modes =
                    [ReadMode::Linearizable, ReadMode::Lease, ReadMode::Local { stale_max }];
                let mode = modes[dice as usize % 3];
                self.asked += 1;
                let requests = Requests::one(RequestId(self.asked));
                self.turn(anybody, Event::Read { requests, mode });
            }
            Snapshots if dice < 3 => self.ask(anybody, Control::Snapshot),
            Handovers if dice < 2 => self.ask(leader, Control::Transfer { to: None }),
            Handovers if dice == 2 => {
                self.ask(leader, Control::Transfer { to: Some(NodeId(follower)) });
            }
            Changes if dice == 5 => self.world.isolated = Some(VOTERS + 1 + self.dice.below(2)),
            Changes if dice > 5 => self.world.isolated = None,
            Changes if dice < 5 => self.change(leader, follower, dice),
            Pins => match self.pinned.pop() {
                Some((id, file)) if dice < 4 => self.ask(id, Control::Unpin { file }),
                Some((id, file)) => {
                    self.ask(id, Control::ReadPinned { file, offset: 0, len: 512 });
                    self.pinned.push((id, file));
                }
                None => self.ask(anybody, Control::PinSnapshot),
            },
            Rest | Links if dice < 4 => {
                let peer = NodeId(leader);
                self.turn(follower, Event::Link { peer, up: dice.is_multiple_of(2) });
            }
            Splits if dice == 0 => self.world.isolated = Some(leader),
            Splits if dice == 1 => self.world.isolated = Some(follower),
            Splits if dice < 4 => self.world.isolated = None,
            Splits => {
                let alone = self.world.isolated.unwrap_or(follower);
                self.propose(alone);
            }
            Absences if dice == 0 => self.world.isolated = Some(follower),
            Absences if dice == 1 && self.dice.below(20) == 0 => self.world.isolated = None,
            Absences if dice == 2 => self.ask(leader, Control::Snapshot),
            Damage if dice < 2 => self.spoil(follower),
            Shortage if dice == 0 => self.full = Some(anybody),
            Shortage if dice == 1 => self.full = None,
            Stops if dice == 0 => self.turn(anybody, Event::Stop { hand_over: true }),
            Stops if dice == 1 => self.turn(anybody, Event::Stop { hand_over: false }),
            Stops if dice < 6 => self.rise(anybody),
            Losses if dice > 9 => self.ask(anybody, Control::Snapshot),
            Losses if dice == 0 => self.turn(follower, Event::Stop { hand_over: false }),
            Losses if dice < 6 && !self.world.at(anybody).running => {
                self.lose(anybody);
                self.rise(anybody);
            }
            Stalls if dice < 4 => {
                self.stuck[dice as usize % 2].insert([follower, anybody][dice as usize / 2]);
            }
            Stalls if dice < 6 => self.stuck.iter_mut().for_each(BTreeSet::clear),
            Stalls => self.propose(follower),
            Tunings if dice < 3 => {
                let mut config = Config::new(lakebed::GroupId(1), NodeId(anybody));
                tune(&mut config, [Nothing, Damage, Rest, Pins][self.dice.below(4) as usize]);
                self.turn(anybody, Event::Tune(Box::new(config.tuning)));
            }
            _ => {}
        }
    }

    /// A step of one of those who come and go, or another address of one who stays.
    fn change(&mut self, leader: u64, follower: u64, dice: u64) {
        let Some(members) = self.world.at(leader).engine.membership() else { return };
        let newest = members.members().map(|member| member.id).max().unwrap_or_default();
        let next = newest.max(members.used).0 + 1;
        let member = |id, address| Member { id: NodeId(id), incarnation: 0, address };
        let change = match dice {
            0 if next <= NODES => Change::AddLearner(member(next, Bytes::new())),
            1 => Change::Promote(newest),
            2 => Change::Demote(newest),
            3 => Change::Remove(newest),
            _ => Change::Address(member(follower, Bytes::from(self.asked.to_string()))),
        };
        self.ask(leader, Control::Change(vec![change]));
    }

    /// A byte of what a full segment holds.
    fn spoil(&mut self, id: u64) {
        let Disk(files) = &mut self.world.node(id).disk;
        let segments = || files.keys().filter(|file| matches!(file, File::Segment(_)));
        let count = segments().count() as u64;
        if count < 2 {
            return;
        }
        let file = *segments().nth(self.dice.below(count - 1) as usize).expect("there are more");
        let bytes = files.get_mut(&file).expect("it is there");
        let at = bytes.len() / 2 + self.dice.below(bytes.len() as u64 / 4) as usize;
        bytes[at] ^= 1;
    }

    /// All snapshots, or the end of what the newest segment holds.
    fn lose(&mut self, id: u64) {
        let is_snapshot = self.dice.below(2) == 0;
        let cut = self.dice.below(8 << 10) as usize;
        let Disk(files) = &mut self.world.node(id).disk;
        if is_snapshot {
            return files.retain(|file, _| !matches!(file, File::Snapshot(_)));
        }
        let segments = files.iter_mut().filter(|(file, _)| matches!(file, File::Segment(_)));
        let Some((_, bytes)) = segments.last() else { return };
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes[end.saturating_sub(cut).max(end / 2)..end].fill(0);
    }

    /// Whoever has stopped begins anew.
    fn rise(&mut self, id: u64) {
        if !self.world.at(id).running {
            self.disks[id as usize - 1].clear();
            self.machines[id as usize - 1].clear();
            self.met.add(marks(self.world.at(id)));
            self.world.node(id).rise();
            let is_formatted = self.world.at(id).disk.0.contains_key(&File::HardState);
            self.turn(id, Event::Start(if is_formatted { Start::Run } else { first_start(id) }));
        }
    }

    /// All is well again: what is asked for now is answered.
    fn heal(&mut self) {
        (self.world.isolated, self.full) = (None, None);
        self.stuck.iter_mut().for_each(BTreeSet::clear);
        (1..=NODES).for_each(|id| self.rise(id));
        for _ in 0..100 {
            let leader = self.leader();
            self.propose(leader);
            let last = self.asked;
            (0..1000).for_each(|_| self.work());
            if self.world.at(leader).answered.contains(&last) {
                return;
            }
        }
        panic!("nothing goes on any more");
    }

    /// No command took effect twice, and none in another order.
    fn check(&self) {
        let longest = self.world.nodes.iter().map(|node| &node.machine).max_by_key(|of| of.len());
        let longest = longest.expect("there are nodes");
        let different: BTreeSet<_> = longest.iter().collect();
        assert_eq!(different.len(), longest.len(), "a command took effect twice");
        for node in &self.world.nodes {
            assert!(longest.starts_with(&node.machine), "two machines differ");
        }
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "situations share nothing: each is walked in a thread of its own"
)]
fn a_plain_turn_does_what_a_full_one_does() {
    std::thread::scope(|scope| {
        for situation in ALL {
            scope.spawn(move || check(situation));
        }
    });
}

fn check(situation: Situation) {
    let (seeds, mut met) = (if situation == Everything { 12 } else { 3 }, Marks::NONE);
    for seed in 1..=seeds {
        let mut slow = Slow::new(situation, seed);
        (0..STEPS).for_each(|_| slow.step(situation));
        slow.check();
        // Where disks have lost what they held nobody may be left who could go on.
        if !matches!(situation, Losses | Everything) {
            slow.heal();
            slow.check();
        }
        met.add(slow.world.nodes.iter().fold(slow.met, |met, node| met.and(marks(node))));
    }
    for mark in rare(situation) {
        assert!(met.has(*mark), "{situation:?} comes without {mark:?}");
    }
}
