//! How nodes begin a life: with which configuration, from which disk, and as what.

use super::{GROUP, SITE_ELECTION, World, coming::Coming, node_id};
use crate::{client::Workload, oracle::Checked};
use lakebed::{Config, Engine, Event, File, Start, StateMachine, Tuning};

impl<M: StateMachine, W: Workload> World<M, W> {
    pub(super) fn schedule_start(&mut self, node: usize, after: u64) {
        let life = self.nodes[node].life;
        self.schedule(self.now + after, Coming::Start { node, life });
    }

    pub(super) fn engine(&self, at: usize, seed: u64) -> Engine {
        let mut config = Config::new(GROUP, node_id(at));
        config.disk_align = self.plan.geometry.align;
        config.segment_bytes = self.plan.segment_bytes;
        config.machine_keeps_state = self.plan.keeps > 0;
        config.first_segment_bytes = self.plan.first_segment_bytes;
        config.tuning = self.tuning(at);
        Engine::new(config, seed).expect("plans are configurations that work")
    }

    /// What a node is started with.
    pub(super) fn tuning(&self, at: usize) -> Tuning {
        let mut tuning = self.times.of(&self.plan.tuning);
        // Each node comes before the next.
        tuning.election_delay *= at as u32;
        tuning
    }

    pub(super) fn start(&mut self, at: usize) -> Checked {
        if self.stays_out(at) {
            return Ok(());
        }
        let seed = self.elections.lane(SITE_ELECTION, at as u32).any();
        let engine = self.engine(at, seed);
        let node = &self.nodes[at];
        let is_known = node.is_formatted() || node.scars.is_ruined && !node.scars.is_new;
        let is_forced = self.forcing == Some(at);
        let (start, machine) = match is_known {
            true if is_forced => {
                (Start::ForceSoleVoter { acknowledged_loss: true }, self.fresh_machine())
            }
            true if self.plan.keeps > 0 => self.resumed(at),
            true => (Start::Run, self.fresh_machine()),
            false => self.beginning(at),
        };
        if let Start::Resume { machine } = start {
            self.oracle.on_resume(at, machine);
        }
        let is_spare = |file: &File| matches!(file, File::Spare(_));
        let files = self.nodes[at].disk.list().filter(|(file, _)| !is_spare(file));
        let there = files.map(|(_, bytes)| bytes).sum();
        self.oracle.on_start(at, there);
        self.nodes[at].start(engine, machine);
        self.feed(at, Some(Event::Start(start)))?;
        self.connect(at);
        Ok(())
    }
}
