//! A workload whose mistakes are told as its own: that it panics, and that it asks for a command
//! which the engines of this plan refuse whatever happens.

use crate::{
    client::{Op, Workload},
    panics,
    plan::Plan,
    prng::Draw,
    seat,
    witness::PREFIX_BYTES,
};
use lakebed::{Timestamp, entry::HEAD_BYTES, session::SessionId};

/// The length before each command of an entry.
const LENGTH_BYTES: usize = 4;

/// A workload under a plan.
#[derive(Clone, Debug)]
pub(crate) struct Measured<W> {
    workload: W,
    append_bytes_max: usize,
    command_bytes_max: usize,
}

impl<W> Measured<W> {
    pub(crate) fn under(plan: &Plan, workload: W) -> Self {
        let append_bytes_max = plan.tuning.append_bytes_max as usize;
        let command_bytes_max = append_bytes_max.saturating_sub(beside_a_command(plan));
        Self { workload, append_bytes_max, command_bytes_max }
    }
}

impl<W: Workload> Workload for Measured<W> {
    fn next(&mut self, draw: &mut Draw) -> Op {
        let blame = panics::Blame("the workload does not panic");
        let op = self.workload.next(draw);
        drop(blame);
        if let Op::Propose(command) = &op
            && command.len() > self.command_bytes_max
        {
            let (bytes, append, most) =
                (command.len(), self.append_bytes_max, self.command_bytes_max);
            panics::raise(
                "a command fits into an entry",
                format!(
                    "your command of {bytes} bytes exceeds this plan's append-bytes {append}, \
                     which hold {most} bytes of a command; Storm::commands_up_to({bytes}) makes \
                     all plans hold it, as your own Tuning::append_bytes_max must"
                ),
            );
        }
        op
    }
}

/// What lies in an append beside a command, at most.
fn beside_a_command(plan: &Plan) -> usize {
    let session = SessionId { number: u64::MAX, opened: Timestamp(u64::MAX) };
    let of_session = || seat::step(session, u64::MAX, u64::MAX, b"").len();
    HEAD_BYTES + LENGTH_BYTES + PREFIX_BYTES + plan.sessions.map_or(0, |_| of_session())
}

/// Raises a plan's limits, as far as it takes, so that commands of this many bytes fit. Everything
/// that holds an append grows with it.
pub(crate) fn make_room(plan: &mut Plan, command_bytes: usize) {
    let append = u32::try_from(command_bytes + beside_a_command(plan)).unwrap_or(u32::MAX);
    let tuning = &mut plan.tuning;
    tuning.append_bytes_max = tuning.append_bytes_max.max(append);
    let append = u64::from(tuning.append_bytes_max);
    for queue in [
        &mut tuning.inflight_bytes_max,
        &mut tuning.propose_bytes_max,
        &mut tuning.apply_bytes_max,
        &mut tuning.cache_bytes_max,
        &mut tuning.catch_up_bytes_max,
    ] {
        *queue = append.max(*queue);
    }
    // Half a segment holds any entry.
    plan.segment_bytes = plan.segment_bytes.max((2 * append).next_power_of_two());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Seed, Storm};
    use bytes::Bytes;
    use lakebed::{LogId, MachineError, StateMachine};

    /// Counts.
    #[derive(Default)]
    struct Count(u64);

    impl StateMachine for Count {
        fn apply(&mut self, _: LogId, _: Timestamp, _: &[u8], answer: &mut Vec<u8>) {
            self.0 += 1;
            self.query(&[], answer);
        }

        fn query(&self, _: &[u8], answer: &mut Vec<u8>) {
            answer.extend_from_slice(&self.0.to_le_bytes());
        }

        fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
            Box::new(std::iter::once(Bytes::copy_from_slice(&self.0.to_le_bytes())))
        }

        fn restore(&mut self, offset: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
            for (byte, at) in bytes.iter().zip(offset..) {
                let shift = at * 8;
                self.0 = self.0 & !(0xff << shift) | u64::from(*byte) << shift;
            }
            Ok(())
        }
    }

    fn of(bytes: usize) -> impl FnMut(&mut Draw) -> Op {
        move |draw| {
            if draw.ratio(1, 4) { Op::Read(Vec::new()) } else { Op::Propose(vec![7; bytes]) }
        }
    }

    #[test]
    fn a_command_that_no_entry_holds_is_told_by_its_size() {
        let broken =
            (0..).find_map(|seed| Storm::new(Seed::new(seed)).run(Count::default, of(2000)).err());
        let violation = broken.unwrap().violation;
        assert_eq!(violation.invariant, "a command fits into an entry");
        let told = "your command of 2000 bytes exceeds this plan's append-bytes 1024, which hold ";
        assert!(violation.what.starts_with(told), "{}", violation.what);
    }

    #[test]
    fn the_largest_command_that_is_let_through_is_taken() {
        let mut plan = Plan::storm(3, 3);
        plan.tuning.append_bytes_max = 1 << 10;
        let sessions = (0..).find_map(|seed| Plan::storm(seed, 3).sessions);
        for sessions in [None, sessions] {
            plan.sessions = sessions;
            let most = Measured::under(&plan, ()).command_bytes_max;
            let run = |bytes| {
                let plan = plan.clone();
                Storm::new(Seed::of_plan(plan)).run(Count::default, of(bytes))
            };
            assert_eq!(run(most).map(|_| ()).map_err(|failure| failure.to_string()), Ok(()));
            run(most + 1).unwrap_err();
        }
    }

    #[test]
    fn every_plan_has_room_for_what_it_is_told() {
        for seed in 0..200 {
            for bytes in [0, 1, 900, 5000, 70_000, 10 << 20] {
                let storm = Storm::new(Seed::new(seed)).commands_up_to(bytes).nodes(5).swarm();
                storm.plan().validate().unwrap();
                assert!(Measured::under(storm.plan(), ()).command_bytes_max >= bytes);
            }
        }
        for seed in 0..3 {
            let storm = Storm::new(Seed::new(seed)).commands_up_to(20_000);
            let told = storm.run(Count::default, of(20_000)).map_err(|told| told.to_string());
            assert!(told.unwrap().stats.answered > 0);
        }
    }

    #[test]
    fn what_fits_already_changes_nothing() {
        let storm = || Storm::new(Seed::new(1));
        assert_eq!(storm().commands_up_to(500).plan(), storm().plan());
    }

    #[test]
    fn a_workload_that_panics_is_told_of_as_itself() {
        let workload = |_: &mut Draw| -> Op { panic!("no idea") };
        let failure = Storm::new(Seed::new(0)).run(Count::default, workload).unwrap_err();
        assert_eq!(failure.violation.invariant, "the workload does not panic");
        assert!(failure.violation.what.ends_with(": no idea"), "{}", failure.violation.what);
    }

    #[test]
    #[should_panic(expected = "the plan cannot be run: 0 nodes; there must be 1 to 32")]
    fn no_nodes_are_no_cluster() {
        drop(Storm::new(Seed::new(0)).nodes(0).run(Count::default, of(1)));
    }

    #[test]
    #[should_panic(expected = "the plan cannot be run: 40 nodes; there must be 1 to 32")]
    fn too_many_nodes_are_no_cluster() {
        drop(Storm::new(Seed::new(0)).nodes(40).run(Count::default, of(1)));
    }
}
