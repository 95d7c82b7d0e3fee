//! The machine lane: steps are performed one after the other, each some time after it was asked
//! for, by the same runner that real drivers use.

use super::{Coming, SITE_MACHINE, World};
use crate::{
    client::{Desk, Errand, Fate, Workload},
    oracle::Checked,
    plan::US,
    witness::Applied,
};
use lakebed::{Entries, Event, Machine, StateMachine};

impl<M: StateMachine, W: Workload> World<M, W> {
    pub(super) fn push_machine_step(&mut self, at: usize, step: Machine) {
        let lane = &mut self.nodes[at].lane;
        lane.push_back(step);
        if lane.len() == 1 {
            self.schedule_machine_step(at);
        }
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
        let entries = self.prepare(at, &step);
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
        event.map_or(Ok(()), |event: Event| self.feed(at, Some(event)))
    }

    /// What has to be known before a step is performed; the entries that it applies.
    fn prepare(&mut self, at: usize, step: &Machine) -> Option<Entries> {
        match step {
            Machine::Apply(entries) => return Some(entries.clone()),
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
