//! When may a voter that has lost entries, and knows which they were, vote for one who never had them
//! (docs/recovery.md, refill)? A model of elections, logs and members, for that is much smaller than engines are:
//! every way through it, by the rule of the engine (`is_lost_for_good`) and by rules that are wrong.
//!
//! A rule is good if nobody leads without what is committed and whole somewhere, and if from wherever things have
//! come to somebody leads once nothing more goes wrong. Whatever was said may arrive at any time, and again, and
//! whoever may stand does so at any time. So nothing rests on how long the voter has waited for the entry: that
//! serves what was never committed, and may still come.

use stateright::{Checker, Model, Property};
use std::collections::BTreeSet;

const NODES: usize = 3;

/// One bit for each node.
type Set = u8;
/// One bit for each entry.
type Entries = u16;
const A: Set = 1;
const B: Set = 2;
const C: Set = 4;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Members {
    voters: Set,
    outgoing: Set,
}

impl Members {
    fn is_quorum(self, set: Set) -> bool {
        let most = |of: Set| 2 * (of & set).count_ones() > of.count_ones();
        most(self.voters) && (self.outgoing == 0 || most(self.outgoing))
    }

    const fn all(self) -> Set {
        self.voters | self.outgoing
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Entry {
    term: u8,
    members: Option<Members>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Role {
    Follower,
    /// Who has voted for it.
    Candidate(Set),
    /// How far each is known to have the log.
    Leader([u8; NODES]),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Node {
    term: u8,
    vote: Option<u8>,
    log: Vec<Entry>,
    /// Entries of which only the name is left.
    holes: Entries,
    /// They turned out at its start: nothing from the first of them on is acknowledged.
    owes: bool,
    /// The end of the log was lost, and what it was is not known.
    is_gated: bool,
    committed: u8,
    role: Role,
}

impl Node {
    fn hole(&self) -> Option<u8> {
        (self.holes != 0).then(|| self.holes.trailing_zeros() as u8)
    }

    fn last(&self) -> (u8, u8) {
        (self.log.last().map_or(0, |entry| entry.term), self.log.len() as u8)
    }

    /// How much of the log is there.
    fn whole(&self) -> u8 {
        self.hole().unwrap_or(self.log.len() as u8)
    }

    /// Those in force, the entry they are by, and those before.
    fn members(&self, first: Members) -> (Members, (u8, u8), Members) {
        let mut found = (first, (0, 0), first);
        for (at, entry) in (1..).zip(&self.log) {
            if let Some(members) = entry.members {
                found = (members, (entry.term, at), found.0);
            }
        }
        found
    }

    fn cut(&mut self, len: u8) {
        self.log.truncate(len.into());
        self.holes &= below(len);
        self.owes &= self.holes != 0;
    }

    fn restart(&mut self) {
        (self.role, self.committed, self.owes) = (Role::Follower, 0, self.holes != 0);
    }

    fn follow(&mut self, term: u8) {
        if term > self.term {
            (self.term, self.vote) = (term, None);
        }
        self.role = Role::Follower;
    }
}

/// The entries in front of the one that has so many before it.
const fn below(len: u8) -> Entries {
    (1 << len) - 1
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Message {
    Ballot {
        from: u8,
        to: u8,
        term: u8,
        last: (u8, u8),
    },
    Vote {
        from: u8,
        to: u8,
        term: u8,
    },
    /// All of a leader's log, of which the entries behind `base` are given.
    Append {
        from: u8,
        to: u8,
        term: u8,
        base: u8,
        log: Vec<Entry>,
        committed: u8,
    },
    Acknowledged {
        from: u8,
        to: u8,
        term: u8,
        through: u8,
    },
}

impl Message {
    fn to(&self) -> usize {
        let (Self::Ballot { to, .. }
        | Self::Vote { to, .. }
        | Self::Append { to, .. }
        | Self::Acknowledged { to, .. }) = self;
        usize::from(*to)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    Stand(usize),
    Arrive(Message),
    Propose(usize),
    Change(usize),
    /// A node is given the first entry that it has lost by another.
    Refill(usize, usize),
    /// The power fails.
    Crash(usize),
    /// The bytes of an entry are lost, which is found out at once.
    Lose(usize, u8),
    /// The end of the log is lost, and what it was.
    Forget(usize),
    /// It has all that its leader has.
    OpenGate(usize, usize),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    nodes: [Node; NODES],
    /// Whatever was said may arrive at any time, and again.
    said: BTreeSet<Message>,
    /// What was committed anywhere, and in which term.
    committed: Vec<(Entry, u8)>,
    /// Who led each term.
    leaders: Vec<Option<usize>>,
    proposals: u8,
    crashes: u8,
    /// What may still become of each disk.
    damages: [Option<Damage>; NODES],
    is_changed: bool,
    broken: Option<&'static str>,
}

/// One who has lost an entry is asked by another, whose log ends before its own, for its vote.
struct Question {
    other: Set,
    /// Whether what is lost lies behind all that is known to be committed.
    is_open: bool,
    members: Members,
    /// Whether the other one's log reaches to the entry that these members are by.
    reaches: bool,
}

type Rule = fn(&Question) -> bool;

struct Trial {
    rule: Rule,
    /// Those who are there, as voters or not.
    nodes: Set,
    first: Members,
    next: Option<Members>,
    damages: [Option<Damage>; NODES],
    terms: u8,
    proposals: u8,
    crashes: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Damage {
    /// The bytes of an entry.
    Loses,
    /// The end of the log, and what it was.
    Forgets,
}

const fn settled(voters: Set) -> Members {
    Members { voters, outgoing: 0 }
}

const fn bit(node: usize) -> Set {
    1 << node
}

impl Trial {
    fn begin(&self) -> State {
        let log = vec![Entry { term: 1, members: None }];
        let node = Node {
            term: 1,
            vote: None,
            log: log.clone(),
            holes: 0,
            owes: false,
            is_gated: false,
            committed: 1,
            role: Role::Follower,
        };
        let mut nodes = [node.clone(), node.clone(), node];
        nodes[0].role = Role::Leader([1; NODES]);
        nodes[0].log.push(log[0]);
        let mut leaders = vec![None; usize::from(self.terms) + 1];
        leaders[1] = Some(0);
        let mut state = State {
            nodes,
            said: BTreeSet::new(),
            committed: log.into_iter().map(|entry| (entry, 1)).collect(),
            leaders,
            proposals: self.proposals,
            crashes: self.crashes,
            damages: self.damages,
            is_changed: self.next.is_none(),
            broken: None,
        };
        self.lead(&mut state, 0);
        state
    }

    fn members(&self, node: &Node) -> Members {
        node.members(self.first).0
    }

    fn may_stand(&self, node: &Node, own: usize) -> bool {
        let (members, by, before) = node.members(self.first);
        let is_voter = members.all() & bit(own) != 0;
        let is_needed = is_voter || by.1 > node.committed && before.all() & bit(own) != 0;
        let is_whole = node.hole().is_none_or(|hole| !node.owes && hole < node.committed);
        is_needed && is_whole && !node.is_gated && !matches!(node.role, Role::Leader(_))
    }

    fn would_vote(&self, node: &Node, other: usize, last: (u8, u8)) -> bool {
        if last >= node.last() {
            return true;
        }
        let Some(hole) = node.hole() else { return false };
        let (members, by, _) = node.members(self.first);
        (self.rule)(&Question {
            other: bit(other),
            is_open: hole >= node.committed,
            members,
            reaches: last >= by,
        })
    }

    fn stand(&self, state: &mut State, own: usize) {
        let node = &mut state.nodes[own];
        node.follow(node.term + 1);
        (node.vote, node.role) = (Some(own as u8), Role::Candidate(bit(own)));
        let (from, term, last) = (own as u8, node.term, node.last());
        let voters = self.members(node).all() & !bit(own);
        let to = (0..NODES).filter(|to| voters & bit(*to) != 0);
        state.said.extend(to.map(|to| Message::Ballot { from, to: to as u8, term, last }));
        self.count(state, own);
    }

    fn on_ballot(&self, state: &mut State, own: usize, from: u8, term: u8, last: (u8, u8)) {
        if term < state.nodes[own].term || state.nodes[own].is_gated {
            return;
        }
        if term > state.nodes[own].term {
            state.nodes[own].follow(term);
        }
        let is_free = state.nodes[own].vote.is_none_or(|vote| vote == from);
        if is_free && self.would_vote(&state.nodes[own], from.into(), last) {
            state.nodes[own].vote = Some(from);
            state.said.insert(Message::Vote { from: own as u8, to: from, term });
        }
    }

    fn count(&self, state: &mut State, own: usize) {
        let node = &state.nodes[own];
        let Role::Candidate(votes) = node.role else { return };
        if !self.members(node).is_quorum(votes) {
            return;
        }
        let term = node.term;
        let lacks = |at: &usize| {
            let (entry, by) = state.committed[*at];
            by < term && node.log.get(*at) != Some(&entry)
        };
        if let Some(lacking) = (0..state.committed.len()).find(lacks) {
            match (0..=lacking).all(|at| state.is_there(at)) {
                true => state.broken = Some("a leader lacks what is committed"),
                false => state.committed.truncate(lacking),
            }
        }
        let known = state.leaders.get_mut(usize::from(term));
        if known.is_some_and(|known| *known.get_or_insert(own) != own) {
            state.broken = Some("two lead one term");
        }
        let node = &mut state.nodes[own];
        node.role = Role::Leader([0; NODES]);
        node.log.push(Entry { term, members: None });
        self.lead(state, own);
    }

    /// Commits what a quorum has, leaves a joint membership, and hands on what there is.
    fn lead(&self, state: &mut State, own: usize) {
        let node = &mut state.nodes[own];
        let Role::Leader(known) = node.role else { return };
        let (members, by, _) = node.members(self.first);
        let len = node.log.len() as u8;
        let has = |through: u8| {
            let peers = (0..NODES).filter(|peer| *peer == own || known[*peer] >= through);
            peers.map(bit).sum()
        };
        let is_own = |through: u8| node.log[usize::from(through) - 1].term == node.term;
        let mut all = (node.committed + 1..=len).rev();
        let through = all.find(|through| is_own(*through) && members.is_quorum(has(*through)));
        node.committed = through.unwrap_or(node.committed);
        if members.outgoing != 0 && by.1 <= node.committed {
            let members = Some(settled(members.voters));
            node.log.push(Entry { term: node.term, members });
        }
        for at in 0..usize::from(node.committed) {
            match state.committed.get(at) {
                Some((entry, _)) if *entry != node.log[at] => {
                    state.broken = Some("another entry is committed");
                }
                Some(_) => {}
                None => state.committed.push((node.log[at], node.term)),
            }
        }
        let is_peer = |peer: usize| peer != own && self.nodes & bit(peer) != 0;
        for (peer, base) in known.into_iter().enumerate().filter(|(peer, _)| is_peer(*peer)) {
            let behind = node.holes & !below(base);
            let end = if behind == 0 { node.log.len() } else { behind.trailing_zeros() as usize };
            state.said.insert(Message::Append {
                from: own as u8,
                to: peer as u8,
                term: node.term,
                base,
                log: node.log[..end].to_vec(),
                committed: node.committed,
            });
        }
    }

    fn arrive(&self, state: &mut State, own: usize, message: Message) {
        let node = &mut state.nodes[own];
        match message {
            Message::Ballot { from, term, last, .. } => {
                self.on_ballot(state, own, from, term, last);
            }
            Message::Vote { from, term, .. } if term == node.term => {
                if let Role::Candidate(votes) = &mut node.role {
                    *votes |= bit(from.into());
                    self.count(state, own);
                }
            }
            Message::Append { from, term, base, log, committed, .. } if term >= node.term => {
                node.follow(term);
                let given = usize::from(base);
                if node.log.get(..given) != Some(&log[..given]) {
                    return;
                }
                let differs = |at: &usize| node.log.get(*at).is_some_and(|own| *own != log[*at]);
                if let Some(at) = (given..log.len()).find(differs) {
                    if at < usize::from(node.committed) {
                        state.broken = Some("what is known to be committed is cut");
                    }
                    node.cut(at as u8);
                }
                let through = log.len() as u8;
                node.holes &= !(below(through) & !below(base));
                node.owes &= node.holes != 0;
                if log.len() > node.log.len() {
                    node.log = log;
                }
                node.committed = node.committed.max(committed.min(through));
                let through = if node.owes { through.min(node.whole()) } else { through };
                state.said.insert(Message::Acknowledged {
                    from: own as u8,
                    to: from,
                    term,
                    through,
                });
            }
            Message::Acknowledged { from, term, through, .. } if term == node.term => {
                if let Role::Leader(known) = &mut node.role {
                    let known = &mut known[usize::from(from)];
                    *known = (*known).max(through);
                    self.lead(state, own);
                }
            }
            Message::Vote { .. } | Message::Append { .. } | Message::Acknowledged { .. } => {}
        }
    }

    fn append(&self, state: &mut State, own: usize, members: Option<Members>) {
        let node = &mut state.nodes[own];
        node.log.push(Entry { term: node.term, members });
        self.lead(state, own);
    }

    /// Whether one who has lost something needs nobody else to commit.
    fn was_alone(&self, state: &State) -> bool {
        (0..).zip(&state.nodes).any(|(own, node)| {
            let Members { voters, outgoing } = self.members(node);
            node.holes != 0 && bit(own) == if outgoing == 0 { voters } else { outgoing }
        })
    }

    /// Whether one comes to lead, and commits all that it has, once nothing else goes wrong.
    fn recovers(&self, state: &State) -> bool {
        let mut state = state.clone();
        state.said.clear();
        state.nodes.iter_mut().for_each(|node| node.role = Role::Follower);
        for _ in 0..2 {
            for own in 0..NODES {
                for from in 0..NODES {
                    state.refill(own, from);
                    state.refill(from, own);
                }
            }
            for own in 0..NODES {
                if !self.may_stand(&state.nodes[own], own) {
                    continue;
                }
                let term = state.nodes.iter().map(|node| node.term).max();
                state.nodes[own].term = term.unwrap_or(0);
                self.stand(&mut state, own);
                let mut heard = BTreeSet::new();
                while let Some(message) = state.said.difference(&heard).next().cloned() {
                    self.arrive(&mut state, message.to(), message.clone());
                    heard.insert(message);
                }
                let node = &state.nodes[own];
                if matches!(node.role, Role::Leader(_)) && node.last().1 == node.committed {
                    return true;
                }
            }
        }
        false
    }
}

impl State {
    /// Whether what was committed there is whole somewhere.
    fn is_there(&self, at: usize) -> bool {
        let is_whole = |node: &Node| node.holes & 1 << at == 0;
        let mut nodes = self.nodes.iter();
        nodes.any(|node| is_whole(node) && node.log.get(at) == Some(&self.committed[at].0))
    }

    /// Whether more was lost than can be made good.
    fn is_beyond_repair(&self) -> bool {
        self.nodes.iter().any(|node| node.is_gated)
            || self.nodes.iter().filter(|node| node.holes != 0).count() > 1
            || !(0..self.committed.len()).all(|at| self.is_there(at))
    }

    /// What can have no effect any more is as good as not said.
    fn drop_vain(&mut self) {
        let (nodes, damages) = (&self.nodes, &self.damages);
        self.said.retain(|said| {
            let node = &nodes[said.to()];
            match (said, &node.role) {
                (Message::Ballot { term, .. }, _) if *term == node.term => node.vote.is_none(),
                (Message::Ballot { term, .. }, _) => *term > node.term,
                (Message::Append { term, log, committed, .. }, Role::Follower)
                    if *term == node.term && damages[said.to()].is_none() =>
                {
                    let is_whole = node.holes == 0 && !node.is_gated;
                    !is_whole || !node.log.starts_with(log) || node.committed < *committed
                }
                (Message::Append { term, .. }, _) => *term >= node.term,
                (Message::Vote { from, term, .. }, Role::Candidate(votes)) => {
                    *term == node.term && votes & bit((*from).into()) == 0
                }
                (Message::Acknowledged { from, term, through, .. }, Role::Leader(known)) => {
                    *term == node.term && *through > known[usize::from(*from)]
                }
                (Message::Vote { .. } | Message::Acknowledged { .. }, _) => false,
            }
        });
    }

    fn refill(&mut self, own: usize, from: usize) {
        while let Some(hole) = self.nodes[own].hole() {
            let (at, theirs) = (usize::from(hole), &self.nodes[from]);
            let is_held = theirs.holes & 1 << hole == 0;
            if !is_held || theirs.log.get(at) != Some(&self.nodes[own].log[at]) {
                return;
            }
            let node = &mut self.nodes[own];
            node.holes &= !(1 << hole);
            node.owes &= node.holes != 0;
        }
    }
}

impl Model for Trial {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.begin()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.broken.is_some() {
            return;
        }
        steps.extend(state.said.iter().cloned().map(Step::Arrive));
        for own in (0..NODES).filter(|own| self.nodes & bit(*own) != 0) {
            let node = &state.nodes[own];
            let others = (0..NODES).filter(|other| *other != own);
            if node.term < self.terms && self.may_stand(node, own) {
                steps.push(Step::Stand(own));
            }
            if matches!(node.role, Role::Leader(_)) {
                let is_first = node.log.iter().all(|entry| entry.members.is_none());
                let has_committed = node.committed > 0
                    && node.log[usize::from(node.committed) - 1].term == node.term;
                if state.proposals > 0 {
                    steps.push(Step::Propose(own));
                }
                if !state.is_changed && is_first && has_committed {
                    steps.push(Step::Change(own));
                }
            }
            if node.holes != 0 {
                steps.extend(others.clone().map(|from| Step::Refill(own, from)));
            }
            if node.is_gated {
                steps.extend(others.map(|from| Step::OpenGate(own, from)));
            }
            if state.crashes > 0 {
                steps.push(Step::Crash(own));
            }
            match state.damages[own] {
                Some(Damage::Loses) => {
                    steps.extend((0..node.log.len() as u8).map(|at| Step::Lose(own, at)));
                }
                Some(Damage::Forgets) => steps.push(Step::Forget(own)),
                None => {}
            }
        }
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        match step {
            Step::Stand(own) => self.stand(&mut state, own),
            Step::Arrive(message) => self.arrive(&mut state, message.to(), message),
            Step::Propose(own) => {
                state.proposals -= 1;
                self.append(&mut state, own, None);
            }
            Step::Change(own) => {
                state.is_changed = true;
                let voters = self.next?.voters;
                let members = Members { voters, outgoing: self.first.voters };
                self.append(&mut state, own, Some(members));
            }
            Step::Refill(own, from) => state.refill(own, from),
            Step::Crash(own) => {
                state.crashes -= 1;
                state.nodes[own].restart();
            }
            Step::Lose(own, at) => {
                state.damages[own] = None;
                state.nodes[own].holes |= 1 << at;
            }
            Step::Forget(own) => {
                state.damages[own] = None;
                let node = &mut state.nodes[own];
                node.cut(0);
                node.restart();
                node.is_gated = true;
                // It says that what it acknowledged before counts no more.
                state.said.retain(|said| match said {
                    Message::Acknowledged { from, .. } => usize::from(*from) != own,
                    _ => true,
                });
                for node in &mut state.nodes {
                    if let Role::Leader(known) = &mut node.role {
                        known[own] = 0;
                    }
                }
            }
            Step::OpenGate(own, from) => {
                let (node, leader) = (&state.nodes[own], &state.nodes[from]);
                let leads = matches!(leader.role, Role::Leader(_)) && leader.term == node.term;
                if !leads || node.log != leader.log || node.holes != 0 {
                    return None;
                }
                state.nodes[own].is_gated = false;
            }
        }
        state.drop_vain();
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SAFE, |_: &Self, state: &State| state.broken.is_none()),
            Property::always(LIVE, |trial: &Self, state: &State| {
                state.nodes.iter().all(|node| node.holes == 0)
                    || state.broken.is_some()
                    || state.is_beyond_repair()
                    || trial.was_alone(state)
                    || trial.recovers(state)
            }),
        ]
    }
}

/// Whether nothing is committed by them without the other one.
const fn is_needed(voters: Set, asked: &Question) -> bool {
    voters & asked.other != 0 && voters.count_ones() <= 2
}

/// The engine's.
const fn of_two(asked: &Question) -> bool {
    let Members { voters, outgoing } = asked.members;
    let is_begun = outgoing == 0 || asked.reaches;
    asked.is_open && (is_needed(outgoing, asked) || is_begun && is_needed(voters, asked))
}

const SAFE: &str = "nothing committed is lost";
const LIVE: &str = "somebody comes to lead";

const TWO: Trial = Trial {
    rule: of_two,
    nodes: A | B,
    first: settled(A | B),
    next: None,
    damages: [Some(Damage::Loses), None, None],
    terms: 3,
    proposals: 1,
    crashes: 1,
};
/// Changes have many more states.
const CHANGING: Trial = Trial { terms: 2, proposals: 0, ..TWO };
const THREE_TO_TWO: Trial = Trial {
    nodes: A | B | C,
    first: settled(A | B | C),
    next: Some(settled(A | B)),
    crashes: 0,
    ..CHANGING
};
const TWO_TO_THREE: Trial =
    Trial { first: settled(A | B), next: Some(settled(A | B | C)), ..THREE_TO_TWO };

/// Goes through all of it, and says which promises are broken.
fn broken(trial: Trial, states_at_least: usize) -> Vec<&'static str> {
    let checker = trial.checker().spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{states} states, depth {}", checker.max_depth());
    let mut broken: Vec<_> = checker.discoveries().into_keys().collect();
    broken.sort_unstable();
    assert!(broken.len() == 2 || states >= states_at_least, "{states} states");
    broken
}

#[test]
fn two_voters() {
    assert_eq!(broken(TWO, 10_000), [""; 0]);
    assert_eq!(broken(Trial { rule: |_| false, ..TWO }, 10_000), [LIVE], "nobody could be elected");
}

#[test]
fn two_voters_and_a_learner() {
    assert_eq!(broken(Trial { nodes: A | B | C, ..CHANGING }, 5_000), [""; 0]);
}

/// What was committed is lost only if both lose it. Whether somebody leads then is not asked.
#[test]
fn two_voters_that_both_lose_something() {
    for other in [Damage::Loses, Damage::Forgets] {
        let damages = [Some(Damage::Loses), Some(other), None];
        assert_eq!(broken(Trial { damages, proposals: 0, ..TWO }, 10_000), [""; 0]);
    }
}

/// Only of two is the other one always among those who have acknowledged it.
#[test]
fn not_any_number_of_voters() {
    let three = Trial { nodes: A | B | C, first: settled(A | B | C), ..CHANGING };
    assert_eq!(broken(Trial { rule: |asked| asked.is_open, ..three }, 0), [SAFE]);
    assert_eq!(broken(three, 10_000), [""; 0]);
}

#[test]
fn two_voters_of_which_one_leaves() {
    for stays in [A, B] {
        let one = Trial { next: Some(settled(stays)), ..CHANGING };
        assert_eq!(broken(one, 4_000), [""; 0]);
    }
    let settled_alone = |asked: &Question| asked.members.outgoing == 0 && of_two(asked);
    let one = Trial { next: Some(settled(B)), rule: settled_alone, ..CHANGING };
    assert_eq!(broken(one, 4_000), [LIVE], "nobody could be elected meanwhile");
}

/// Before the entry that makes them two others may have committed something.
#[test]
fn three_voters_that_become_two() {
    assert_eq!(broken(THREE_TO_TWO, 10_000), [""; 0]);
    let at_once = |asked: &Question| asked.is_open && is_needed(asked.members.voters, asked);
    assert!(broken(Trial { rule: at_once, ..THREE_TO_TWO }, 0).contains(&SAFE));
}

/// Not mended: who has lost the entry that ends the change, or what lies behind it, cannot know what it has
/// committed with the third; and without its vote nobody leads who does not have that entry.
#[test]
fn two_voters_that_become_three() {
    assert_eq!(broken(TWO_TO_THREE, 10_000), [LIVE]);
}

#[test]
fn two_voters_of_which_one_is_replaced() {
    for (first, next) in [(A | C, A | B), (A | B, A | C), (A | B, B | C)] {
        let (first, next) = (settled(first), Some(settled(next)));
        assert_eq!(broken(Trial { first, next, ..THREE_TO_TWO }, 10_000), [""; 0]);
    }
}
