//! Nodes that start, groups that come to be and go, and the engines that nodes have of them.

use super::{
    CLUSTER, Coming, Group, Groups, Node, SITE_AGAIN, SITE_ARRIVE, SITE_ELECTION, SITE_GROUP,
    SITE_LIFE, Spread, node_id, seats::Seat,
};
use crate::{
    client::Workload,
    harm::Harmed,
    node::Telling,
    oracle::{Checked, Oracle, Violation},
    plan::{MS, US},
    seat,
    world::Acknowledged,
};
use bytes::Bytes;
use lakebed::{
    Config, Engine, Event, GroupId, Host, HostConfig, HostEvent, Member, Membership, Start,
    StateMachine, entry::Seed,
};
use std::{collections::VecDeque, mem, sync::Arc};

/// How many messages of a group that is gone arrive when another has its id, and for how long.
const LINGERING_MAX: usize = 16;
const LINGERS: u64 = 300 * MS;

impl<M: StateMachine, W: Workload> Groups<M, W> {
    /// A group comes to be, with members that are drawn; of one that had its id before nothing is left.
    pub(super) fn found(&mut self, group: GroupId, former: Option<Group<M>>) {
        let life = former.as_ref().map_or(0, |former| former.life + 1);
        // Their numbers go on: what is late of a former one is known to be.
        let (requests, mut changes) =
            former.map(|former| (former.requests, former.changes)).unwrap_or_default();
        changes.clear();
        let drawn_from = self.nodes.len() - self.plan.joining;
        let mut all: Vec<usize> = (0..drawn_from).collect();
        let (firsts, others) = all.split_at(all.len().min(3));
        let few = match self.census.spread {
            Spread::Everywhere => all.len(),
            Spread::Apart if !self.census.is_to_go(group, life) && !others.is_empty() => {
                let side = if group.0.is_multiple_of(2) { firsts } else { others };
                all = side.to_vec();
                all.len()
            }
            Spread::Apart | Spread::Three => 3,
        };
        while all.len() > few {
            let lane = self.draws.lane(SITE_GROUP, group.0 as u32);
            all.remove(lane.below(all.len() as u64) as usize);
        }
        let member =
            |at: &usize| Member { id: node_id(*at), incarnation: 0, address: Bytes::new() };
        let founders = Arc::new(Membership::of(all.iter().map(member)));
        let seed = Seed::new(CLUSTER, group);
        let machine = seat::Seat::new((self.machine)(), None);
        let oracle = Oracle::new(self.nodes.len(), seed, Arc::clone(&founders), machine);
        let founded = Group {
            life,
            first: requests.next(),
            oracle,
            founders,
            drawn_from,
            hosts: all.into_iter().collect(),
            changes,
            requests,
            told: Acknowledged::default(),
            harmed: Harmed::default(),
            is_removed: false,
            lingering: VecDeque::new(),
        };
        self.groups.insert(group, founded);
    }

    /// A process starts, and with it each group that it is a member of.
    pub(super) fn start(&mut self, at: usize) -> Checked {
        let tuning = &self.plan.tuning;
        let config = HostConfig {
            cluster: CLUSTER,
            node: node_id(at),
            life: self.elections.lane(SITE_LIFE, at as u32).any(),
            heartbeat: tuning.heartbeat,
            silence_max: tuning.election.0,
        };
        let node = &mut self.nodes[at];
        node.life += 1;
        node.telling = Telling::default();
        node.host = Some(Host::new(config).expect("plans are configurations that work"));
        // What was removed while it was down.
        let groups = &self.groups;
        node.seats.retain(|id, _| groups.get(id).is_some_and(|group| !group.is_removed));
        for group in self.hosted_by(at) {
            self.sit(at, group)?;
        }
        self.connect(at);
        Ok(())
    }

    /// The groups that a node is to take part in.
    fn hosted_by(&self, at: usize) -> Vec<GroupId> {
        let is_host = |group: &Group<M>| group.hosts.contains(&at);
        let living = self.groups.iter().filter(|(_, group)| !group.is_removed && is_host(group));
        living.map(|(id, _)| *id).collect()
    }

    pub(super) fn engine(&self, group: GroupId, at: usize, seed: u64) -> Engine {
        let mut config = Config::new(group, node_id(at));
        config.disk_align = self.plan.geometry.align;
        config.segment_bytes = self.plan.segment_bytes;
        config.tuning = self.plan.tuning.clone();
        Engine::new(config, seed).expect("plans are configurations that work")
    }

    /// A group begins on a node that is up, unless it is there.
    pub(super) fn sit(&mut self, at: usize, id: GroupId) -> Checked {
        let is_host = |group: &&Group<M>| !group.is_removed && group.hosts.contains(&at);
        let wanted = self.groups.get(&id).filter(is_host);
        let Some(members) = wanted.map(|group| Arc::clone(&group.founders)) else {
            // It was removed while it was down here, or this node from it.
            self.nodes[at].seats.remove(&id);
            return Ok(());
        };
        let (resumes, life) = (self.nodes[at].paused_until, self.nodes[at].life);
        if self.now < resumes {
            self.schedule(resumes, Coming::Seat { node: at, group: id, life });
            return Ok(());
        }
        let seed = self.elections.lane(SITE_ELECTION, at as u32).any();
        let engine = self.engine(id, at, seed);
        let geometry = self.plan.geometry;
        let node = &mut self.nodes[at];
        let Some(host) = node.host.as_mut() else { return Ok(()) };
        if host.create(id, engine).is_err() {
            return Ok(());
        }
        let seat = node.seats.entry(id).or_insert_with(|| Seat::new(geometry, (self.machine)()));
        self.engines += 1;
        seat.begin(self.engines, (self.machine)());
        if node.is_full {
            seat.fill();
        }
        let start = if seat.is_formatted() {
            Start::Run
        } else if members.member(node_id(at)).is_some() {
            Start::Format { cluster: CLUSTER, members }
        } else {
            Start::Join { cluster: CLUSTER }
        };
        self.feed(at, [HostEvent::Group(id, Event::Start(start))])
    }

    /// A group is created on all its members that are up; the others find it when they start.
    pub(super) fn create(&mut self, group: GroupId) -> Checked {
        self.note(None, || format!("group {group} is created"));
        let former = self.groups.remove(&group);
        self.found(group, former);
        for node in 0..self.nodes.len() {
            if self.hosted_by(node).contains(&group) {
                let at = self.now + self.process.lane(SITE_ARRIVE, node as u32).delay(US, MS);
                let life = self.nodes[node].life;
                self.schedule(at, Coming::Seat { node, group, life });
            }
        }
        Ok(())
    }

    /// A group is removed: each of its engines stops, and its disk is thrown away.
    pub(super) fn remove(&mut self, group: GroupId) -> Checked {
        self.note(None, || format!("group {group} is removed"));
        let Some(gone) = self.groups.get_mut(&group).filter(|gone| !gone.is_removed) else {
            return Ok(());
        };
        gone.is_removed = true;
        let comes_again = gone.life < self.census.again;
        self.stats.removals += 1;
        for node in 0..self.nodes.len() {
            let is_here =
                |node: &Node<M>| node.host.as_ref().map(|host| host.core(group).is_some());
            if is_here(&self.nodes[node]) == Some(false) {
                // What one has left that ended by itself.
                self.nodes[node].seats.remove(&group);
            }
            self.feed(node, [HostEvent::Group(group, Event::Stop { hand_over: false })])?;
        }
        if comes_again {
            self.schedule_return(group);
        }
        Ok(())
    }

    fn schedule_return(&mut self, group: GroupId) {
        let draw = self.process.lane(SITE_AGAIN, group.0 as u32);
        let at = self.now + draw.delay(10 * US, MS);
        self.schedule(at, Coming::Return { group });
    }

    /// A group is created under an id that another had, as soon as no node has anything of that any more;
    /// what that has said may still be on its way. If it is to go as well, then before all is healed.
    pub(super) fn come_again(&mut self, group: GroupId) -> Checked {
        let last = self.busy_until();
        if self.now >= last {
            return Ok(());
        }
        if !self.is_gone(group) {
            self.schedule_return(group);
            return Ok(());
        }
        let former = self.groups.get_mut(&group).expect("only what was founded comes again");
        let (life, lingering) = (former.life + 1, mem::take(&mut former.lingering));
        if let Some((request, asked)) = former.requests.open() {
            let what = format!(
                "group {group} is gone from all nodes, and node {} never ended request {request}",
                asked.node + 1
            );
            return Err(Violation::of_cluster("every request ends", what));
        }
        self.stats.rebirths += 1;
        // Nobody was taken in by this one.
        self.cohort.retain(|id| *id != group);
        self.create(group)?;
        for what in lingering {
            let at = self.now + self.process.lane(SITE_AGAIN, group.0 as u32).below(LINGERS);
            self.schedule(at, what);
        }
        if self.census.is_to_go(group, life) {
            let draw = self.process.lane(SITE_AGAIN, group.0 as u32);
            // While its members meet, or when it has served.
            let most = if draw.ratio(1, 2) { 3 * MS } else { 200 * MS };
            let goes = self.now + draw.below(most);
            self.schedule(goes.min(last), Coming::Remove { group });
        }
        Ok(())
    }

    /// A message of a group that another is to follow may arrive once more when that one is there: so late
    /// that its members have met and gone on.
    pub(super) fn let_linger(&mut self, of: Option<(GroupId, u32)>, what: &Coming) {
        let Some((id, life)) = of.filter(|(_, life)| *life < self.census.again) else { return };
        let draw = self.process.lane(SITE_AGAIN, id.0 as u32);
        if !self.census.is_to_go(id, life) || !draw.ratio(1, 8) {
            return;
        }
        let group = self.groups.get_mut(&id).expect("it says something");
        group.lingering.push_back(what.clone());
        if group.lingering.len() > LINGERING_MAX {
            group.lingering.pop_front();
        }
    }

    /// Whether a message was sent by a group that is gone, to a node that has another of its id.
    pub(super) fn is_former_life(&self, to: usize, of: Option<(GroupId, u32)>) -> bool {
        let Some((group, life)) = of else { return false };
        let has_other =
            || self.nodes[to].host.as_ref().is_some_and(|host| host.core(group).is_some());
        self.groups[&group].life != life && has_other()
    }
}
