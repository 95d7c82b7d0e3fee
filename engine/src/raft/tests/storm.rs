//! Everything at once, drawn from a seed: loss, repetition, disorder, partitions, crashes that
//! forget what no disk holds, slow disks. The properties are Raft's own (§5.2-5.4), and ours: each
//! request ends once.

use super::*;
use rand_chacha::rand_core::Rng;
use std::collections::BTreeMap;

struct Storm {
    cluster: Cluster,
    rng: ChaCha8Rng,
    flying: Vec<(NodeId, Message)>,
    /// Who led each term.
    leaders: BTreeMap<Term, NodeId>,
    /// What was committed anywhere.
    committed: Vec<LogId>,
    /// How many entries of it each node's machine has seen in this life.
    seen: Vec<usize>,
    next_request: u64,
    /// Requests and their ends, per node and life.
    open: BTreeMap<u64, u64>,
    applied: BTreeMap<u64, u32>,
    /// Whether disks lose what they alone have.
    loses: bool,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let nodes = [1, 3, 3, 5][(rng.next_u64() % 4) as usize];
        Self::over(nodes, rng)
    }

    /// Two voters, whose disks lose what they alone have.
    fn of_two(seed: u64) -> Self {
        Self { loses: true, ..Self::over(2, ChaCha8Rng::seed_from_u64(seed)) }
    }

    fn over(nodes: u64, rng: ChaCha8Rng) -> Self {
        let tuning = Tuning {
            append_bytes_max: 200,
            inflight_bytes_max: 400,
            cache_bytes_max: 600,
            apply_bytes_max: 300,
            catch_up_bytes_max: 400,
            propose_bytes_max: 2000,
            ..Tuning::default()
        };
        let disks = (0..nodes).map(|_| disk_with(1, &[], nodes)).collect();
        let mut cluster = Cluster::tuned(disks, tuning);
        cluster.nodes.iter_mut().for_each(|node| node.disk.lazy = true);
        Self {
            seen: vec![0; nodes as usize],
            cluster,
            rng,
            flying: Vec::new(),
            leaders: BTreeMap::new(),
            committed: Vec::new(),
            next_request: 1,
            open: BTreeMap::new(),
            applied: BTreeMap::new(),
            loses: false,
        }
    }

    fn draw(&mut self, below: usize) -> usize {
        (self.rng.next_u64() % below as u64) as usize
    }

    fn draw_node(&mut self) -> u64 {
        self.draw(self.cluster.nodes.len()) as u64 + 1
    }

    fn step(&mut self) {
        let at = self.draw_node();
        match self.draw(100) {
            0 => self.crash(at),
            1 => self.cut(at),
            2 => self.cluster.cut.clear(),
            3..=4 => self.link(at),
            5..=14 => self.propose(at),
            15..=19 => self.read(at),
            20..=34 => {
                let time = self.draw(60) as u64 * MS;
                self.cluster.pass(time);
            }
            35..=54 => drop(self.cluster.at(at).disk.sync()),
            55 if self.loses => self.lose(at),
            _ => self.deliver(),
        }
        self.settle(at);
    }

    fn settle(&mut self, at: u64) {
        self.cluster.settle(at);
        self.flying.extend(self.cluster.queue.drain(..));
        self.check(at);
    }

    /// Mostly in order; some come twice, some never.
    fn deliver(&mut self) {
        if self.flying.is_empty() {
            return;
        }
        let among = self.flying.len().min(if self.draw(10) == 0 { 20 } else { 1 });
        let which = self.draw(among);
        let (from, message) = match self.draw(20) {
            0 => self.flying[which].clone(),
            _ => self.flying.remove(which),
        };
        if self.draw(30) == 0 {
            return;
        }
        let to = message.head.to;
        if !self.cluster.cut.contains(&(from, to)) {
            self.cluster.at(to.0).raft.on_message(from, message);
            self.settle(to.0);
        }
    }

    fn crash(&mut self, at: u64) {
        self.cluster.crash(at);
        self.cluster.at(at).disk.lazy = true;
        self.seen[at as usize - 1] = 0;
        self.open.retain(|_, node| *node != at);
    }

    /// The bytes of its last durable entry are lost, which the other one of two has not got; a restart finds out.
    fn lose(&mut self, at: u64) {
        let [own, other] = [at, 3 - at].map(|at| &self.cluster.nodes[at as usize - 1].disk);
        let Some(last) = own.durable.checked_sub(1) else { return };
        let id = own.log[last].0.id;
        let is_alone = other.log.get(last).is_none_or(|(head, _)| head.id != id);
        if is_alone && other.holes.is_empty() {
            self.cluster.at(at).disk.lose(id.index.0);
            self.crash(at);
        }
    }

    fn cut(&mut self, at: u64) {
        match self.draw(3) {
            0 => self.cluster.isolate(at),
            _ => {
                let to = self.draw_node();
                self.cluster.cut.insert((node(at), node(to)));
            }
        }
    }

    fn link(&mut self, at: u64) {
        let (peer, up) = (self.draw_node(), self.draw(2) == 0);
        self.cluster.at(at).raft.on_link(node(peer), up);
    }

    fn propose(&mut self, at: u64) {
        let count = self.draw(3) as u64 + 1;
        let first = self.next_request;
        self.next_request += count;
        let names: Vec<_> = (first..first + count).map(|id| id.to_string()).collect();
        self.open.extend((first..first + count).map(|id| (id, at)));
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        self.cluster.propose(at, first, &names);
    }

    fn read(&mut self, at: u64) {
        let id = self.next_request;
        self.next_request += 1;
        self.open.insert(id, at);
        self.cluster.at(at).raft.on_read(Requests::one(RequestId(id)), ReadMode::Linearizable);
    }

    fn check(&mut self, at: u64) {
        let node = &mut self.cluster.nodes[at as usize - 1];
        assert_eq!(node.faults(), [] as [&str; 0], "no correct peer is at fault");
        if node.role() == status::Role::Leader {
            let leader = *self.leaders.entry(node.raft.term).or_insert(NodeId(at));
            assert_eq!(leader, NodeId(at), "two leaders in {}", node.raft.term);
            let lacks = |id: &&LogId| node.raft.log.id_at(id.index) != Some(**id);
            let later = self.committed.iter().filter(|id| id.term < node.raft.term);
            assert_eq!(later.clone().find(lacks), None, "node {at} leads {}", node.raft.term);
        }
        let marks = node.raft.log.marks;
        for index in 1..=marks.committed().0 as usize {
            let id = node.raft.log.id_at(LogIndex(index as u64)).expect("nothing is compacted");
            match self.committed.get(index - 1) {
                Some(committed) => assert_eq!(*committed, id, "node {at}"),
                None => self.committed.push(id),
            }
        }
        self.check_applied(at);
        self.check_ends(at);
    }

    fn check_applied(&mut self, at: u64) {
        let node = &mut self.cluster.nodes[at as usize - 1];
        let seen = self.seen[at as usize - 1];
        self.seen[at as usize - 1] = node.applied.len();
        for (id, bytes, request) in &node.applied[seen..] {
            assert_eq!(self.committed[id.index.0 as usize - 1], *id);
            let name: u64 = String::from_utf8_lossy(bytes).parse().unwrap();
            if let Some(request) = request {
                assert_eq!(*request, name, "an answer for somebody else");
                let owner = self.open.remove(request);
                assert_eq!(owner, Some(at), "request {request} ended twice or elsewhere");
            }
        }
    }

    fn check_ends(&mut self, at: u64) {
        let node = &mut self.cluster.nodes[at as usize - 1];
        for (id, outcome) in node.ended.drain(..) {
            assert_eq!(self.open.remove(&id), Some(at), "request {id} ended twice: {outcome:?}");
            if matches!(outcome, Outcome::Refused(_)) {
                // Certainly not applied, now or later.
                self.applied.insert(id, 0);
            }
        }
        for (id, _) in node.queried.drain(..) {
            assert_eq!(self.open.remove(&id), Some(at), "read {id} ended twice");
        }
    }

    /// The weather clears: everyone agrees, and nobody waits any more.
    fn calm(&mut self) {
        self.cluster.cut.clear();
        self.cluster.queue.clear();
        let ids: Vec<_> = (1..=self.cluster.nodes.len() as u64).collect();
        for &at in &ids {
            self.cluster.at(at).disk.lazy = false;
            ids.iter().for_each(|&peer| self.cluster.at(at).raft.on_link(node(peer), true));
        }
        self.cluster.elapse(20_000 * MS);
        ids.iter().for_each(|&at| self.check(at));
        assert_eq!(self.open, BTreeMap::new(), "somebody still waits");
        let logs: Vec<_> = self.cluster.nodes.iter().map(Node::ids).collect();
        assert!(logs.iter().all(|log| *log == logs[0]), "logs differ");
        let seen: Vec<_> = self.cluster.nodes.iter().map(commands_of).collect();
        assert!(seen.iter().all(|applied| *applied == seen[0]), "machines differ");
        for name in &seen[0] {
            let refused = self.applied.contains_key(name);
            assert!(!refused, "request {name} was refused and applied");
        }
    }
}

fn commands_of(node: &Node) -> Vec<u64> {
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).parse().unwrap();
    node.applied.iter().map(|(_, bytes, _)| name(bytes)).collect()
}

#[test]
fn rafts_properties_hold_in_any_weather() {
    let mut marks = Marks::default();
    for seed in 0..200 {
        let mut storm = Storm::new(seed);
        for _ in 0..1500 {
            storm.step();
        }
        storm.calm();
        storm.cluster.nodes.iter().for_each(|node| marks.add(node.raft.marks));
    }
    // Weather in which nothing happens proves nothing.
    for mark in [
        Mark::ConflictTruncated,
        Mark::DuplicateAppendKept,
        Mark::StaleAnswerDropped,
        Mark::BallotRefusedLog,
        Mark::ForwardPlaced,
        Mark::ForwardUnknown,
        Mark::ProposalUnknown,
        Mark::PeerFedFromDisk,
        Mark::MachineFedFromDisk,
        Mark::ReadsShared,
        Mark::ReadRefused,
    ] {
        assert!(marks.has(mark), "{mark:?} was never met");
    }
}

/// Nobody leads without what was committed, and somebody leads.
#[test]
fn two_voters_go_on_without_what_one_of_them_alone_had() {
    let mut marks = Marks::default();
    for seed in 0..200 {
        let mut storm = Storm::of_two(seed);
        (0..1500).for_each(|_| storm.step());
        storm.calm();
        storm.cluster.nodes.iter().for_each(|node| marks.add(node.raft.marks));
    }
    for mark in [Mark::RefillInVain, Mark::ConflictTruncated] {
        assert!(marks.has(mark), "{mark:?} was never met");
    }
}
