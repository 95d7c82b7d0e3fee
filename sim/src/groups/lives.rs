//! Nodes that start, groups that come to be and go, and the engines that nodes have of them.

use super::{
    CLUSTER, Coming, Group, Groups, SITE_ARRIVE, SITE_ELECTION, SITE_GROUP, SITE_LIFE, Spread,
    node_id, seats::Seat,
};
use crate::{
    changes::Changes,
    client::{Requests, Workload},
    harm::Harmed,
    node::Telling,
    oracle::{Checked, Oracle},
    plan::{MS, US},
    seat,
    world::Acknowledged,
};
use bytes::Bytes;
use lakebed::{
    Config, Engine, Event, GroupId, Host, HostConfig, HostEvent, Member, Membership, Start,
    StateMachine, entry::Seed,
};
use std::sync::Arc;

impl<M: StateMachine, W: Workload> Groups<M, W> {
    /// A group comes to be, with members that are drawn.
    pub(super) fn found(&mut self, group: GroupId) {
        let drawn_from = self.nodes.len() - self.plan.joining;
        let mut all: Vec<usize> = (0..drawn_from).collect();
        let (firsts, others) = all.split_at(all.len().min(3));
        let few = match self.census.spread {
            Spread::Everywhere => all.len(),
            Spread::Apart if !self.census.is_to_go(group) && !others.is_empty() => {
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
        let mut oracle = Oracle::new(self.nodes.len(), seed, Arc::clone(&founders), machine);
        oracle.hold_to(&self.plan);
        let founded = Group {
            oracle,
            founders,
            drawn_from,
            hosts: all.into_iter().collect(),
            changes: Changes::default(),
            requests: Requests::default(),
            told: Acknowledged::default(),
            harmed: Harmed::default(),
            is_removed: false,
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
        node.wall = None;
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
        config.first_segment_bytes = self.plan.first_segment_bytes;
        config.tuning = self.plan.tuning.clone();
        // Each node comes before the next.
        config.tuning.election_delay *= at as u32;
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
        seat.begin((self.machine)());
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
        self.note(None, Some(group), || "is created".into());
        self.found(group);
        for node in 0..self.nodes.len() {
            if self.hosted_by(node).contains(&group) {
                let at = self.now + self.process.lane(SITE_ARRIVE, node as u32).delay(US, MS);
                let life = self.nodes[node].life;
                self.schedule(at, Coming::Seat { node, group, life });
            }
        }
        Ok(())
    }

    /// A group is removed for good: each of its engines stops, and its disk is thrown away.
    pub(super) fn remove(&mut self, group: GroupId) -> Checked {
        self.note(None, Some(group), || "is removed".into());
        let Some(gone) = self.groups.get_mut(&group).filter(|gone| !gone.is_removed) else {
            return Ok(());
        };
        gone.is_removed = true;
        self.stats.removals += 1;
        for node in 0..self.nodes.len() {
            self.feed(node, [HostEvent::Group(group, Event::Stop { hand_over: false })])?;
        }
        Ok(())
    }
}
