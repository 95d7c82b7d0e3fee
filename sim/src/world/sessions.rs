//! Clients with sessions: what is not answered is sent again with its number, to any node.

use super::{SITE_SESSION, World};
use crate::{
    client::{EARLY, Errand, Held, Op, Workload},
    oracle::Checked,
    plan::Sessions,
    seat,
};
use lakebed::{
    LogIndex, RequestId, StateMachine,
    session::{Reply, SessionError},
};

/// What rates are parts of.
const RATE: u64 = 65_536;
/// By how much a number is too great that comes too early: no client ever comes so far.
const FAR: u64 = 1 << 32;

impl<M: StateMachine, W: Workload> World<M, W> {
    /// A client begins something, or goes on with what it has not heard the end of.
    pub(super) fn next_in_session(&mut self, at: usize, node: usize, plan: Sessions) -> Checked {
        if self.clients[at].step.is_none() {
            match self.next_operation(at) {
                _ if !self.is_asked(at) => {
                    self.think(at);
                    return Ok(());
                }
                Op::Read(query) => return self.ask(at, node, Op::Read(query), Errand::Plain),
                Op::Propose(command) => {
                    self.operations += 1;
                    let (operation, floor) = (self.operations, self.oracle.acknowledged());
                    self.clients[at].step = Some((Errand::Step { operation, floor }, command));
                }
            }
        }
        let Some(Held { session, sequence }) = self.clients[at].session else {
            return self.ask(at, node, Op::Propose(seat::open()), Errand::Open);
        };
        if self.draws.lane(SITE_SESSION, at as u32).ratio(plan.early, RATE) {
            let early = seat::step(session, sequence + FAR, EARLY, b"");
            return self.ask(at, node, Op::Propose(early), Errand::Early);
        }
        let (errand, command) = self.clients[at].step.clone().expect("it was there or made");
        let Errand::Step { operation, .. } = errand else { unreachable!("steps are kept") };
        let step = seat::step(session, sequence + 1, operation, &command);
        self.ask(at, node, Op::Propose(step), errand)
    }

    /// A session's request was answered. An answer may be lost on its way to its client.
    pub(super) fn replied(&mut self, id: RequestId, answer: &[u8], position: LogIndex) -> Checked {
        let request = self.requests.of(id);
        let (errand, at) = (request.errand, request.client);
        self.oracle.on_reply(id, request, position, answer)?;
        let Some(plan) = self.plan.sessions else { return Ok(()) };
        if self.clients.get(at).is_none_or(|client| client.waits != Some(id)) {
            return Ok(());
        }
        if self.draws.lane(SITE_SESSION, at as u32).ratio(plan.lost, RATE) {
            self.look_elsewhere(at);
            return Ok(());
        }
        let client = &mut self.clients[at];
        match (errand, Reply::parse(answer)) {
            (_, Ok(Reply::Opened(session))) => {
                client.session = Some(Held { session, sequence: 0 });
            }
            (_, Err(SessionError::Expired)) => (client.session, client.step) = (None, None),
            (Errand::Step { .. }, Ok(_) | Err(SessionError::TooOld { .. })) => {
                client.step = None;
                client.session.iter_mut().for_each(|held| held.sequence += 1);
            }
            _ => {}
        }
        Ok(())
    }
}
