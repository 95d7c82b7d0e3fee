//! What must hold, and what must come about.

use super::{laws::Record, *};

/// What is known of all nodes together.
#[derive(Default)]
pub(super) struct Known {
    /// Who led each term.
    leaders: BTreeMap<Term, NodeId>,
    /// What was committed anywhere.
    pub(super) committed: Vec<LogId>,
    /// How many entries of it each node's machine has seen in this life.
    seen: Vec<usize>,
    next_request: u64,
    /// Requests without an end, and where they were asked.
    open: BTreeMap<u64, u64>,
    /// How much was committed when a read was asked for.
    reads: BTreeMap<u64, usize>,
    refused: BTreeSet<u64>,
    pub(super) record: Record,
    /// What was left could not be mended, and was not judged.
    pub(super) was_beyond_repair: bool,
}

impl Known {
    pub(super) fn of(nodes: u64) -> Self {
        Self { seen: vec![0; nodes as usize], next_request: 1, ..Self::default() }
    }

    /// The first of so many.
    pub(super) fn request(&mut self, at: u64, count: u64) -> u64 {
        let first = self.next_request;
        self.next_request += count;
        self.open.extend((first..first + count).map(|id| (id, at)));
        first
    }

    pub(super) fn request_read(&mut self, at: u64) -> u64 {
        let id = self.request(at, 1);
        self.reads.insert(id, self.committed.len());
        id
    }

    pub(super) fn forget_requests(&mut self, at: u64) {
        self.open.retain(|_, node| *node != at);
    }

    pub(super) fn forget_life(&mut self, at: u64) {
        self.seen[at as usize - 1] = 0;
        self.record.forget_life(at);
        self.forget_requests(at);
    }
}

impl Storm {
    pub(super) fn check(&mut self, at: u64) {
        let node = &self.cluster.nodes[at as usize - 1];
        assert_eq!(node.faults(), [] as [&str; 0], "no correct peer is at fault: node {at}");
        self.check_committed(at);
        self.check_leader(at);
        self.check_members(at);
        self.check_applied(at);
        self.check_ends(at);
    }

    fn check_leader(&mut self, at: u64) {
        let node = &self.cluster.nodes[at as usize - 1];
        if node.role() != status::Role::Leader {
            return;
        }
        let term = node.raft.term;
        assert!(node.raft.gate.is_none(), "node {at} leads {term} behind its gate");
        let leader = *self.known.leaders.entry(term).or_insert(NodeId(at));
        assert_eq!(leader, NodeId(at), "two leaders in {term}");
        let lacks = |id: &&LogId| node.raft.log.id_at(id.index) != Some(**id);
        let mut earlier = self.known.committed.iter().filter(|id| id.term < term);
        assert_eq!(earlier.find(lacks), None, "node {at} leads {term} without it");
    }

    fn check_committed(&mut self, at: u64) {
        let log = &self.cluster.nodes[at as usize - 1].raft.log;
        for index in 1..=log.marks.committed().0 {
            let id = log.id_at(LogIndex(index)).expect("nothing is compacted");
            match self.known.committed.get(index as usize - 1) {
                Some(committed) => assert_eq!(*committed, id, "node {at}"),
                None => self.known.committed.push(id),
            }
        }
    }

    /// In force are the last ones in the log, where all of it is known.
    fn check_members(&self, at: u64) {
        let Node { raft, disk, .. } = &self.cluster.nodes[at as usize - 1];
        let is_handed_over = disk.log.last().map(|(head, _)| head.id) == Some(raft.log.last());
        if raft.gate.is_none() && is_handed_over {
            let mut changes = disk.log.iter().rev();
            let newest = changes.find(|(head, _)| head.kind == entry::Kind::Membership);
            let newest = newest.map(|(head, _)| head.id).unwrap_or_default();
            assert_eq!(raft.membership.at, newest, "members of node {at}");
        }
    }

    fn check_applied(&mut self, at: u64) {
        let node = &self.cluster.nodes[at as usize - 1];
        let seen = std::mem::replace(&mut self.known.seen[at as usize - 1], node.applied.len());
        for (id, bytes, request) in &node.applied[seen..] {
            assert_eq!(self.known.committed[id.index.0 as usize - 1], *id, "node {at}");
            if let Some(request) = request {
                assert_eq!(*request, name_of(bytes), "an answer for somebody else");
                let owner = self.known.open.remove(request);
                assert_eq!(owner, Some(at), "request {request} ended twice or elsewhere");
            }
        }
    }

    fn check_ends(&mut self, at: u64) {
        let node = &mut self.cluster.nodes[at as usize - 1];
        for (id, outcome) in node.ended.drain(..) {
            let owner = self.known.open.remove(&id);
            assert_eq!(owner, Some(at), "request {id} ended twice: {outcome:?}");
            if matches!(outcome, Outcome::Refused(_)) {
                // Certainly not applied, now or later.
                self.known.refused.insert(id);
            }
        }
        for (id, position) in node.queried.drain(..) {
            let owner = self.known.open.remove(&id);
            assert_eq!(owner, Some(at), "read {id} ended twice");
            let before = self.known.reads[&id];
            assert!(position.0 as usize >= before, "read {id} at {position}, behind {before}");
        }
    }

    /// Who answers by a lease holds it.
    pub(super) fn check_nobody_else_leads(&self, at: u64) {
        let term = self.cluster.nodes[at as usize - 1].raft.term;
        let newest = self.known.leaders.last_key_value();
        assert!(
            newest.is_none_or(|(newest, _)| *newest <= term),
            "node {at} answers by a lease of {term}, and {newest:?} leads"
        );
    }

    /// What of a cluster at rest is not as it must be.
    pub(super) fn what_is_left(&self) -> Option<String> {
        let at = |id: u64| &self.cluster.nodes[id as usize - 1];
        if !self.known.open.is_empty() {
            return Some(format!("somebody still waits: {:?}", self.known.open));
        }
        let leads = |id: &u64| at(*id).role() == status::Role::Leader;
        let Some(leader) = self.ids().find(leads).map(at) else {
            return Some("nobody leads".into());
        };
        let marks = &leader.raft.log.marks;
        if !leader.raft.membership.outgoing.is_empty() || marks.committed() < marks.last() {
            return Some("not all is committed".into());
        }
        let members = leader.raft.membership.members().map(|member| at(member.id.0));
        let is_as_the_leader = |node: &Node| {
            node.ids() == leader.ids()
                && commands_of(node) == commands_of(leader)
                && node.raft.gate.is_none()
                && node.disk.holes.is_empty()
        };
        let mut others = members.filter(|node| !is_as_the_leader(node));
        others.next().map(|node| format!("{} is not as its leader", node.raft.identity.node))
    }

    pub(super) fn check_all(&mut self) {
        if let Some(left) = self.what_is_left() {
            self.known.was_beyond_repair = self.is_beyond_repair();
            assert!(self.known.was_beyond_repair, "{left}\n{}", self.told());
            return;
        }
        let applied = self.ids().flat_map(|at| commands_of(&self.cluster.nodes[at as usize - 1]));
        for name in applied {
            assert!(!self.known.refused.contains(&name), "{name} was refused and applied");
        }
    }

    /// What docs/recovery.md names. A committed entry was taken along by who was removed; gates leave no quorum, as
    /// those who were to vote next, or one of two, lost their logs; or what one lost that it alone had keeps all from
    /// leading while members change.
    fn is_beyond_repair(&self) -> bool {
        let mut committed = 1..=self.known.committed.len();
        let is_nowhere = |index: usize| !self.ids().any(|at| self.has(at, index));
        let raft = |at: u64| &self.cluster.nodes[at as usize - 1].raft;
        let is_shut = |at: u64| {
            let members = &raft(at).membership;
            !members.voters.is_empty() && !members.is_quorum(|id| raft(id.0).gate.is_none())
        };
        let is_joint = |at: u64| !raft(at).membership.outgoing.is_empty();
        let lacks_own = |at: u64| {
            let holes = &self.cluster.nodes[at as usize - 1].disk.holes;
            holes.first().is_some_and(|hole| hole.0 > self.known.committed.len() as u64)
        };
        committed.any(is_nowhere)
            || self.ids().any(is_shut)
            || self.ids().any(is_joint) && self.ids().any(lacks_own)
    }

    fn told(&self) -> String {
        let tell = |at: u64| {
            let Node { raft, disk, .. } = &self.cluster.nodes[at as usize - 1];
            let (marks, holes) = (&raft.log.marks, &disk.holes);
            let role = self.cluster.nodes[at as usize - 1].role();
            format!(
                "node {at}: {role:?} in {}, {marks:?}, holes {holes:?}, {:?}, members {} of {}",
                raft.term, raft.gate, raft.membership, raft.membership.at,
            )
        };
        self.ids().map(tell).collect::<Vec<_>>().join("\n")
    }
}

fn name_of(command: &[u8]) -> u64 {
    String::from_utf8_lossy(command).parse().expect("a number was proposed")
}

fn commands_of(node: &Node) -> Vec<u64> {
    node.applied.iter().map(|(_, bytes, _)| name_of(bytes)).collect()
}
