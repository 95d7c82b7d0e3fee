//! A group's place on a node: its disk for ever, its machine while its engine lives.

use super::{Coming, Groups, SITE_CRASH, SITE_MACHINE, SITE_PARTLY, SITE_RESTART, of_group};
use crate::{
    client::{Desk, Fate, Workload},
    disk::{Failure, Geometry, SimDisk, Victim},
    node::{Scars, Told},
    oracle::{Checked, Violation},
    plan::US,
    seat,
    witness::{Applied, SITE_FORESIGHT, Witness},
};
use lakebed::{
    DiskError, Event, File, GroupId, Halt, HostEvent, Machine, Marks, OpId, Outcome, RequestId,
    Runner, StateMachine,
};
use std::collections::VecDeque;

/// See the module.
pub(super) struct Seat<M: StateMachine> {
    pub(super) disk: SimDisk,
    pub(super) runner: Runner<Witness<M>>,
    /// Steps of the machine that have not been performed.
    pub(super) lane: VecDeque<Machine>,
    /// Rises with each engine; what belongs to an older one is ignored.
    pub(super) life: u32,
    /// How its next sync or durable write fails, and which operation fails next.
    pub(super) next_sync_fails: Option<Failure>,
    pub(super) next_fails: Option<(Victim, DiskError)>,
    /// Operations that a disk which hangs does not end.
    pub(super) hangs: Option<Vec<OpId>>,
    /// What became of the disk that no crash does.
    pub(super) scars: Scars,
    /// What its present life may end for.
    pub(super) told: Told,
}

impl<M: StateMachine> Seat<M> {
    pub(super) fn new(geometry: Geometry, machine: M) -> Self {
        Self {
            disk: SimDisk::new(geometry),
            runner: Runner::new(Witness::new(seat::Seat::new(machine, None))),
            lane: VecDeque::new(),
            life: 0,
            next_sync_fails: None,
            next_fails: None,
            hangs: None,
            scars: Scars::default(),
            told: Told::default(),
        }
    }

    /// A new engine begins, with a machine that knows nothing.
    pub(super) fn begin(&mut self, machine: M) {
        self.life += 1;
        self.told = Told::default();
        self.runner = Runner::new(Witness::new(seat::Seat::new(machine, None)));
        self.lane.clear();
        self.next_sync_fails = None;
        self.next_fails = None;
    }

    /// Its engine is gone.
    pub(super) fn end(&mut self) {
        self.life += 1;
        self.lane.clear();
        self.hangs.iter_mut().for_each(Vec::clear);
    }

    /// There is no more room than it takes up.
    pub(super) fn fill(&mut self) {
        self.disk.set_room(self.disk.used());
    }

    pub(super) fn is_formatted(&self) -> bool {
        self.disk.list().any(|(file, _)| file == File::HardState)
    }
}

impl<M: StateMachine, W: Workload> Groups<M, W> {
    /// The seat of a group, if this life of it goes on.
    fn seat(&mut self, at: usize, group: GroupId, life: u32) -> Option<&mut Seat<M>> {
        self.nodes[at].seats.get_mut(&group).filter(|seat| seat.life == life)
    }

    /// An operation ends, unless its disk hangs or whose it was is gone.
    pub(super) fn complete(
        &mut self,
        at: usize,
        group: GroupId,
        life: u32,
        op: OpId,
    ) -> Option<HostEvent> {
        let draw = self.disks.lane(SITE_PARTLY, at as u32);
        let seat = self.nodes[at].seats.get_mut(&group).filter(|seat| seat.life == life);
        let seat = seat?;
        if let Some(held) = &mut seat.hangs {
            held.push(op);
            return None;
        }
        let disk = &mut seat.disk;
        let failure = seat.next_sync_fails.take_if(|_| disk.is_promise(op));
        let partly = seat.next_fails.take_if(|(victim, _)| disk.is_a(op, *victim));
        let result = match (failure, partly) {
            (Some(failure), _) => disk.fail(op, failure),
            (None, Some((_, error))) => disk.fail_partly(op, error, draw),
            (None, None) => disk.complete(op),
        };
        self.stats.disk_failures += u64::from(failure.is_some() || partly.is_some());
        Some(HostEvent::Group(group, Event::Completed { op, result }))
    }

    pub(super) fn push_machine_step(&mut self, at: usize, group: GroupId, step: Machine) {
        let Some(seat) = self.nodes[at].seats.get_mut(&group) else { return };
        seat.lane.push_back(step);
        if seat.lane.len() == 1 {
            let life = seat.life;
            self.schedule_machine_step(at, group, life);
        }
    }

    fn schedule_machine_step(&mut self, at: usize, group: GroupId, life: u32) {
        let delay = self.process.lane(SITE_MACHINE, at as u32).delay(US, 20 * US);
        self.schedule(self.now + delay, Coming::MachineStep { node: at, group, life });
    }

    /// A machine does what it was asked for next; what its engine is to hear of that.
    pub(super) fn machine_step(
        &mut self,
        at: usize,
        id: GroupId,
        life: u32,
    ) -> Result<Option<HostEvent>, Violation> {
        let Some(seat) = self.seat(at, id, life) else { return Ok(None) };
        let Some(step) = seat.lane.pop_front() else { return Ok(None) };
        if !seat.lane.is_empty() {
            self.schedule_machine_step(at, id, life);
        }
        let group = self.groups.get_mut(&id).expect("only what was founded is here");
        let seat = self.nodes[at].seats.get_mut(&id).expect("it was just seen");
        let entries = match &step {
            Machine::Apply(entries) => Some(entries.clone()),
            _ => None,
        };
        match &step {
            Machine::Apply(_) => {
                let draw = self.process.lane(SITE_FORESIGHT, at as u32);
                seat.runner.machine.look_ahead(draw);
            }
            Machine::Capture { capture, .. } => seat.runner.machine.hold(*capture),
            Machine::Restore { at: from, last, .. } => group.oracle.on_restore(at, *from, *last),
            _ => {}
        }
        let mut desk = Desk { requests: &group.requests, ended: Vec::new() };
        let event = seat.runner.perform(step, &mut desk);
        if let Some(Event::Captured { capture, result: Ok(chunk) }) = &event {
            seat.runner.machine.taken(*capture, chunk.bytes.len());
        }
        let ended = desk.ended;
        let applied = std::mem::take(&mut seat.runner.machine.applied);
        if let Some(entries) = entries {
            let checked = group.oracle.on_apply(at, &entries, &applied);
            checked.map_err(|violation| of_group(id, violation))?;
        }
        for (request, result) in ended {
            self.answered(at, id, (request, result), &applied)?;
        }
        Ok(event.map(|event| HostEvent::Group(id, event)))
    }

    fn answered(
        &mut self,
        at: usize,
        id: GroupId,
        (request, result): (RequestId, Result<Vec<u8>, Outcome>),
        applied: &[Applied],
    ) -> Checked {
        let group = self.groups.get_mut(&id).expect("only what was founded is here");
        let asked = group.requests.of(request);
        let position = match &result {
            Ok(answer) if !asked.is_write => {
                let checked = group.oracle.on_query(at, &asked.query, answer);
                checked.map_err(|violation| of_group(id, violation))?;
                Some(group.oracle.position(at))
            }
            Ok(answer) => {
                let checked = group.oracle.answered_at(at, (request, asked), applied, answer);
                checked.map_err(|violation| of_group(id, violation))?
            }
            Err(_) => None,
        };
        self.end(id, request, position.map_or(Fate::Unknown, Fate::Answered))
    }

    /// An engine ended by itself, and its node goes on. It comes back, unless its group was removed,
    /// or the node from its group.
    pub(super) fn halted(&mut self, at: usize, group: GroupId, halt: &Halt) -> Checked {
        self.note(Some(at), Some(group), || format!("halted: {halt}"));
        let has_left = *halt == Halt::Removed && self.groups[&group].oracle.is_former(at);
        let seat = self.nodes[at].seats.get(&group);
        let is_usual = seat.is_some_and(|seat| seat.told.excuses(halt, false));
        if !has_left && !is_usual {
            let what = format!("group {group}: {halt}");
            return Err(Violation::new("no refusal after crashes alone", at, what));
        }
        self.stats.kills += 1;
        self.leave_host(at, group);
        let of = self.groups.get_mut(&group).expect("only what was founded is here");
        if has_left {
            self.stats.removals += 1;
            of.hosts.remove(&at);
        }
        if of.is_removed || !of.hosts.contains(&at) {
            self.nodes[at].seats.remove(&group);
            return Ok(());
        }
        let after = self.process.lane(SITE_RESTART, at as u32).delay(US, 10_000 * US);
        let life = self.nodes[at].life;
        self.schedule(self.now + after, Coming::Seat { node: at, group, life });
        Ok(())
    }

    /// What a group leaves on a node that goes on: a disk as it was, and nobody whom the host knows.
    fn leave_host(&mut self, at: usize, group: GroupId) {
        let draw = self.disks.lane(SITE_CRASH, at as u32);
        if let Some(seat) = self.nodes[at].seats.get_mut(&group) {
            seat.disk.kill(draw);
        }
        self.bury(at, group);
        if let Some(host) = &mut self.nodes[at].host {
            drop(host.remove(group));
        }
    }

    /// A group ends on a node without a word, as one does whose machine panics, and never comes back; the
    /// node goes on.
    pub(super) fn give_up(&mut self, at: usize, group: GroupId) -> Checked {
        self.note(Some(at), Some(group), || "is given up".into());
        self.leave_host(at, group);
        self.feed(at, [])
    }

    /// What follows when an engine is gone.
    pub(super) fn bury(&mut self, at: usize, id: GroupId) {
        let node = &mut self.nodes[at];
        let engine = node.host.as_ref().and_then(|host| host.core(id));
        self.marks.add(engine.map_or(Marks::NONE, |engine| engine.status().marks));
        if let Some(seat) = node.seats.get_mut(&id) {
            seat.end();
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.oracle.on_death(at);
        }
        self.abandon_requests(at, id);
    }
}
