//! How clients ask: which reads are as fresh as can be, how many commands go together.

use super::{
    MS,
    site::Site,
    text::{Field, TIME_MAX, plain, time},
};

/// What rates are parts of.
const RATE_MAX: u64 = 65_536;
/// The most commands that are proposed together.
const BATCH_MAX: u64 = 16;

/// How clients ask in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Manner {
    /// Reads in 65,536 that want a round where others are served under leases.
    pub rounds: u64,
    /// Reads in 65,536 that are content with what a node knows itself.
    pub local: u64,
    /// How long ago it may have heard from a leader then, at most; drawn for each read.
    pub stale_max: u64,
    /// The most commands that a client proposes together.
    pub batch: u64,
    /// How many clients, the last ones, only read: whoever writes waits for its answer where nobody can
    /// give one, and does not notice what a leader answers that leads no longer.
    pub readers: usize,
}

impl Default for Manner {
    /// Each read alike, and one command at a time.
    fn default() -> Self {
        Self { rounds: 0, local: 0, stale_max: 0, batch: 1, readers: 0 }
    }
}

impl Manner {
    pub(super) fn of_storm(seed: u64) -> Self {
        let mut draw = Site::Manner.draw(seed);
        Self {
            rounds: *draw.pick(&[0, 6_553, 32_768]),
            local: *draw.pick(&[0, 6_553, 32_768]),
            stale_max: *draw.pick(&[5 * MS, 40 * MS, 300 * MS]),
            batch: *draw.pick(&[1, 2, 3]),
            readers: *draw.pick(&[0, 1, 2]),
        }
    }

    pub(super) fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            plain("rounds", &mut self.rounds),
            plain("local", &mut self.local),
            time("stale", &mut self.stale_max),
            plain("batch", &mut self.batch),
            plain("readers", &mut self.readers),
        ]
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        let Self { rounds, local, stale_max, batch, .. } = *self;
        if rounds > RATE_MAX || local > RATE_MAX || stale_max > TIME_MAX {
            return Err(format!("of {RATE_MAX} reads that many at most are of a kind"));
        }
        if !(1..=BATCH_MAX).contains(&batch) {
            return Err(format!("1 to {BATCH_MAX} commands are proposed together"));
        }
        Ok(())
    }
}
