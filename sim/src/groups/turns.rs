//! A host's turn: what it is handed, what the oracles of its groups make of that, and what it asks for.
//!
//! Does not know what is to come. Invariant: each group that was called is judged before anything is done
//! of what it asked for.

use super::{Coming, Groups, SITE_READ, SITE_SYNC, SITE_WRITE, Seat, of_group};
use crate::{
    client::Workload,
    network::Fate,
    node::is_sync,
    oracle::{Checked, Seen, Violation},
    trace::{self, about},
};
use bytes::{Bytes, BytesMut};
use lakebed::{
    Action, DiskRequest, Event, GroupId, HostAction, HostEvent, NodeId, OpId, StateMachine,
    host::is_beat, inspect::addressed_to,
};

impl<M: StateMachine, W: Workload> Groups<M, W> {
    /// Tells a host that is up something now, or as soon as its process goes on.
    pub(super) fn feed<const N: usize>(&mut self, at: usize, events: [HostEvent; N]) -> Checked {
        let (resumes, life) = (self.nodes[at].paused_until, self.nodes[at].life);
        if resumes <= self.now || self.nodes[at].host.is_none() {
            return self.hand(at, events);
        }
        for event in events.map(Box::new) {
            self.schedule(resumes, Coming::Late { node: at, life, event });
        }
        Ok(())
    }

    /// Hands events to a host that is up, judges each group that it called, does what is asked for.
    pub(super) fn hand(
        &mut self,
        at: usize,
        events: impl AsRef<[HostEvent]> + IntoIterator<Item = HostEvent>,
    ) -> Checked {
        let node = &mut self.nodes[at];
        let now = node.clock.local(self.now);
        let Some(host) = node.host.as_mut() else { return Ok(()) };
        self.touched = Some(at);
        self.stats.events += events.as_ref().len() as u64;
        for event in events.as_ref() {
            match event {
                HostEvent::Group(group, event) => {
                    if let Some(seat) = node.seats.get_mut(group) {
                        // The host knew it before it heard of this.
                        seat.told.hear_of_time(node.wall);
                        seat.told.on_event(now, event);
                    }
                }
                HostEvent::Received { from, bytes } => {
                    let group = addressed_to(bytes).filter(|group| host.core(*group).is_some());
                    if let Some(group) = group.and_then(|group| self.groups.get_mut(&group)) {
                        group.oracle.on_received_among_others(at, *from, bytes);
                    }
                }
                _ => {}
            }
        }
        if let Some(trace) = &mut self.trace {
            events.as_ref().iter().for_each(|event| trace.add(self.now, Some(at), &told(event)));
        }
        self.digest.number(at as u64);
        self.digest.number(now.0);
        let mut actions = std::mem::take(&mut self.actions);
        let time = node.telling.is_due(now).then(|| node.clock.wall(self.now));
        node.wall = time.map(|time| (time, now)).or(node.wall);
        let time = time.map(HostEvent::Time);
        host.handle(now, events.into_iter().chain(time), &mut actions);
        self.judge(at, &actions)?;
        for action in actions.drain(..) {
            self.perform(at, action)?;
        }
        self.actions = actions;
        self.wants_its_members(at)?;
        self.schedule_wake(at);
        self.strike_if_pending(at);
        Ok(())
    }

    /// The groups that were called in this turn, each of which knows by now what its host knew of the time.
    fn called(&mut self, at: usize) -> Vec<GroupId> {
        let mut called = std::mem::take(&mut self.called);
        called.clear();
        let node = &mut self.nodes[at];
        called.extend_from_slice(node.host.as_ref().map_or(&[], |host| host.touched()));
        called.sort_unstable();
        called.dedup();
        for id in &called {
            if let Some(seat) = node.seats.get_mut(id) {
                seat.told.hear_of_time(node.wall);
            }
        }
        called
    }

    /// Shows each group that was called to its oracle, with what it said.
    fn judge(&mut self, at: usize, actions: &[HostAction]) -> Checked {
        let called = self.called(at);
        let node = &self.nodes[at];
        let Some(host) = &node.host else { return Ok(()) };
        let now = node.clock.local(self.now);
        for &id in &called {
            let Some(engine) = host.core(id) else { continue };
            let said = actions.iter().filter_map(|action| match action {
                HostAction::Group(of, action) if *of == id => Some(action),
                _ => None,
            });
            self.digest.number(id.0);
            self.digest.step(now, &[], said.clone());
            let probe = engine.probe();
            let group = self.groups.get_mut(&id).expect("only what was founded is here");
            let oracle = &mut group.oracle;
            let (seat, wall) = (node.seats.get(&id), node.wall);
            let wall = seat.map_or(wall, |seat| seat.told.time);
            let clocks = wall.map(|(time, told)| (now, time.after(now.since(told))));
            let seen = Seen { node: at, probe, engine, clocks };
            let comes = probe.judged && !oracle.was_judged(at);
            let judged = oracle.on_step(&seen, said);
            let judged = judged.and_then(|()| oracle.on_memory(&seen, &self.plan));
            let on_disk = |seat: &Seat<M>| match seat.scars.is_ruined {
                true => Ok(()),
                false => oracle.on_snapshots_below(&seen, &seat.disk),
            };
            let judged = judged.and_then(|()| seat.map_or(Ok(()), on_disk));
            judged.map_err(|violation| of_group(id, violation))?;
            let Some(seat) = seat else { continue };
            let excused = seat.scars.excuse(at, &probe, comes);
            excused.map_err(|violation| of_group(id, violation))?;
            if probe.judged && self.groups[&id].oracle.is_to_be_tried(at) {
                self.try_power_cut(at, id).map_err(|violation| of_group(id, violation))?;
            }
        }
        self.called = called;
        Ok(())
    }

    fn perform(&mut self, at: usize, action: HostAction) -> Checked {
        match action {
            HostAction::Group(group, action) => {
                if self.trace.is_some() {
                    self.note(Some(at), Some(group), || trace::action(&action));
                }
                self.perform_for(at, group, action)
            }
            HostAction::Beat { to, bytes } => {
                self.sent.beats += 1;
                self.send(at, to, bytes, &Bytes::new());
                Ok(())
            }
            HostAction::Connect(members) => {
                if self.trace.is_some() {
                    self.note(Some(at), None, || format!("< connect {members}"));
                }
                self.want(at, &members);
                Ok(())
            }
        }
    }

    fn perform_for(&mut self, at: usize, group: GroupId, action: Action) -> Checked {
        let node = &mut self.nodes[at];
        let now = node.clock.local(self.now);
        if let Some(seat) = node.seats.get_mut(&group) {
            let told = seat.told.on_action(now, &action);
            told.map_err(|what| {
                of_group(group, Violation::new("snapshots that fail are few", at, what))
            })?;
        }
        match action {
            Action::Disk { op, request, .. } => self.submit(at, group, op, request),
            Action::Send { to, head, body } => {
                self.sent.messages += 1;
                self.send(at, to, head, &body);
            }
            Action::Machine(step) => self.push_machine_step(at, group, step),
            Action::Respond { requests, outcome } => {
                return self.respond(at, group, requests, &outcome);
            }
            Action::Note(lakebed::Note::Snapshot(_)) => self.stats.snapshots += 1,
            Action::Note(lakebed::Note::Compacted(_)) => self.stats.compactions += 1,
            Action::Note(lakebed::Note::Role { leader: Some(_), .. }) => self.stats.elections += 1,
            // Nothing changes what is sent, and all peers are correct.
            Action::Note(lakebed::Note::PeerFault { peer, reason }) => {
                let what = format!("calls it a fault of node {peer}: {reason}");
                let fault = Violation::new("correct peers are at fault for nothing", at, what);
                return Err(of_group(group, fault));
            }
            // Of members the host has told.
            Action::Note(_) | Action::Members(_) => {}
            Action::Halt(halt) => return self.halted(at, group, &halt),
        }
        Ok(())
    }

    fn submit(&mut self, at: usize, group: GroupId, op: OpId, request: DiskRequest) {
        let times = self.plan.disk;
        let (site, latency) = if is_sync(&request) {
            (SITE_SYNC, times.sync)
        } else if matches!(request, DiskRequest::Write { .. }) {
            (SITE_WRITE, times.write)
        } else {
            (SITE_READ, times.read)
        };
        let delay = self.disks.lane(site, at as u32).delay(latency.least, latency.tail);
        let node = &mut self.nodes[at];
        let delay = delay * node.slowness;
        let Some(seat) = node.seats.get_mut(&group) else { return };
        let life = seat.life;
        seat.disk.submit(op, request);
        self.schedule(self.now + delay, Coming::Completion { node: at, group, life, op });
    }

    fn send(&mut self, from: usize, to: NodeId, head: Bytes, body: &Bytes) {
        let to = to.0 as usize - 1;
        if self.network.connection(from, to).is_none() {
            self.stats.messages_lost += 1;
            return;
        }
        let bytes = if body.is_empty() { head } else { joined(&head, body) };
        self.sent.bytes += bytes.len() as u64;
        match self.network.send(from, to, self.now, bytes.len()) {
            Fate::Arrives(at, again) => {
                let node = &self.nodes[from];
                let (life, age) = (node.life, node.heard.speaks(self.now));
                if let Some(again) = again {
                    let bytes = bytes.clone();
                    self.schedule(again, Coming::Deliver { from, to, life, age, bytes });
                }
                self.schedule(at, Coming::Deliver { from, to, life, age, bytes });
            }
            Fate::Lost { noticed } => {
                self.stats.messages_lost += 1;
                if noticed {
                    self.break_connection(from, to);
                }
            }
        }
    }
}

fn told(event: &HostEvent) -> String {
    match event {
        HostEvent::Group(group, event) => about(Some(*group), &trace::event(event)),
        HostEvent::Received { from, bytes } if is_beat(bytes) => {
            about(None, &format!("> from {from} beat"))
        }
        HostEvent::Received { from, bytes } => {
            let event = Event::Received { from: *from, bytes: bytes.clone() };
            about(addressed_to(bytes), &trace::event(&event))
        }
        HostEvent::Link { peer, up } => {
            about(None, &trace::event(&Event::Link { peer: *peer, up: *up }))
        }
        HostEvent::Time(time) => about(None, &format!("> it is {time}")),
    }
}

fn joined(head: &[u8], body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(head.len() + body.len());
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(body);
    bytes.freeze()
}
