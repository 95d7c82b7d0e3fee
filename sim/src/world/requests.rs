//! Clients at work: one request at a time each, retried nowhere, so that every end is known; but
//! for those with sessions (`sessions`), each of whose retries is a request of its own.

use super::{Coming, SITE_CLIENT, SITE_OPERATION, SITE_SERVICE, World};
use crate::{
    client::{self, COMPANION, Client, Errand, Fate, Op, Request, Workload, next_of_kind},
    oracle::Checked,
    plan::MS,
    prng::Draw,
    seat,
    witness::{PREFIX_BYTES, digest},
};
use bytes::Bytes;
use lakebed::{
    Batch, Control, Event, LogIndex, NodeId, Outcome, ReadMode, Refusal, RequestId, Requests,
    StateMachine,
};
use std::time::Duration;

/// How long a client waits for an answer.
const PATIENCE: u64 = 300 * MS;
/// The client of requests that a story makes.
const STORY: usize = usize::MAX;

impl<M: StateMachine, W: Workload> World<M, W> {
    /// A client's thinking is over.
    pub(super) fn thought(&mut self, at: usize, round: u32) -> Checked {
        if self.clients[at].round == round { self.next_request(at) } else { Ok(()) }
    }

    /// A client's patience may be over: its only timer, as most requests end long before.
    pub(super) fn out_of_patience(&mut self, at: usize) -> Checked {
        let client = &mut self.clients[at];
        client.is_timed = false;
        if client.waits.is_none() {
            return Ok(());
        }
        if self.now < client.gives_up {
            self.time_patience(at);
            return Ok(());
        }
        client.waits = None;
        self.stats.unknown += 1;
        self.look_elsewhere(at);
        self.next_request(at)
    }

    fn time_patience(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if !std::mem::replace(&mut client.is_timed, true) {
            let gives_up = client.gives_up;
            self.schedule(gives_up, Coming::Patience { client: at });
        }
    }

    fn next_request(&mut self, at: usize) -> Checked {
        let node = self.clients[at].node;
        if !self.nodes[node].is_up() {
            self.look_elsewhere(at);
            self.think(at);
            return Ok(());
        }
        if let Some(sessions) = self.plan.sessions {
            return self.next_in_session(at, node, sessions);
        }
        let op = self.next_operation(at);
        if !self.is_asked(at) {
            self.think(at);
            return Ok(());
        }
        self.ask(at, node, op, Errand::Plain)
    }

    pub(super) fn next_operation(&mut self, at: usize) -> Op {
        let lane = self.draws.lane(SITE_OPERATION, at as u32);
        client::operation(&self.plan, at, lane, &mut self.workload)
    }

    /// Whether the operation that was just drawn for a client is to be made.
    pub(super) fn is_asked(&mut self, at: usize) -> bool {
        self.clients[at].asked += 1;
        self.healed.is_some() || self.plan.clients[at].has(self.clients[at].asked)
    }

    pub(super) fn ask(&mut self, at: usize, node: usize, op: Op, errand: Errand) -> Checked {
        let (id, event) = self.begin_request(at, node, op, errand);
        let client = &mut self.clients[at];
        client.waits = Some(id);
        client.round += 1;
        client.gives_up = self.now + PATIENCE;
        self.time_patience(at);
        self.feed(node, Some(event))
    }

    /// Makes a request of a node now, for a story.
    pub fn request(&mut self, node: usize, op: Op) -> Result<RequestId, crate::Violation> {
        let (id, event) = self.begin_request(STORY, node, op, Errand::Plain);
        self.feed(node, Some(event))?;
        self.fall_due();
        Ok(id)
    }

    /// Makes a write, or a read, of the workload's at a node now, to see whether it serves; `None`:
    /// the workload has none.
    pub(crate) fn request_of_kind(
        &mut self,
        node: usize,
        is_write: bool,
    ) -> Result<Option<RequestId>, crate::Violation> {
        let draw = self.draws.lane(SITE_SERVICE, node as u32);
        let op = next_of_kind(&mut self.workload, draw, is_write);
        op.map(|op| self.request(node, op)).transpose()
    }

    /// A request that has not ended, for people.
    pub(crate) fn open_request(&self) -> Option<String> {
        let (id, request) = self.requests.open()?;
        Some(format!("request {id} of node {}", request.node + 1))
    }

    /// Asks a node for a snapshot now, for a story; [`probe`](Self::probe) tells when it is there.
    pub fn ask_for_snapshot(&mut self, node: usize) -> Checked {
        self.order(node, Control::Snapshot).map(drop)
    }

    /// Asks a node to hand its leadership over now.
    pub fn hand_over(&mut self, node: usize, heir: Option<usize>) -> Checked {
        let to = heir.map(|heir| NodeId(heir as u64 + 1));
        self.order(node, Control::Transfer { to }).map(drop)
    }

    /// How far a request has come.
    #[must_use]
    pub fn fate(&self, id: RequestId) -> Fate {
        self.requests.of(id).fate
    }

    fn begin_request(
        &mut self,
        client: usize,
        node: usize,
        op: Op,
        errand: Errand,
    ) -> (RequestId, Event) {
        self.stats.requests += 1;
        let floor = self.oracle.acknowledged();
        let (is_write, bytes) = match op {
            Op::Propose(command) if self.plan.sessions.is_some() && errand == Errand::Plain => {
                (true, seat::plain(&command))
            }
            Op::Propose(command) => (true, command),
            Op::Read(query) => (false, query),
        };
        let query = if is_write { Bytes::new() } else { Bytes::from(bytes.clone()) };
        let (command, fate) = (digest(&bytes), Fate::Open);
        let mut request = Request { client, node, is_write, errand, query, command, floor, fate };
        // What a story asks for is as it says.
        let number = |client: &Client| match errand {
            Errand::Plain => client.asked,
            // Not twice the same: with these beside it one may be too large.
            _ => client.round,
        };
        let number = self.clients.get(client).map(number);
        let mut manner = number.map(|number| client::manner(&self.plan, client, number));
        if is_write {
            let id = self.requests.begin(request);
            let mut batch = Batch::with_capacity(bytes.len() + PREFIX_BYTES + 4);
            push(&mut batch, id, &bytes);
            if let Some(manner) = &mut manner {
                self.begin_companions(node, manner, floor, &mut batch);
            }
            let time = self.nodes[node].clock.wall(self.now);
            return (id, Event::Propose { first: id, time, batch });
        }
        let fresh = client::fresh(&self.plan);
        let mode = manner.map_or(fresh, |mut draw| client::mode(&self.plan, &mut draw));
        if let ReadMode::Local { stale_max } = mode {
            request.floor = self.local_floor(node, stale_max);
        }
        let id = self.requests.begin(request);
        (id, Event::Read { requests: Requests::one(id), mode })
    }

    /// Commands that nobody waits for, right behind one for which somebody does.
    fn begin_companions(
        &mut self,
        node: usize,
        manner: &mut Draw,
        floor: LogIndex,
        batch: &mut Batch,
    ) {
        let (client, query) = (COMPANION, Bytes::new());
        for mut command in client::companions(&self.plan, manner, &mut self.workload) {
            if self.plan.sessions.is_some() {
                command = seat::plain(&command);
            }
            let (query, errand, fate) = (query.clone(), Errand::Plain, Fate::Open);
            let (is_write, digest) = (true, digest(&command));
            let request =
                Request { client, node, is_write, errand, query, command: digest, floor, fate };
            let id = self.requests.begin(request);
            push(batch, id, &command);
            self.stats.requests += 1;
        }
    }

    /// How much a node must at least know that answers from what it has heard itself: what was
    /// acknowledged as of the oldest that it may go by.
    fn local_floor(&self, node: usize, stale_max: Duration) -> LogIndex {
        let as_of = self.nodes[node].heard.known(&self.plan, self.now, stale_max);
        // Some of it may be lost by now, by a recovery by force.
        self.told.before(as_of).min(self.oracle.acknowledged())
    }

    /// Requests ended without an answer from the machine.
    pub(super) fn respond(&mut self, at: usize, requests: Requests, outcome: &Outcome) -> Checked {
        let fate = match outcome {
            Outcome::Refused(_) => Fate::Refused,
            _ => Fate::Unknown,
        };
        for id in requests.ids() {
            self.changed(at, id, outcome)?;
            if self.requests.of(id).client == STORY {
                self.outcomes.insert(id, outcome.clone());
            }
            if let Outcome::Refused(Refusal::NotLeader { hint: Some(leader) }) = outcome {
                self.follow_hint(id, leader.0 as usize - 1);
            } else {
                let client = self.requests.of(id).client;
                self.leave(client, at);
            }
            self.end(id, fate)?;
        }
        Ok(())
    }

    fn follow_hint(&mut self, id: RequestId, leader: usize) {
        let client = self.requests.of(id).client;
        if let Some(client) = self.clients.get_mut(client) {
            client.node = leader;
        }
    }

    fn leave(&mut self, client: usize, node: usize) {
        if self.clients.get(client).is_some_and(|client| client.node == node) {
            self.look_elsewhere(client);
        }
    }

    /// A request ended; its client, if it still waits, goes on.
    pub(super) fn end(&mut self, id: RequestId, fate: Fate) -> Checked {
        self.oracle.on_end(id, self.requests.of(id), fate)?;
        self.told.add(self.now, self.oracle.acknowledged());
        self.requests.of_mut(id).fate = fate;
        self.stats.answered += u64::from(matches!(fate, Fate::Answered(_)));
        let client = self.requests.of(id).client;
        if self.clients.get(client).is_some_and(|client| client.waits == Some(id)) {
            self.clients[client].waits = None;
            self.think(client);
        }
        Ok(())
    }

    pub(super) fn think(&mut self, at: usize) {
        let think = self.plan.think;
        let delay = self.draws.lane(SITE_CLIENT, at as u32).delay(think.least, think.tail);
        self.clients[at].round += 1;
        let round = self.clients[at].round;
        self.schedule(self.now + delay, Coming::Think { client: at, round });
    }

    pub(super) fn look_elsewhere(&mut self, at: usize) {
        let nodes = self.nodes.len() as u64;
        let node = self.draws.lane(SITE_CLIENT, at as u32).below(nodes) as usize;
        self.clients[at].node = node;
    }

    /// A node is gone, and with it the answers to what was asked of it.
    pub(super) fn abandon_requests(&mut self, node: usize) {
        self.requests.open_at(node).for_each(|request| request.fate = Fate::Unknown);
        for client in 0..self.clients.len() {
            let Some(id) = self.clients[client].waits else { continue };
            if self.requests.of(id).node == node {
                self.clients[client].waits = None;
                self.stats.unknown += 1;
                self.look_elsewhere(client);
                self.think(client);
            }
        }
    }

    /// No client begins anything any more.
    pub fn dismiss_clients(&mut self) {
        self.want_no_changes();
        for client in &mut self.clients {
            client.round += 1;
            client.waits = None;
        }
    }

    /// The last log position that anybody was told of.
    #[must_use]
    pub const fn acknowledged(&self) -> LogIndex {
        self.oracle.acknowledged()
    }
}

fn push(batch: &mut Batch, id: RequestId, command: &[u8]) {
    batch.push_with(|buf| {
        buf.extend_from_slice(&id.0.to_le_bytes());
        buf.extend_from_slice(command);
    });
}
