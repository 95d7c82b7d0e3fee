//! A cluster as a value: its nodes, what is on the way between them, and what can happen next.

use crate::{
    ledger::Ledger,
    model::Limits,
    node::{Node, Send, narrow},
};
use bytes::Bytes;
use lakebed::{
    Batch, Change, ClusterId, Control, Event, Member, Membership, NodeId, RequestId, Role, Start,
    Timestamp, inspect,
};
use std::{
    collections::VecDeque,
    fmt,
    hash::{Hash, Hasher},
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

/// How many nodes there are.
pub(crate) const NODES: usize = 3;
/// The most messages on the way from one node to another; the oldest is lost for one more.
const LINE_MAX: usize = 4;

/// Something that can happen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A message arrives: the oldest on its way, or this one of those.
    Arrive {
        /// From this node.
        from: usize,
        /// At that one.
        to: usize,
        /// How many older ones it overtakes.
        overtakes: usize,
        /// Whether it is going to arrive once more.
        again: bool,
    },
    /// All that is on its way is lost, and the sender learns that something may be.
    Lose {
        /// From this node.
        from: usize,
        /// To that one.
        to: usize,
    },
    /// A node's disk does all that was asked of it.
    Write {
        /// Whose.
        node: usize,
    },
    /// Time passes at a node until its next timer has an effect.
    Wait {
        /// Which.
        node: usize,
    },
    /// A client asks a leader for an entry.
    Propose {
        /// Which.
        node: usize,
    },
    /// Somebody asks a leader to hand its role over.
    Transfer {
        /// The leader.
        node: usize,
    },
    /// Somebody asks a leader to remove the last node.
    Remove {
        /// The leader.
        node: usize,
    },
    /// Somebody asks a leader to add the last node as a learner.
    Add {
        /// The leader.
        node: usize,
    },
    /// Somebody asks a leader to let the last node vote.
    Promote {
        /// The leader.
        node: usize,
    },
    /// What a node of a former group of the same id said first, naming no life or the former group's,
    /// arrives only now.
    Former {
        /// From this node.
        from: usize,
        /// At that one.
        to: usize,
        /// Whether it is an answer, to a life of the former group.
        answers: bool,
    },
    /// A node's disk is gone, and it is formatted again.
    Wipe {
        /// Which.
        node: usize,
    },
    /// A node loses power, starts again and has judged its disk.
    PowerCut {
        /// Which.
        node: usize,
        /// Whether what its disk was doing is done.
        keeps: bool,
    },
    /// The same, and of its log nothing is left; its hard state is.
    LoseLog {
        /// Which.
        node: usize,
        /// Whether what its disk was doing is done.
        keeps: bool,
    },
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Arrive { from, to, overtakes, again } => {
                write!(f, "{} -> {}", from + 1, to + 1)?;
                if overtakes > 0 {
                    write!(f, " overtaking {overtakes}")?;
                }
                if again { f.write_str(", and will again") } else { Ok(()) }
            }
            Self::Lose { from, to } => write!(f, "{} -> {} loses all", from + 1, to + 1),
            Self::Write { node } => write!(f, "{} writes", node + 1),
            Self::Wait { node } => write!(f, "{} waits", node + 1),
            Self::Propose { node } => write!(f, "{} is asked for an entry", node + 1),
            Self::Transfer { node } => write!(f, "{} is asked to hand over", node + 1),
            Self::Remove { node } => write!(f, "{} is asked to remove {NODES}", node + 1),
            Self::Add { node } => write!(f, "{} is asked to add {NODES}", node + 1),
            Self::Promote { node } => write!(f, "{} is asked to let {NODES} vote", node + 1),
            Self::Former { from, to, answers } => {
                let what = if answers { "answer" } else { "greeting" };
                write!(f, "{} -> {}, a {what} of a former group", from + 1, to + 1)
            }
            Self::Wipe { node } => write!(f, "{} is wiped and formatted again", node + 1),
            Self::PowerCut { node, keeps } => {
                let what = if keeps { "kept" } else { "lost" };
                write!(f, "{} loses power, what it wrote is {what}", node + 1)
            }
            Self::LoseLog { node, keeps } => {
                let what = if keeps { "kept" } else { "lost" };
                write!(f, "{} loses power and its log, what it wrote is {what}", node + 1)
            }
        }
    }
}

/// How much of what is limited has happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Spent {
    waits: [u8; NODES],
    proposals: u8,
    transfers: u8,
    removals: u8,
    additions: u8,
    promotions: u8,
    formers: u8,
    wipes: u8,
    power_cuts: u8,
    log_losses: u8,
    losses: u8,
    repeats: u8,
}

/// See the module.
#[derive(Clone)]
pub struct Cluster {
    nodes: Vec<Arc<Node>>,
    /// How many of them founded it; the others wait to be added.
    founders: usize,
    /// What is on the way, by sender and receiver; oldest first.
    lines: [[VecDeque<Bytes>; NODES]; NODES],
    spent: Spent,
    pub(crate) ledger: Ledger,
    /// What was said first in a former group of the same id, and answered.
    former: Arc<[[Option<[Bytes; 2]>; NODES]; NODES]>,
}

impl Cluster {
    /// Founders that are connected, and have not met; whoever is none waits to be added.
    fn begun(life: u64, founders: usize) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            founders,
            lines: Default::default(),
            spent: Spent::default(),
            ledger: Ledger::default(),
            former: Arc::default(),
        };
        let mut sends = Vec::new();
        for id in 1..=NODES as u64 {
            let start = match id <= founders as u64 {
                true => founding(founders),
                false => Start::Join { cluster: CLUSTER },
            };
            let (node, said) = Node::start(NodeId(id), life, start);
            cluster.nodes.push(Arc::new(node));
            sends.push(said);
        }
        sends.into_iter().enumerate().for_each(|(from, sends)| cluster.send(from, sends));
        for (from, to) in ways() {
            cluster.touch(from, |node| node.handle(vec![link(to, true)]));
        }
        cluster
    }

    /// Three founders that are connected, and have not met; what was said when a former group of this
    /// id was founded may still be on its way.
    #[must_use]
    pub fn founding() -> Self {
        let before = Self::begun(FORMER_LIFE, NODES);
        let mut former: [[Option<[Bytes; 2]>; NODES]; NODES] = Default::default();
        for (from, to) in ways() {
            let mut met = before.clone();
            let greeting = met.lines[from][to].back().expect("founders greet").clone();
            // It answers what it is greeted with; nobody else has a say.
            met.lines = Default::default();
            met.touch(from, |node| {
                let bytes = before.lines[to][from].back().expect("founders greet").clone();
                let sends =
                    node.handle(vec![Event::Received { from: NodeId(to as u64 + 1), bytes }]);
                [sends, node.let_disk_catch_up()].concat()
            });
            let answer = met.lines[from][to].back().expect("a greeting is answered").clone();
            former[from][to] = Some([greeting, answer]);
        }
        Self { former: Arc::new(former), ..Self::begun(1, NODES) }
    }

    /// Three voters that have met each other; nobody leads.
    #[must_use]
    pub fn formed() -> Self {
        Self::met(NODES)
    }

    fn met(founders: usize) -> Self {
        let mut cluster = Self::begun(1, founders);
        cluster.settle();
        let is_forming = |node: &Node| node.probe().role == Role::Forming;
        while let Some(at) = cluster.nodes[..founders].iter().position(|node| is_forming(node)) {
            cluster.touch(at, Node::wait);
            cluster.settle();
        }
        cluster.ledger = Ledger::default();
        cluster
    }

    /// The same, when one of them leads and all have heard of it.
    #[must_use]
    pub fn led() -> Self {
        Self::formed().elect()
    }

    /// The same, and there is a second entry, which is committed with the word of the next node; the one behind
    /// that has not heard of it. An append has one of them, for what has come back in part is worth a look.
    #[must_use]
    pub fn ahead() -> Self {
        let mut cluster = Self::led();
        let leads = |node: &Arc<Node>| node.probe().role == Role::Leader;
        let leader = cluster.nodes.iter().position(leads).expect("one leads");
        let (next, last) = ((leader + 1) % NODES, (leader + 2) % NODES);
        cluster.touch(leader, |node| node.handle(vec![Event::Tune(Box::new(narrow()))]));
        cluster.touch(leader, |node| node.handle(vec![propose(0)]));
        cluster.let_disks_catch_up();
        let is_busy = |cluster: &Self, from: usize, to: usize| !cluster.lines[from][to].is_empty();
        while let Some((from, to)) = [(leader, next), (next, leader)]
            .into_iter()
            .find(|(from, to)| is_busy(&cluster, *from, *to))
        {
            cluster.arrive(from, to, 0, false);
            cluster.let_disks_catch_up();
        }
        cluster.lines[leader][last].clear();
        cluster
    }

    /// Two voters of which one leads; the third waits to be added.
    #[must_use]
    pub fn pair() -> Self {
        Self::met(NODES - 1).elect()
    }

    fn elect(mut self) -> Self {
        let mut standing = self.founders;
        while !self.nodes.iter().any(|node| node.probe().role == Role::Leader) {
            (0..standing).rev().for_each(|at| self.touch(at, Node::wait));
            self.settle();
            if self.founders < NODES {
                // Two that always stand at once elect nobody.
                standing = 1;
            }
        }
        self
    }

    /// Everything that is on its way arrives, everything that is to be written is.
    fn settle(&mut self) {
        while let Some((from, to)) = ways().find(|(from, to)| !self.lines[*from][*to].is_empty()) {
            self.arrive(from, to, 0, false);
            self.let_disks_catch_up();
        }
    }

    fn let_disks_catch_up(&mut self) {
        for at in 0..NODES {
            if !self.nodes[at].disk.is_idle() {
                self.touch(at, Node::let_disk_catch_up);
            }
        }
    }

    /// What can happen next.
    pub(crate) fn steps(&self, limits: &Limits, steps: &mut Vec<Step>) {
        if self.ledger.violation.is_some() {
            return;
        }
        let spent = &self.spent;
        for (from, to) in ways() {
            let line = &self.lines[from][to];
            let overtaking = if limits.any_order { line.len() } else { 1 };
            for overtakes in 0..line.len().min(overtaking) {
                steps.push(Step::Arrive { from, to, overtakes, again: false });
                if spent.repeats < limits.repeats {
                    steps.push(Step::Arrive { from, to, overtakes, again: true });
                }
            }
            if !line.is_empty() && spent.losses < limits.losses {
                steps.push(Step::Lose { from, to });
            }
        }
        for (at, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.halt.is_none()) {
            let is_idle = node.disk.is_idle();
            if !is_idle {
                steps.push(Step::Write { node: at });
            }
            if spent.waits[at] < limits.waits[at] {
                steps.push(Step::Wait { node: at });
            }
            if spent.wipes < limits.wipes {
                steps.push(Step::Wipe { node: at });
            }
            if spent.formers < limits.formers {
                let others = (0..NODES).filter(|from| *from != at);
                let said = others.flat_map(|from| [false, true].map(|answers| (from, answers)));
                steps.extend(said.map(|(from, answers)| Step::Former { from, to: at, answers }));
            }
            if spent.power_cuts < limits.power_cuts {
                steps.push(Step::PowerCut { node: at, keeps: false });
                if !is_idle {
                    steps.push(Step::PowerCut { node: at, keeps: true });
                }
            }
            // Of three one may lack what it held: two are no minority.
            let is_alone = (0..NODES).all(|other| other == at || !self.nodes[other].is_gated());
            if spent.log_losses < limits.log_losses && is_alone {
                steps.push(Step::LoseLog { node: at, keeps: false });
                if !is_idle {
                    steps.push(Step::LoseLog { node: at, keeps: true });
                }
            }
            if node.probe().role != Role::Leader {
                continue;
            }
            if spent.proposals < limits.proposals {
                steps.push(Step::Propose { node: at });
            }
            if spent.transfers < limits.transfers {
                steps.push(Step::Transfer { node: at });
            }
            if spent.removals < limits.removals {
                steps.push(Step::Remove { node: at });
            }
            if spent.additions < limits.additions {
                steps.push(Step::Add { node: at });
            }
            if spent.promotions < limits.promotions && node.has_learner() {
                steps.push(Step::Promote { node: at });
            }
        }
    }

    /// The cluster after this step; `None` if it changes nothing that is looked at.
    pub(crate) fn after(&self, step: Step, limits: &Limits) -> Option<Self> {
        let mut next = self.clone();
        match step {
            Step::Arrive { from, to, overtakes, again } => {
                next.spent.repeats += u8::from(again);
                next.arrive(from, to, overtakes, again);
            }
            Step::Lose { from, to } => {
                next.spent.losses += 1;
                next.lines[from][to].clear();
                next.touch(from, |node| node.handle(vec![link(to, false), link(to, true)]));
            }
            Step::Write { node } => next.touch(node, Node::let_disk_catch_up),
            Step::Wait { node } => {
                next.spent.waits[node] += 1;
                next.touch(node, Node::wait);
            }
            Step::Propose { node } => {
                next.spent.proposals += 1;
                let number = next.spent.proposals;
                next.touch(node, |node| node.handle(vec![propose(number)]));
            }
            Step::Transfer { node } => {
                next.spent.transfers += 1;
                next.order(node, Control::Transfer { to: None });
            }
            Step::Remove { node } => {
                next.spent.removals += 1;
                next.order(node, Control::Change(vec![Change::Remove(LAST)]));
            }
            Step::Add { node } => {
                next.spent.additions += 1;
                next.order(node, Control::Change(vec![Change::AddLearner(member(LAST.0))]));
            }
            Step::Promote { node } => {
                next.spent.promotions += 1;
                next.order(node, Control::Change(vec![Change::Promote(LAST)]));
            }
            Step::Former { from, to, answers } => {
                next.spent.formers += 1;
                let said = self.former[from][to].as_ref().expect("there was a former group");
                let (from, bytes) = (NodeId(from as u64 + 1), said[usize::from(answers)].clone());
                next.touch(to, |node| node.handle(vec![Event::Received { from, bytes }]));
            }
            Step::Wipe { node } => {
                next.spent.wipes += 1;
                next.wipe(node);
            }
            Step::PowerCut { node, keeps } => {
                next.spent.power_cuts += 1;
                next.power_cut(node, keeps, false, limits);
            }
            Step::LoseLog { node, keeps } => {
                next.spent.log_losses += 1;
                next.power_cut(node, keeps, true, limits);
            }
        }
        if limits.disks_are_prompt {
            next.let_disks_catch_up();
        }
        (next != *self).then_some(next)
    }

    fn order(&mut self, node: usize, control: Control) {
        let event = Event::Control { id: RequestId(100), control };
        self.touch(node, |node| node.handle(vec![event]));
    }

    fn arrive(&mut self, from: usize, to: usize, overtakes: usize, again: bool) {
        let line = &mut self.lines[from][to];
        let bytes = if again { line.get(overtakes).cloned() } else { line.remove(overtakes) };
        let bytes = bytes.expect("it is on its way");
        let from = NodeId(from as u64 + 1);
        self.touch(to, |node| node.handle(vec![Event::Received { from, bytes }]));
    }

    /// What was on its way to it is lost, unless the network is late; what it sent before is not.
    fn power_cut(&mut self, at: usize, keeps: bool, loses_log: bool, limits: &Limits) {
        if !limits.is_late {
            self.lines.iter_mut().for_each(|lines| lines[at].clear());
        }
        let before = Arc::clone(&self.nodes[at]);
        if loses_log {
            self.ledger.on_log_lost(before.id);
        }
        self.touch(at, |node| node.lose_power(keeps, loses_log));
        self.ledger.on_power_cut(&before, &self.nodes[at]);
        self.connect_anew(at);
    }

    /// What was on its way to it is lost, and its disk is a new one.
    fn wipe(&mut self, at: usize) {
        self.lines.iter_mut().for_each(|lines| lines[at].clear());
        self.ledger.on_wiped(NodeId(at as u64 + 1));
        let start = founding(self.founders);
        self.touch(at, |node| node.begin_anew(start));
        self.connect_anew(at);
    }

    fn connect_anew(&mut self, at: usize) {
        for peer in (0..NODES).filter(|peer| *peer != at) {
            self.touch(at, |node| node.handle(vec![link(peer, true)]));
            self.touch(peer, |node| node.handle(vec![link(at, false), link(at, true)]));
        }
    }

    /// Has a node do something, sends what it says, and looks at it.
    fn touch(&mut self, at: usize, act: impl FnOnce(&mut Node) -> Vec<Send>) {
        if self.nodes[at].halt.is_some() {
            return;
        }
        let node = Arc::make_mut(&mut self.nodes[at]);
        let Ok(sends) = panic::catch_unwind(AssertUnwindSafe(|| act(node))) else {
            // What is left of the node is looked at no more.
            self.ledger.violation.get_or_insert_with(|| format!("no panic: node {}", at + 1));
            return;
        };
        self.send(at, sends);
        self.ledger.on_node(&self.nodes, at);
        let node = Arc::make_mut(&mut self.nodes[at]);
        node.fresh.clear();
        node.take_print();
    }

    fn send(&mut self, from: usize, sends: Vec<Send>) {
        for (to, message) in sends {
            self.ledger.on_said(&self.nodes[from], to, &message);
            let line = &mut self.lines[from][to.0 as usize - 1];
            if line.len() == LINE_MAX {
                line.pop_front();
            }
            line.push_back(message);
        }
    }

    /// How often each kind of thing was reached: for the properties that say what must be.
    pub(crate) fn has_led(&self, terms: usize) -> bool {
        self.ledger.led() >= terms
    }

    pub(crate) fn has_committed(&self, entries: usize) -> bool {
        self.ledger.committed() >= entries
    }

    pub(crate) fn has_removed(&self) -> bool {
        let members = self.nodes.iter().filter_map(|node| node.engine.membership());
        members.into_iter().any(|members| members.members().count() < NODES)
    }

    /// Whether a node is in force as a voter that founded nothing.
    pub(crate) fn has_promoted(&self) -> bool {
        let members = self.nodes.iter().filter_map(|node| node.engine.membership());
        members.into_iter().any(|now| now.outgoing.is_empty() && now.voters.len() > self.founders)
    }

    pub(crate) fn has_opened_a_gate(&self) -> bool {
        self.ledger.has_opened_a_gate()
    }
}

/// The lives of a former group's disks are others.
const FORMER_LIFE: u64 = 100;

const CLUSTER: ClusterId = ClusterId(1);

/// Whom changes are about.
const LAST: NodeId = NodeId(NODES as u64);

fn member(id: u64) -> Member {
    Member { id: NodeId(id), incarnation: 0, address: Bytes::new() }
}

fn propose(number: u8) -> Event {
    let first = RequestId(u64::from(number));
    Event::Propose { first, time: Timestamp(0), batch: Batch::one(&[number]) }
}

fn founding(founders: usize) -> Start {
    let members = Arc::new(Membership::of((1..=founders as u64).map(member)));
    Start::Format { cluster: CLUSTER, members }
}

fn ways() -> impl Iterator<Item = (usize, usize)> {
    let all = (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to)));
    all.filter(|(from, to)| from != to)
}

fn link(peer: usize, up: bool) -> Event {
    Event::Link { peer: NodeId(peer as u64 + 1), up }
}

impl Hash for Cluster {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.nodes, &self.lines, &self.spent, &self.ledger).hash(state);
    }
}

impl PartialEq for Cluster {
    fn eq(&self, other: &Self) -> bool {
        self.nodes == other.nodes
            && self.lines == other.lines
            && self.spent == other.spent
            && self.ledger == other.ledger
    }
}

/// One line a node, and what is on the way.
impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in &self.nodes {
            let probe = node.probe();
            let (id, role, term) = (node.id, probe.role, probe.term);
            let writing = if node.disk.is_idle() { "" } else { ", writing" };
            let gated = if probe.gated { ", gated" } else { "" };
            let terms: Vec<_> = (1..=probe.last.index.0)
                .map(|n| node.engine.term_at(lakebed::LogIndex(n)))
                .collect();
            writeln!(
                f,
                "node {id}: {role:?} of term {term}, terms of the log {terms:?}, durable \
                 {}, committed {}{writing}{gated}",
                probe.durable, probe.committed
            )?;
        }
        for (from, to) in ways() {
            for message in &self.lines[from][to] {
                writeln!(f, "{} -> {}: {}", from + 1, to + 1, inspect::describe(message))?;
            }
        }
        match &self.ledger.violation {
            Some(violation) => writeln!(f, "broken: {violation}"),
            None => Ok(()),
        }
    }
}
