//! What is to come, in order of time and then of agreement, and what happens when its time has come.
//!
//! Knows nothing of what hosts say. Invariant: nothing happens to a process while it stands still, and
//! what waited for it comes in the order in which it would have.

use super::{Groups, SITE_BUSY, node_id};
use crate::{
    client::Workload,
    oracle::{Checked, Violation},
    plan::US,
    world::Age,
};
use bytes::Bytes;
use lakebed::{GroupId, Host, HostEvent, OpId, StateMachine};

/// Something to come.
#[derive(Clone, Debug)]
pub(super) enum Coming {
    Deliver {
        from: usize,
        to: usize,
        life: u32,
        age: Age,
        bytes: Bytes,
    },
    Completion {
        node: usize,
        group: GroupId,
        life: u32,
        op: OpId,
    },
    MachineStep {
        node: usize,
        group: GroupId,
        life: u32,
    },
    Wake {
        node: usize,
        life: u32,
    },
    /// Something that a process was told while it stood still.
    Late {
        node: usize,
        life: u32,
        event: Box<HostEvent>,
    },
    Start {
        node: usize,
        life: u32,
    },
    Seat {
        node: usize,
        group: GroupId,
        life: u32,
    },
    LinkUp {
        node: usize,
        peer: usize,
        lives: (u32, u32),
    },
    LinkDown {
        node: usize,
        peer: usize,
        number: u64,
    },
    Think {
        client: usize,
        round: u32,
    },
    Patience {
        client: usize,
        round: u32,
    },
    Create {
        group: GroupId,
    },
    Remove {
        group: GroupId,
    },
    Change {
        group: GroupId,
        number: u64,
        turn: u32,
    },
    ArmedCut {
        number: u64,
    },
}

impl Coming {
    /// The node whose process must run for it, in which life, if it must.
    const fn process(&self) -> Option<usize> {
        match self {
            Self::Deliver { to, .. } => Some(*to),
            Self::Completion { node, .. }
            | Self::MachineStep { node, .. }
            | Self::Wake { node, .. }
            | Self::Late { node, .. }
            | Self::Seat { node, .. }
            | Self::LinkUp { node, .. }
            | Self::LinkDown { node, .. } => Some(*node),
            _ => None,
        }
    }

    /// Whether it is an event for a host that waits with others for the host's turn.
    const fn waits_its_turn(&self) -> bool {
        matches!(
            self,
            Self::Deliver { .. }
                | Self::Completion { .. }
                | Self::MachineStep { .. }
                | Self::Late { .. }
        )
    }
}

impl<M: StateMachine, W: Workload> Groups<M, W> {
    pub(super) fn schedule(&mut self, at: u64, what: Coming) {
        self.agenda.add(at, what);
    }

    /// When the next thing happens.
    #[must_use]
    pub fn next_at(&self) -> u64 {
        self.agenda.next_at().unwrap_or(u64::MAX)
    }

    /// Lets the next thing happen.
    pub fn step(&mut self) -> Checked {
        let (at, what) = self.agenda.pop()?;
        self.now = self.now.max(at);
        if matches!(what, Coming::Deliver { .. }) {
            self.take_time(&what);
        }
        if let Some(node) = what.process()
            && self.now < self.nodes[node].paused_until
        {
            // It lies in a socket or a queue until the process goes on.
            let resumes = self.nodes[node].paused_until;
            if let Coming::Wake { life, .. } = what
                && self.lives(node, life)
                && self.nodes[node].wake == self.now
            {
                self.nodes[node].wake = resumes;
            }
            self.schedule(resumes, what);
            return Ok(());
        }
        self.happen(what)
    }

    /// A process is busy with something else for a moment, now and then: what comes meanwhile is handed
    /// over together.
    fn take_time(&mut self, what: &Coming) {
        let Some(node) = what.process().filter(|node| self.nodes[*node].host.is_some()) else {
            return;
        };
        let draw = self.process.lane(SITE_BUSY, node as u32);
        if self.nodes[node].paused_until < self.now && draw.ratio(1, 16) {
            self.nodes[node].paused_until = self.now + draw.delay(US, 100 * US);
        }
    }

    /// What waited for its process, with all that waited beside it: one turn of a driver.
    fn turn(&mut self, node: usize, first: Coming) -> Checked {
        let first = self.event_of(first)?;
        if self.nodes[node].paused_until != self.now {
            self.judge_by_what_is_heard_now(node, first.as_slice());
            return first.map_or(Ok(()), |event| self.hand(node, [event]));
        }
        let mut is_over = false;
        let waits = |what: &Coming| {
            let is_its = what.process() == Some(node) && !matches!(what, Coming::Wake { .. });
            is_over |= is_its && !what.waits_its_turn();
            is_its && !is_over
        };
        let mut events = Vec::from_iter(first);
        for what in self.agenda.take_all(self.now, waits) {
            events.extend(self.event_of(what)?);
        }
        self.judge_by_what_is_heard_now(node, &events);
        if events.is_empty() { Ok(()) } else { self.hand(node, events) }
    }

    /// What a host is to be told, if its process, or that part of it, is still the one it is for.
    fn event_of(&mut self, what: Coming) -> Result<Option<HostEvent>, Violation> {
        match what {
            Coming::Deliver { from, to, life, age, bytes } => {
                if self.network.is_cut(from, to) {
                    self.stats.messages_lost += 1;
                    return Ok(None);
                }
                self.nodes[to].heard.hear(self.now, age);
                self.stats.messages_stale += u64::from(life != self.nodes[from].life);
                Ok(Some(HostEvent::Received { from: node_id(from), bytes }))
            }
            Coming::Completion { node, group, life, op } => {
                Ok(self.complete(node, group, life, op))
            }
            Coming::MachineStep { node, group, life } => self.machine_step(node, group, life),
            Coming::Late { node, life, event } => Ok(self.lives(node, life).then_some(*event)),
            _ => Ok(None),
        }
    }

    fn happen(&mut self, what: Coming) -> Checked {
        match what {
            Coming::Deliver { to: node, .. }
            | Coming::Completion { node, .. }
            | Coming::MachineStep { node, .. }
            | Coming::Late { node, .. } => self.turn(node, what),
            Coming::Wake { node, life } if self.lives(node, life) => self.wake(node),
            Coming::Start { node, life } if self.nodes[node].life == life => self.start(node),
            Coming::Seat { node, group, life } if self.lives(node, life) => self.sit(node, group),
            Coming::LinkUp { node, peer, lives } => self.link_up(node, peer, lives),
            Coming::LinkDown { node, peer, number } => self.link_down(node, peer, number),
            Coming::Think { client, round } => self.thought(client, round),
            Coming::Patience { client, round } => self.out_of_patience(client, round),
            Coming::Create { group } => self.create(group),
            Coming::Remove { group } => self.remove(group),
            Coming::Change { group, number, turn } => self.ask_for_change(group, number, turn),
            Coming::ArmedCut { number } => {
                self.fall_late(number);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn lives(&self, node: usize, life: u32) -> bool {
        self.nodes[node].host.is_some() && self.nodes[node].life == life
    }

    fn wake(&mut self, at: usize) -> Checked {
        let node = &mut self.nodes[at];
        if self.now != node.wake {
            // An earlier one took its place, and has seen to the next.
            return Ok(());
        }
        (node.wake, node.deadline) = (u64::MAX, None);
        let local = node.clock.local(self.now);
        let deadline = node.host.as_ref().and_then(Host::deadline);
        if deadline.is_none_or(|deadline| deadline > local) {
            self.schedule_wake(at);
            return Ok(());
        }
        self.feed(at, [])?;
        let node = &self.nodes[at];
        let next = node.host.as_ref().and_then(Host::deadline);
        if next.is_some() && next <= deadline && node.clock.local(self.now) >= local {
            let what = format!("handled at its deadline {deadline:?}, the next one is {next:?}");
            return Err(Violation::new("deadlines move on", at, what));
        }
        Ok(())
    }

    pub(super) fn schedule_wake(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(deadline) = node.host.as_ref().and_then(Host::deadline) else { return };
        if node.deadline == Some(deadline) {
            return;
        }
        node.deadline = Some(deadline);
        let due = node.clock.global(deadline).max(self.now);
        if due < node.wake {
            node.wake = due;
            let life = node.life;
            self.schedule(due, Coming::Wake { node: at, life });
        }
    }
}
