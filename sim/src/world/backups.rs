//! Backups: taken out of a running cluster piece by piece, as a client would, and made into the
//! nodes of another one.

use super::{Oracle, World};
use crate::{
    client::{Fate, Request, Workload},
    oracle::{Checked, Violation},
    plan::{MS, Plan},
    seat::Seat,
    storm::run_until,
    witness::in_one_piece,
};
use lakebed::{
    Backup, BackupReader, ClusterId, Control, Event, File, Membership, NodeId, Outcome, RequestId,
    Start, StateMachine, entry::Seed,
};
use std::sync::Arc;

/// How much of a backup is read at one time: no multiple of anything.
const PIECE_BYTES: u32 = 1531;
/// How long a node may take to carry out an order.
const ORDER_WITHIN: u64 = 2_000 * MS;

/// A backup, all of it.
#[derive(Clone, Debug)]
pub struct Taken {
    /// What it says of itself.
    pub backup: Backup,
    /// The machine's state.
    pub state: Vec<u8>,
}

impl<M: StateMachine, W: Workload> World<M, W> {
    /// A new cluster, whose nodes are each made from a backup, or begin with nothing.
    pub fn made_from(
        plan: Plan,
        machine: fn() -> M,
        workload: W,
        made_from: Vec<Option<Arc<Taken>>>,
    ) -> Self {
        assert_eq!(made_from.len(), plan.nodes, "each node is made from something");
        let mut world = Self::new(plan, machine, workload);
        // Another one than any that a backup could be of, which all are of the usual one.
        world.cluster = ClusterId(super::CLUSTER.0 + 1);
        // Of those of different ones none goes behind what another begins with.
        let reference = made_from.iter().flatten().max_by_key(|taken| taken.backup.at).cloned();
        let (mut begins, mut at) = (world.fresh_machine(), lakebed::LogId::ZERO);
        if let Some(taken) = reference {
            restore(&mut begins, &taken.state);
            at = taken.backup.at;
        }
        let seed = Seed::new(world.cluster, super::GROUP);
        let (count, members) = (world.nodes.len(), Arc::clone(&world.members));
        world.oracle = Oracle::behind(at, count, seed, members, begins);
        world.made_from = made_from;
        world
    }

    /// How a node that has nothing on its disk begins, and with which machine.
    pub(super) fn beginning(&self, at: usize) -> (Start, Seat<M>) {
        let (cluster, members): (_, Arc<Membership>) = (self.cluster, self.members.clone());
        let mut machine = self.fresh_machine();
        let joins = at >= self.plan.nodes - self.plan.joining;
        match self.made_from.get(at).cloned().flatten() {
            None if joins => (Start::Join { cluster }, machine),
            None => (Start::Format { cluster, members }, machine),
            Some(taken) => {
                restore(&mut machine, &taken.state);
                let backup = Box::new(taken.backup.clone());
                (Start::Restore { cluster, members, backup }, machine)
            }
        }
    }

    /// Whether all nodes are made from the same.
    pub(super) fn is_of_one_piece(&self) -> bool {
        let origin = |taken: &Option<Arc<Taken>>| {
            taken.as_ref().map(|taken| (taken.backup.at, taken.backup.id))
        };
        self.made_from.windows(2).all(|pair| origin(&pair[0]) == origin(&pair[1]))
    }

    /// Gives a node an order now, for a story; [`outcome`](Self::outcome) tells what became of it.
    pub fn order(&mut self, node: usize, control: Control) -> Result<RequestId, Violation> {
        let id = self.requests.begin(Request::order(node, self.oracle.acknowledged()));
        if let Control::Change(changes) = &control {
            self.changes.seek(id, changes);
        }
        self.feed(node, Some(Event::Control { id, control }))?;
        self.fall_due();
        Ok(id)
    }

    /// How an order ended.
    #[must_use]
    pub fn outcome(&self, order: RequestId) -> Option<&Outcome> {
        self.outcomes.get(&order)
    }

    /// Gives a node an order and lets time pass until it has ended; `None`: with the node.
    pub fn carry_out(
        &mut self,
        node: usize,
        control: Control,
    ) -> Result<Option<Outcome>, Violation> {
        if self.probe(node).is_none() {
            return Ok(None);
        }
        let order = self.order(node, control)?;
        run_until(self, ORDER_WITHIN, "an order to be carried out", |world| {
            world.outcome(order).is_some() || world.fate(order) != Fate::Open
        })?;
        Ok(self.outcome(order).cloned())
    }

    /// Reads the newest snapshot of a node, as a backup is taken: pinned, in pieces, each checked.
    /// `None`: the node has none, or went down, or gave up the pin; one may begin anew.
    pub fn back_up(&mut self, node: usize) -> Result<Option<Taken>, Violation> {
        let Some(Outcome::Pinned(file, bytes)) = self.carry_out(node, Control::PinSnapshot)? else {
            return Ok(None);
        };
        let taken = self.read_pinned(node, file, bytes)?;
        self.carry_out(node, Control::Unpin { file })?;
        Ok(taken)
    }

    fn read_pinned(
        &mut self,
        node: usize,
        file: File,
        bytes: u64,
    ) -> Result<Option<Taken>, Violation> {
        let (mut reader, mut state, mut offset) = (BackupReader::new(bytes), Vec::new(), 0);
        let wrong = |what: String| Violation::new("a backup is whole", node, what);
        while offset < bytes {
            let read = Control::ReadPinned { file, offset, len: PIECE_BYTES };
            let Some(Outcome::Read(piece)) = self.carry_out(node, read)? else { return Ok(None) };
            if piece.is_empty() {
                return Err(wrong(format!("{file} of {bytes} bytes ends at {offset}")));
            }
            offset += piece.len() as u64;
            let taken = reader.take(&piece, |bytes| state.extend_from_slice(&bytes));
            taken.map_err(|fault| wrong(format!("{file} {fault}")))?;
        }
        let backup = reader.finish().map_err(|fault| wrong(format!("{file} {fault}")))?;
        Ok(Some(Taken { backup, state }))
    }

    /// What a backup holds is what the entries up to there make of a machine, as far as they are
    /// known: the run must be traced from its beginning.
    pub fn check_backup(&self, taken: &Taken) -> Checked {
        let mut machine = self.fresh_machine();
        let commands = self.inputs().into_iter().flat_map(|inputs| &inputs.commands);
        for given in commands.take_while(|given| given.at <= taken.backup.at) {
            machine.apply(given.at, given.time, &given.command, &mut Vec::new());
        }
        let expected = in_one_piece(machine.freeze());
        if expected == taken.state {
            return Ok(());
        }
        let what = format!("the backup at {} is not what its log makes of it", taken.backup.at);
        Err(Violation { invariant: "a backup is the state", node: node(taken.backup.node), what })
    }
}

const fn node(id: NodeId) -> Option<usize> {
    Some(id.0 as usize - 1)
}

fn restore(machine: &mut impl StateMachine, state: &[u8]) {
    machine.restore(0, state, true).expect("a machine takes in what it gave out");
}
