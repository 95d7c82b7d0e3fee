//! Clients: what they ask, whom, and what became of it.
//!
//! Each client has one request at a time and a node it talks to. Knows nothing of logs; whether
//! the answers were right is the oracle's affair.

use crate::{
    plan::Plan,
    prng::{Concern, Draw},
};
use bytes::Bytes;
use lakebed::{Clients, LogIndex, Outcome, ReadMode, RequestId, session::SessionId};
use std::time::Duration;

/// The site of draws that say how an operation is asked for.
const SITE_MANNER: u32 = 6;
/// The client of commands that are proposed beside another's.
pub(crate) const COMPANION: usize = usize::MAX - 1;
/// Who only reads takes one of so many operations, if there is a read among them.
const READ_WITHIN: u32 = 32;
/// What rates are parts of.
const RATE: u64 = 65_536;

/// What a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// A command to be replicated and applied. Of 900 bytes at most, as limits are drawn; of more, if
    /// the storm was told so ([`Storm::commands_up_to`](crate::Storm::commands_up_to)).
    Propose(Vec<u8>),
    /// A linearizable query.
    Read(Vec<u8>),
}

/// Decides what clients do next. Any `FnMut(&mut Draw) -> Op` is one.
pub trait Workload {
    /// The next operation.
    fn next(&mut self, draw: &mut Draw) -> Op;
}

impl<F: FnMut(&mut Draw) -> Op> Workload for F {
    fn next(&mut self, draw: &mut Draw) -> Op {
        self(draw)
    }
}

/// So often a workload may draw another kind of operation than what is looked for.
const DRAWS_MAX: usize = 64;

/// The next write, or read, of a workload; `None`: it seems to have none.
pub(crate) fn next_of_kind(
    workload: &mut impl Workload,
    draw: &mut Draw,
    is_write: bool,
) -> Option<Op> {
    let mut drawn = (0..DRAWS_MAX).map(|_| workload.next(draw));
    drawn.find(|op| matches!(op, Op::Propose(_)) == is_write)
}

/// How an operation of a client is asked for, by the how-manieth it is: nothing else is moved by it.
pub(crate) fn manner(plan: &Plan, client: usize, number: u32) -> Draw {
    let entity = (client as u32) << 20 ^ number;
    Draw::new(plan.seed, Concern::Workload, SITE_MANNER, entity)
}

/// The next operation of a client.
pub(crate) fn operation(
    plan: &Plan,
    client: usize,
    draw: &mut Draw,
    workload: &mut impl Workload,
) -> Op {
    // One always writes.
    let only_reads = client > 0 && client + plan.manner.readers >= plan.clients.len();
    let mut op = workload.next(draw);
    for _ in 0..READ_WITHIN {
        if !only_reads || matches!(op, Op::Read(_)) {
            break;
        }
        op = workload.next(draw);
    }
    op
}

/// How fresh a read is to be.
pub(crate) fn mode(plan: &Plan, draw: &mut Draw) -> ReadMode {
    let manner = plan.manner;
    if manner.local > 0 && draw.ratio(manner.local, RATE) {
        return ReadMode::Local {
            stale_max: Duration::from_nanos(draw.below(manner.stale_max + 1)),
        };
    }
    let takes_round = manner.rounds > 0 && draw.ratio(manner.rounds, RATE);
    if takes_round { ReadMode::Linearizable } else { fresh(plan) }
}

/// As fresh as any: by a lease as long as clocks keep what is declared of them, or whatever they do where all
/// reads are to take a round.
pub(crate) const fn fresh(plan: &Plan) -> ReadMode {
    let all_take_rounds = plan.manner.rounds >= RATE;
    match plan.tuning.lease_drift_ppm {
        Some(_) if !all_take_rounds => ReadMode::Lease,
        _ => ReadMode::Linearizable,
    }
}

/// The commands that are proposed beside one.
pub(crate) fn companions(
    plan: &Plan,
    draw: &mut Draw,
    workload: &mut impl Workload,
) -> Vec<Vec<u8>> {
    let more = if plan.manner.batch > 1 { draw.below(plan.manner.batch) } else { 0 };
    let command = |_| match workload.next(draw) {
        Op::Propose(command) => Some(command),
        Op::Read(_) => None,
    };
    (0..more).filter_map(command).collect()
}

/// How far a request has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Not ended, as far as its node has said.
    Open,
    /// Answered at this log position.
    Answered(LogIndex),
    /// Certainly never applied.
    Refused,
    /// Perhaps applied.
    Unknown,
}

/// The operation of what comes before its turn, and must never be performed.
pub(crate) const EARLY: u64 = u64::MAX;

/// What a request is to a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Errand {
    /// Nothing.
    Plain,
    /// It opens one.
    Open,
    /// It is one of several that do the same thing, which is to be done once.
    Step {
        operation: u64,
        /// Everything acknowledged before the first of them began lies at or below.
        floor: LogIndex,
    },
    /// It comes before its turn.
    Early,
}

/// A session, and how far its client has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) session: SessionId,
    /// The last command that it has heard the end of.
    pub(crate) sequence: u64,
}

/// A request, from its beginning to its end.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) client: usize,
    pub(crate) node: usize,
    pub(crate) is_write: bool,
    pub(crate) errand: Errand,
    /// The query of a read.
    pub(crate) query: Bytes,
    /// A digest of the command of a write.
    pub(crate) command: u64,
    /// Everything acknowledged before it began lies at or below.
    pub(crate) floor: LogIndex,
    pub(crate) fate: Fate,
}

impl Request {
    /// An order of nobody's to a node.
    pub(crate) const fn order(node: usize, floor: LogIndex) -> Self {
        let (client, errand, fate) = (usize::MAX, Errand::Plain, Fate::Open);
        let query = Bytes::new();
        Self { client, node, is_write: false, errand, query, command: 0, floor, fate }
    }
}

/// One client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Whom it talks to.
    pub(crate) node: usize,
    /// Rises with each thing it begins, so that a timer for an older one is known to be late.
    pub(crate) round: u32,
    /// How many operations were drawn for it.
    pub(crate) asked: u32,
    /// What it waits for.
    pub(crate) waits: Option<RequestId>,
    /// When it stops waiting.
    pub(crate) gives_up: u64,
    /// Whether a timer for that is set, perhaps for an earlier request.
    pub(crate) is_timed: bool,
    pub(crate) session: Option<Held>,
    /// What it does in its session until it hears the end of it, and the command for that.
    pub(crate) step: Option<(Errand, Vec<u8>)>,
}

impl Client {
    /// A client that talks to this node and has not begun.
    pub(crate) const fn of(node: usize) -> Self {
        let (session, step) = (None, None);
        Self { node, round: 0, asked: 0, waits: None, gives_up: 0, is_timed: false, session, step }
    }
}

/// Every request of a run; ids count from one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    list: Vec<Request>,
}

impl Requests {
    pub(crate) fn begin(&mut self, request: Request) -> RequestId {
        self.list.push(request);
        RequestId(self.list.len() as u64)
    }

    pub(crate) fn of(&self, id: RequestId) -> &Request {
        &self.list[id.0 as usize - 1]
    }

    pub(crate) fn of_mut(&mut self, id: RequestId) -> &mut Request {
        &mut self.list[id.0 as usize - 1]
    }

    /// What lies behind this was lost: nobody is held to it.
    pub(crate) fn lower_floors(&mut self, to: LogIndex) {
        self.list.iter_mut().for_each(|request| request.floor = request.floor.min(to));
    }

    /// One that has not ended, if there is any.
    pub(crate) fn open(&self) -> Option<(RequestId, &Request)> {
        let at = self.list.iter().position(|request| request.fate == Fate::Open)?;
        Some((RequestId(at as u64 + 1), &self.list[at]))
    }

    /// The requests that this node has not ended.
    pub(crate) fn open_at(&mut self, node: usize) -> impl Iterator<Item = &mut Request> {
        self.list.iter_mut().filter(move |r| r.node == node && r.fate == Fate::Open)
    }
}

/// What a node's machine lane said, for the world to judge.
pub(crate) struct Desk<'a> {
    pub(crate) requests: &'a Requests,
    /// Which ended, and the answers.
    pub(crate) ended: Vec<(RequestId, Result<Vec<u8>, Outcome>)>,
}

impl Clients for Desk<'_> {
    fn query(&mut self, id: RequestId) -> &[u8] {
        &self.requests.of(id).query
    }

    fn answer(&mut self, id: RequestId, answer: Result<&[u8], &Outcome>) {
        self.ended.push((id, answer.map(<[u8]>::to_vec).map_err(Clone::clone)));
    }
}
