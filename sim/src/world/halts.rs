//! Engines that end by themselves, or call something lost, and whether they may.

use super::{SITE_RESTART, World};
use crate::{
    client::Workload,
    node::{Node, Scars},
    oracle::{Checked, Violation},
    plan::US,
};
use lakebed::{File, Halt, StateMachine, inspect::Probe};

impl<M: StateMachine, W: Workload> World<M, W> {
    /// The engine ended by itself. After faults within the contract it may only have been asked to
    /// stop, or have met a failed operation that was drawn for it, in this life.
    pub(super) fn halted(&mut self, at: usize, halt: Halt) -> Checked {
        let refused = matches!(
            halt,
            Halt::Refused { .. }
                | Halt::NotFormatted
                | Halt::AlreadyFormatted
                | Halt::DiskLost { .. }
        );
        let is_forced = self.ends_force(at, &halt);
        // One that was forced before it crashed is refused only as one that needs no force.
        let is_out = refused && self.nodes[at].scars.is_ruined && !is_forced;
        let is_left_behind =
            matches!(halt, Halt::LeftBehind { .. }) && self.oracle.is_left_behind(at);
        let has_left = halt == Halt::Removed && self.oracle.is_former(at) || is_left_behind;
        // It comes back behind a gate.
        let is_lost = matches!(halt, Halt::LogLost { .. }) && self.nodes[at].scars.is_ruined;
        // Members that were made from different backups are no cluster.
        let falls_out = matches!(halt, Halt::OtherOrigin { .. }) && !self.is_of_one_piece();
        let is_out = is_out || falls_out;
        let Node { told, scars, .. } = &self.nodes[at];
        let is_usual = matches!(halt, Halt::Built(_)) || told.excuses(&halt, scars.is_ruined);
        let expected = is_out || has_left || is_lost || is_usual || is_forced;
        self.note(Some(at), || format!("halted: {halt}"));
        if !expected {
            return Err(Violation::new("no refusal after crashes alone", at, halt.to_string()));
        }
        self.kill(at);
        if has_left {
            self.stats.removals += 1;
            self.nodes[at].has_left = true;
            return Ok(());
        }
        if is_out {
            self.stats.refusals += 1;
            self.nodes[at].scars.is_out = true;
            return Ok(());
        }
        let after = self.process.lane(SITE_RESTART, at as u32).delay(US, 10_000 * US);
        self.schedule_start(at, after);
        Ok(())
    }
}

impl Scars {
    /// Crashes alone never cost a node an entry, its vote or its state, and damage no more than it struck.
    /// `comes`: this is the first that it shows of what it found on its disk.
    pub(crate) fn excuse(&self, at: usize, probe: &Probe, comes: bool) -> Checked {
        if probe.gated && !self.is_ruined {
            let what = "calls entries lost that were durable".into();
            return Err(Violation::new("no gate after crashes alone", at, what));
        }
        if self.is_ruined {
            return Ok(());
        }
        // Damage excuses what it can have done: entries that a snapshot has taken the place of are gone
        // with what struck them, and damage to anything else leaves entries and state as they are.
        let of_log = |struck: &u32| u64::from(*struck) >= probe.first.0;
        let is_owed = |struck: &u32| probe.owed.is_none_or(|owed| u64::from(*struck) == owed.0);
        if probe.holed && !self.entries.iter().any(|struck| of_log(struck) && is_owed(struck)) {
            let (owed, first) = (probe.owed, probe.first);
            let what = format!(
                "calls an entry bad, {owed:?} of a log from {first} on, that nothing has damaged"
            );
            return Err(Violation::new("no hole after crashes alone", at, what));
        }
        // What a restart finds bad, and no snapshot holds, it has not, whatever it acknowledged.
        let behind = probe.snapshot.index.0.max(probe.first.previous().0);
        let is_behind = |struck: &u32| u64::from(*struck) > behind;
        if comes && probe.holed && probe.owed.is_none() && self.entries.iter().all(is_behind) {
            let what = format!(
                "found an entry behind {} bad, and calls {} durable as if nothing were",
                probe.snapshot, probe.durable
            );
            return Err(Violation::new("what is lost is owed", at, what));
        }
        let is_snapshot = |file: &File| matches!(file, File::Snapshot(_));
        if probe.stateless && !self.files.iter().any(is_snapshot) {
            let what = format!("has no snapshot that its log from {} goes on from", probe.first);
            return Err(Violation::new("no lost state after crashes alone", at, what));
        }
        Ok(())
    }
}
