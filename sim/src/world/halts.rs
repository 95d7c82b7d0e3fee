//! Engines that end by themselves, and whether they may.

use super::{SITE_RESTART, World};
use crate::{
    client::Workload,
    oracle::{Checked, Violation},
    plan::US,
};
use lakebed::{Halt, StateMachine};

impl<M: StateMachine, W: Workload> World<M, W> {
    /// The engine ended by itself. After faults within the contract it may only have been asked to
    /// stop, or have met the failed operation that was drawn for it.
    pub(super) fn halted(&mut self, at: usize, halt: Halt) -> Checked {
        let refused = matches!(
            halt,
            Halt::Refused { .. }
                | Halt::NotFormatted
                | Halt::AlreadyFormatted
                | Halt::DiskLost { .. }
        );
        let is_out = refused && self.nodes[at].scars.is_ruined;
        let expected = is_out || matches!(halt, Halt::Stopped | Halt::DiskFailed { .. });
        self.note(Some(at), || format!("halted: {halt}"));
        if !expected {
            return Err(Violation::new("no refusal after crashes alone", at, halt.to_string()));
        }
        self.kill(at);
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
