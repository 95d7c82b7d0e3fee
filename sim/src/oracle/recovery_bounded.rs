//! What a restart reads before it knows what its disk holds is no more than what is there (simulation, I21): it does not
//! look at anything for ever, nor again and again.
//!
//! Believes nobody: counts what is asked of the disk.

use super::{Checked, Violation};

/// What is asked for and may not be there, as a hard state and blocks behind a file's end, and what is read again where a
/// cut is to be repeated.
const BESIDE: u64 = 128 << 10;

#[derive(Clone, Copy, Debug, Default)]
struct Restart {
    there: u64,
    read: u64,
}

/// What each node reads in its present life before its disk is judged.
#[derive(Clone, Debug)]
pub(super) struct Restarts(Vec<Restart>);

impl Restarts {
    pub(super) fn new(nodes: usize) -> Self {
        Self(vec![Restart::default(); nodes])
    }

    /// A life begins above so many bytes, beside spares.
    pub(super) fn on_start(&mut self, node: usize, there: u64) {
        self.0[node] = Restart { there, read: 0 };
    }

    /// So much is read in a life that does not know yet what its disk holds.
    pub(super) fn on_read(&mut self, node: usize, bytes: u64) -> Checked {
        let Restart { there, read } = &mut self.0[node];
        *read += bytes;
        let most = *there + BESIDE;
        if *read <= most {
            return Ok(());
        }
        let what = format!("has read {read} bytes of {there}, and does not know what they are");
        Err(Violation::new("recovery within bounds", node, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_may_read_its_disk_once_and_the_next_one_again() {
        let mut restarts = Restarts::new(2);
        for _ in 0..2 {
            restarts.on_start(1, 1 << 20);
            assert!(restarts.on_read(1, 1 << 20).is_ok() && restarts.on_read(1, BESIDE).is_ok());
            let told = restarts.on_read(1, 1).expect_err("that is too much");
            assert_eq!((told.invariant, told.node), ("recovery within bounds", Some(1)));
        }
        assert!(restarts.on_read(0, BESIDE).is_ok(), "another node");
    }
}
