//! The machine lane: steps are performed one after the other, each some time after it was asked
//! for, by the same runner that real drivers use.

use super::{Coming, SITE_MACHINE, World};
use crate::{
    client::{Desk, Errand, Fate, Workload},
    node::{Kept, Node},
    oracle::{Checked, Violation},
    plan::US,
    seat::Seat,
    witness::{Applied, SITE_FORESIGHT, in_one_piece},
};
use lakebed::{Entries, Event, LogId, Machine, Start, StateMachine};

impl<M: StateMachine, W: Workload> World<M, W> {
    pub(super) fn push_machine_step(&mut self, at: usize, step: Machine) -> Checked {
        self.may_be_kept(at, &step)?;
        self.check_machine_step(at, &step)?;
        let lane = &mut self.nodes[at].lane;
        lane.push_back(step);
        if lane.len() == 1 {
            self.schedule_machine_step(at);
        }
        Ok(())
    }

    /// A machine that keeps its own state must not be ahead of the log that its node has after a crash.
    fn may_be_kept(&self, at: usize, step: &Machine) -> Checked {
        let Machine::Apply(entries) = step else { return Ok(()) };
        if self.plan.keeps == 0 {
            return Ok(());
        }
        let durable = self.probe(at).map(|probe| probe.durable);
        if Some(entries.last) <= durable {
            return Ok(());
        }
        let what = format!("its machine is to keep {}, and durable is {durable:?}", entries.last);
        Err(Violation::new("kept state is in the log", at, what))
    }

    fn schedule_machine_step(&mut self, at: usize) {
        let delay = self.process.lane(SITE_MACHINE, at as u32).delay(US, 20 * US);
        let life = self.nodes[at].life;
        self.schedule(self.now + delay, Coming::MachineStep { node: at, life });
    }

    pub(super) fn machine_step(&mut self, at: usize) -> Checked {
        let Some(step) = self.nodes[at].lane.pop_front() else { return Ok(()) };
        if !self.nodes[at].lane.is_empty() {
            self.schedule_machine_step(at);
        }
        self.check_query(at, &step)?;
        if let Machine::Capture { at: id, .. } = &step {
            self.note_capture(at, *id)?;
        }
        let (entries, reached) = (self.prepare(at, &step), reached(&step));
        let mut desk = Desk { requests: &self.requests, ended: Vec::new() };
        let runner = &mut self.nodes[at].runner;
        let event = runner.perform(step, &mut desk);
        if let Some(Event::Captured { capture, result: Ok(chunk) }) = &event {
            runner.machine.taken(*capture, chunk.bytes.len());
        }
        let ended = desk.ended;
        let mut applied = std::mem::take(&mut runner.machine.applied);
        if let Some(entries) = entries {
            self.oracle.on_apply(at, &entries, &applied)?;
        }
        for (id, result) in ended {
            self.answered(at, id, result, &applied)?;
        }
        applied.clear();
        self.nodes[at].runner.machine.applied = applied;
        self.keep(at, reached);
        event.map_or(Ok(()), |event: Event| self.feed(at, Some(event)))
    }

    /// The machine writes its state durably, if that is due: a new one at once, else after some entries.
    fn keep(&mut self, at: usize, reached: Option<(LogId, bool)>) {
        let (Some((id, is_new)), keeps) = (reached, self.plan.keeps) else { return };
        let Node { kept, runner, .. } = &mut self.nodes[at];
        if keeps > 0 && (is_new || id.index.0 >= kept.at.index.0 + keeps) {
            let state = in_one_piece(runner.machine.machine.freeze());
            *kept = Kept { at: id, state: state.into() };
        }
    }

    /// A machine that keeps its own state, as it was written last, and how its node starts with it.
    pub(super) fn resumed(&self, at: usize) -> (Start, Seat<M>) {
        let (mut machine, kept) = (self.fresh_machine(), &self.nodes[at].kept);
        if kept.at != LogId::ZERO {
            let restored = machine.restore(0, &kept.state, true);
            restored.expect("a machine takes in what it has frozen");
        }
        (Start::Resume { machine: kept.at }, machine)
    }

    /// What has to be known before a step is performed; the entries that it applies.
    fn prepare(&mut self, at: usize, step: &Machine) -> Option<Entries> {
        match step {
            Machine::Apply(entries) => {
                let draw = self.process.lane(SITE_FORESIGHT, at as u32);
                self.nodes[at].runner.machine.look_ahead(draw);
                return Some(entries.clone());
            }
            Machine::Query { requests, .. } => {
                requests.ids().for_each(|id| self.oracle.on_ask(at, &self.requests.of(id).query));
            }
            Machine::Capture { capture, .. } => self.nodes[at].runner.machine.hold(*capture),
            Machine::Restore { at: id, last, .. } => self.oracle.on_restore(at, *id, *last),
            _ => {}
        }
        None
    }

    /// A request was answered in a step in which this was applied.
    fn answered(
        &mut self,
        at: usize,
        id: lakebed::RequestId,
        result: Result<Vec<u8>, lakebed::Outcome>,
        applied: &[Applied],
    ) -> Checked {
        let request = self.requests.of(id);
        let position = match &result {
            Ok(answer) if !request.is_write => {
                self.oracle.on_query(at, &request.query, answer)?;
                Some(self.oracle.position(at))
            }
            Ok(answer) => {
                let position = self.oracle.answered_at(at, (id, request), applied, answer)?;
                if request.errand != Errand::Plain {
                    self.replied(id, answer, position.unwrap_or_default())?;
                }
                position
            }
            Err(_) => None,
        };
        self.end(id, position.map_or(Fate::Unknown, Fate::Answered))
    }
}

/// How far a step takes the machine, and whether to a state that is not what it had before and more.
fn reached(step: &Machine) -> Option<(LogId, bool)> {
    match step {
        Machine::Apply(entries) => entries.entries().last().map(|entry| (entry.id, false)),
        Machine::Restore { at, last: true, .. } => Some((*at, true)),
        _ => None,
    }
}
