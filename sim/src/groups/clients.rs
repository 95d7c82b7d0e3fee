//! Clients of many groups: each has one request at a time, mostly to a few groups that are busy for
//! a while, so that the others go to rest.

use super::{Coming, Group, Groups, SITE_CLIENT, SITE_OPERATION, SITE_SERVICE, of_group};
use crate::{
    client::{self, COMPANION, Errand, Fate, Op, Request, Workload, next_of_kind},
    oracle::Checked,
    plan::MS,
    witness::{PREFIX_BYTES, digest},
};
use bytes::Bytes;
use lakebed::{
    Batch, Event, GroupId, HostEvent, LogIndex, Outcome, ReadMode, Refusal, RequestId, Requests,
    StateMachine,
};
use std::{collections::BTreeMap, time::Duration};

/// How long a client waits for an answer.
const PATIENCE: u64 = 300 * MS;
/// How long the same groups are busy.
const SEASON: u64 = 250 * MS;

/// One client.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    /// Rises with each thing it begins.
    round: u32,
    /// How many operations were drawn for it.
    pub(super) asked: u32,
    waits: Option<(GroupId, RequestId)>,
    /// Who leads, as it was told.
    leaders: BTreeMap<GroupId, usize>,
    is_dismissed: bool,
}

impl<M: StateMachine, W: Workload> Groups<M, W> {
    pub(super) fn thought(&mut self, at: usize, round: u32) -> Checked {
        let client = &self.clients[at];
        if client.round != round || client.is_dismissed {
            return Ok(());
        }
        let Some(group) = self.choose(at) else {
            self.think(at);
            return Ok(());
        };
        let members: Vec<usize> = self.members_of(group);
        let draw = self.draws.lane(SITE_CLIENT, at as u32);
        let any = *draw.pick(&members);
        let node = self.clients[at].leaders.get(&group).copied().unwrap_or(any);
        let seated = self.nodes[node].host.as_ref().is_some_and(|host| host.core(group).is_some());
        if !seated {
            self.clients[at].leaders.remove(&group);
            self.think(at);
            return Ok(());
        }
        let lane = self.draws.lane(SITE_OPERATION, at as u32);
        let op = client::operation(&self.plan, at, lane, &mut self.workload);
        if !self.is_asked(at) {
            // As many rounds as if it were: how the others are asked for does not change.
            self.clients[at].round += 1;
            self.think(at);
            return Ok(());
        }
        let (id, event) = self.begin_request(at, node, group, op);
        let client = &mut self.clients[at];
        client.waits = Some((group, id));
        client.round += 1;
        let round = client.round;
        self.schedule(self.now + PATIENCE, Coming::Patience { client: at, round });
        self.feed(node, [HostEvent::Group(group, event)])
    }

    /// Whether the operation that was just drawn for a client is to be made.
    fn is_asked(&mut self, at: usize) -> bool {
        self.clients[at].asked += 1;
        self.healed.is_some() || self.plan.clients[at].has(self.clients[at].asked)
    }

    /// One of the season's groups, or sometimes any.
    fn choose(&mut self, at: usize) -> Option<GroupId> {
        let living = self.groups.iter().filter(|(_, group)| !group.is_removed);
        let living: Vec<GroupId> = living.map(|(id, _)| *id).collect();
        let draw = self.draws.lane(SITE_CLIENT, at as u32);
        if draw.ratio(1, 24) {
            return (!living.is_empty()).then(|| *draw.pick(&living));
        }
        let first = (self.now / SEASON) as usize * 7;
        let pick = draw.below(2) as usize;
        (!living.is_empty()).then(|| living[(first + pick) % living.len()])
    }

    /// Makes a request of a node now, of nobody's.
    pub fn request(
        &mut self,
        node: usize,
        group: GroupId,
        op: Op,
    ) -> Result<RequestId, crate::Violation> {
        let (id, event) = self.begin_request(usize::MAX, node, group, op);
        self.feed(node, [HostEvent::Group(group, event)])?;
        Ok(id)
    }

    /// As in the world of one group: a write, or a read, of the workload's.
    pub(super) fn request_of_kind(
        &mut self,
        node: usize,
        group: GroupId,
        is_write: bool,
    ) -> Result<Option<RequestId>, crate::Violation> {
        let draw = self.draws.lane(SITE_SERVICE, node as u32);
        let op = next_of_kind(&mut self.workload, draw, is_write);
        op.map(|op| self.request(node, group, op)).transpose()
    }

    /// The groups of which a request has not ended.
    pub(super) fn groups_with_open_requests(&self) -> Vec<GroupId> {
        let has_open = |group: &Group<M>| group.requests.open().is_some();
        self.groups.iter().filter(|(_, group)| has_open(group)).map(|(id, _)| *id).collect()
    }

    /// How far a request has come.
    #[must_use]
    pub fn fate(&self, group: GroupId, id: RequestId) -> Fate {
        self.groups[&group].requests.of(id).fate
    }

    fn begin_request(
        &mut self,
        client: usize,
        node: usize,
        id: GroupId,
        op: Op,
    ) -> (RequestId, Event) {
        self.stats.requests += 1;
        let group = self.groups.get_mut(&id).expect("only what was founded is asked");
        let floor = group.oracle.acknowledged();
        let (is_write, bytes) = match op {
            Op::Propose(command) => (true, command),
            Op::Read(query) => (false, query),
        };
        let query = if is_write { Bytes::new() } else { Bytes::from(bytes.clone()) };
        let (errand, command, fate) = (Errand::Plain, digest(&bytes), Fate::Open);
        let request = Request { client, node, is_write, errand, query, command, floor, fate };
        let request = group.requests.begin(request);
        // What is nobody's is asked for alone.
        let number = self.clients.get(client).map(|client| client.round);
        let mut manner = number.map(|number| client::manner(&self.plan, client, number));
        let event = if is_write {
            let mut batch = Batch::with_capacity(bytes.len() + PREFIX_BYTES + 4);
            push(&mut batch, request, &bytes);
            let more = manner
                .as_mut()
                .map(|manner| client::companions(&self.plan, manner, &mut self.workload));
            for command in more.unwrap_or_default() {
                let (client, query, is_write) = (COMPANION, Bytes::new(), true);
                let bytes = command;
                let command = digest(&bytes);
                let more = Request { client, node, is_write, errand, query, command, floor, fate };
                push(&mut batch, group.requests.begin(more), &bytes);
                self.stats.requests += 1;
            }
            Event::Propose { first: request, time: self.nodes[node].clock.wall(self.now), batch }
        } else {
            let fresh = client::fresh(&self.plan);
            let mode = manner.map_or(fresh, |mut draw| client::mode(&self.plan, &mut draw));
            Event::Read { requests: Requests::one(request), mode }
        };
        self.hold_to_what_is_heard(node, id, &event);
        (request, event)
    }

    /// What a local read must know at least, as of now.
    fn hold_to_what_is_heard(&mut self, node: usize, id: GroupId, event: &Event) {
        let &Event::Read { requests, mode: ReadMode::Local { stale_max } } = event else { return };
        let as_of = self.nodes[node].heard.known(&self.plan, self.now, stale_max);
        let Some(group) = self.groups.get_mut(&id) else { return };
        for request in requests.ids() {
            group.requests.of_mut(request).floor = group.told.before(as_of);
        }
    }

    /// A read that waited for its node's turn is answered by what the node hears in that turn.
    pub(super) fn judge_by_what_is_heard_now(&mut self, node: usize, events: &[HostEvent]) {
        for event in events {
            if let HostEvent::Group(id, event) = event {
                self.hold_to_what_is_heard(node, *id, event);
            }
        }
    }

    pub(super) fn respond(
        &mut self,
        at: usize,
        id: GroupId,
        requests: Requests,
        outcome: &Outcome,
    ) -> Checked {
        let fate = match outcome {
            Outcome::Refused(_) => Fate::Refused,
            _ => Fate::Unknown,
        };
        for request in requests.ids() {
            self.changed(at, id, request, outcome)?;
            let asked = self.groups[&id].requests.of(request).client;
            if let Some(client) = self.clients.get_mut(asked) {
                match outcome {
                    Outcome::Refused(Refusal::NotLeader { hint: Some(leader) }) => {
                        client.leaders.insert(id, leader.0 as usize - 1);
                    }
                    _ if client.leaders.get(&id) == Some(&at) => drop(client.leaders.remove(&id)),
                    _ => {}
                }
            }
            self.end(id, request, fate)?;
        }
        Ok(())
    }

    /// A request ended; its client, if it still waits, goes on.
    pub(super) fn end(&mut self, id: GroupId, request: RequestId, fate: Fate) -> Checked {
        let group = self.groups.get_mut(&id).expect("only what was founded is asked");
        let checked = group.oracle.on_end(request, group.requests.of(request), fate);
        checked.map_err(|violation| of_group(id, violation))?;
        group.told.add(self.now, group.oracle.acknowledged());
        group.requests.of_mut(request).fate = fate;
        let client = group.requests.of(request).client;
        self.stats.answered += u64::from(matches!(fate, Fate::Answered(_)));
        if self.clients.get(client).is_some_and(|client| client.waits == Some((id, request))) {
            self.clients[client].waits = None;
            self.think(client);
        }
        Ok(())
    }

    fn think(&mut self, at: usize) {
        let think = self.plan.think;
        let delay = self.draws.lane(SITE_CLIENT, at as u32).delay(think.least, think.tail);
        self.clients[at].round += 1;
        let round = self.clients[at].round;
        self.schedule(self.now + delay, Coming::Think { client: at, round });
    }

    pub(super) fn out_of_patience(&mut self, at: usize, round: u32) -> Checked {
        let client = &mut self.clients[at];
        if client.round == round
            && let Some((group, _)) = client.waits.take()
        {
            client.leaders.remove(&group);
            self.stats.unknown += 1;
            self.think(at);
        }
        Ok(())
    }

    /// A group's engine is gone from a node, and with it the answers to what was asked of it.
    pub(super) fn abandon_requests(&mut self, node: usize, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let gone: Vec<usize> = group
            .requests
            .open_at(node)
            .map(|request| {
                request.fate = Fate::Unknown;
                request.client
            })
            .collect();
        for client in gone {
            let waits = self.clients.get(client).and_then(|client| client.waits);
            let is_gone = waits.is_some_and(|(group, request)| {
                group == id && self.groups[&id].requests.of(request).node == node
            });
            if is_gone {
                self.clients[client].waits = None;
                self.clients[client].leaders.remove(&id);
                self.stats.unknown += 1;
                self.think(client);
            }
        }
    }

    /// No client begins anything any more, and no members are to change.
    pub fn dismiss_clients(&mut self) {
        for client in &mut self.clients {
            client.is_dismissed = true;
            client.waits = None;
        }
        self.want_no_changes();
    }

    /// The last log position of a group that anybody was told of.
    #[must_use]
    pub fn acknowledged(&self, group: GroupId) -> LogIndex {
        self.groups[&group].oracle.acknowledged()
    }

    /// How long a group must be quiet before it rests.
    pub(super) const fn rest_after(&self) -> Duration {
        self.plan.tuning.hibernate_after
    }
}

fn push(batch: &mut Batch, id: RequestId, command: &[u8]) {
    batch.push_with(|buf| {
        buf.extend_from_slice(&id.0.to_le_bytes());
        buf.extend_from_slice(command);
    });
}
