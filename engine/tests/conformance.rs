//! The drivers we show pass the kit, and a driver that breaks one clause is told which.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Clocks and threads live here.

#[path = "../examples/three_nodes/driver.rs"]
#[allow(dead_code, reason = "its handle is not called here")]
mod driver;
#[path = "conformance/flawed.rs"]
mod flawed;
#[path = "conformance/hub.rs"]
mod hub;
#[path = "../examples/minimal.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a program of its own")]
mod minimal;
#[path = "../examples/three_nodes/network.rs"]
mod network;

use flawed::{Flaw, Flawed};
use hub::{Hub, Nobody};
use lakebed::{
    Event,
    conformance::{CASES, Clause, Seat, Verdict, check, check_case},
    files::Directory,
};

/// What it gives out lies side by side: what is no shared buffer is not taken for one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What drivers without seams cannot be asked.
const NEED_SEAMS: [&str; 2] = ["failures put in", "losses put in"];

#[test]
fn the_driver_of_the_front_page_keeps_the_contract() {
    let scratch = tempfile::tempdir().unwrap();
    let hub = Hub::default();
    let report = check(scratch.path(), move |mut seat: Seat| {
        let (case, node) = (seat.case, seat.node);
        let inbox = hub.enter(case, node);
        let disk = Directory::open(&seat.dir).unwrap();
        let perform = |op, request| {
            seat.disk.submit(op, request);
            let (_, result) = seat.disk.complete(|request| disk.perform(request)).unwrap();
            result
        };
        let send = |to, head: &[u8], body: &[u8]| {
            let is_lost = seat.link.loses(to);
            if is_lost {
                // The connection stands: what comes next arrives.
                hub.tell(case, node, Event::Link { peer: to, up: true });
            }
            !is_lost && hub.send(case, node, to, [head, body].concat().into())
        };
        let core = (seat.core, seat.start);
        minimal::drive(core, perform, seat.machine, &mut Nobody, &inbox, send);
        hub.leave(case, node);
    });
    report.assert();
}

#[test]
fn the_driver_of_the_example_keeps_the_contract() {
    let scratch = tempfile::tempdir().unwrap();
    let report = check(scratch.path(), |seat: Seat| {
        let disk = Directory::open(&seat.dir).unwrap();
        let (_, node) = driver::Node::new(seat.node, disk, seat.listener, &seat.members);
        node.run(seat.core, seat.start, seat.machine);
    });
    report.accept_unchecked(&NEED_SEAMS).assert();
}

#[test]
fn a_driver_under_faults_keeps_the_contract() {
    let scratch = tempfile::tempdir().unwrap();
    let hub = Hub::default();
    check(scratch.path(), move |seat| Flawed::drive(Flaw::None, &hub, seat)).assert();
}

#[test]
fn what_was_not_checked_is_not_passed_over() {
    let scratch = tempfile::tempdir().unwrap();
    let report = check(scratch.path(), |seat: Seat| {
        let disk = Directory::open(&seat.dir).unwrap();
        let (_, node) = driver::Node::new(seat.node, disk, seat.listener, &seat.members);
        node.run(seat.core, seat.start, seat.machine);
    });
    let unchecked: Vec<&str> = report.unchecked.iter().map(|unchecked| unchecked.case).collect();
    assert_eq!((unchecked, report.failures.len()), (NEED_SEAMS.to_vec(), 0));
    assert_eq!(
        report.to_string(),
        "9 of 11 cases passed, 2 not checked\n  \
         failures put in: not checked: the driver does not use FaultyDisk\n  \
         losses put in: not checked: the driver does not use LossyLink\n"
    );
    let refused = std::panic::catch_unwind(|| report.assert()).unwrap_err();
    assert!(refused.downcast_ref::<String>().is_some_and(|said| said.contains("2 not checked")));
}

/// A driver with a way around a seam would pass a case that asked nothing of it.
#[test]
fn what_goes_around_a_seam_is_not_checked() {
    let disk = "the driver does not use FaultyDisk for every operation";
    let link = "the driver does not ask LossyLink before each send: nothing was lost";
    for (flaw, case, why) in
        [(Flaw::SyncsBeside, "failures put in", disk), (Flaw::AsksOfOneLoss, "losses put in", link)]
    {
        let verdict = drive(flaw, case);
        let Verdict::Unchecked(unchecked) = &verdict else { panic!("{flaw:?}: {verdict:?}") };
        assert_eq!((unchecked.case, unchecked.why), (case, why));
    }
}

fn drive(flaw: Flaw, case: &str) -> Verdict {
    let scratch = tempfile::tempdir().unwrap();
    let hub = Hub::default();
    check_case(case, scratch.path(), move |seat| Flawed::drive(flaw, &hub, seat))
}

/// Drives one case with a flaw, which must be noticed as a breach of this clause.
fn is_noticed(flaw: Flaw, case: &str, clause: Clause) {
    let verdict = drive(flaw, case);
    let Verdict::Failed(failure) = &verdict else { panic!("{flaw:?}, {case}: {verdict:?}") };
    assert_eq!(failure.breach.clause, clause, "{flaw:?}: {failure}");
}

#[test]
fn flaws_at_the_beginning_and_the_end_are_noticed() {
    is_noticed(Flaw::NoStart, "disk content", Clause::StartFirst);
    is_noticed(Flaw::StartTwice, "disk content", Clause::StartFirst);
    is_noticed(Flaw::LeavesEarly, "disk content", Clause::UntilHalt);
    is_noticed(Flaw::GoesOn, "disk content", Clause::DroppedAfterHalt);
}

#[test]
fn flaws_of_time_are_noticed() {
    is_noticed(Flaw::ForgetsDeadlines, "deadlines", Clause::Deadline);
    is_noticed(Flaw::OversleepsDeadlines, "deadlines", Clause::Deadline);
    is_noticed(Flaw::KeepsTheTime, "deadlines", Clause::TimeTold);
    is_noticed(Flaw::TellsTheTimeOnce, "deadlines", Clause::TimeTold);
}

#[test]
fn flaws_of_completions_are_noticed() {
    is_noticed(Flaw::LosesCompletions, "many operations in flight", Clause::OpEnds);
    is_noticed(Flaw::CompletesTwice, "many operations in flight", Clause::OpEnds);
    is_noticed(Flaw::MatchesByOrder, "many operations in flight", Clause::DiskContent);
    is_noticed(Flaw::LeavesOperationsRunning, "a former core's operations", Clause::FormerLife);
    is_noticed(Flaw::TellsTheNextLife, "a former core's operations", Clause::FormerLife);
}

#[test]
fn flaws_of_the_disk_are_noticed() {
    is_noticed(Flaw::SkipsTheSecondPlace, "disk content", Clause::DiskContent);
    is_noticed(Flaw::SkipsTheSecondPlaceUnlessDurable, "disk content", Clause::DiskContent);
    is_noticed(Flaw::LosesSnapshots, "disk content", Clause::DiskContent);
    is_noticed(Flaw::SkipsZeros, "disk content", Clause::DiskContent);
    is_noticed(Flaw::ReadsShort, "many operations in flight", Clause::DiskContent);
    is_noticed(Flaw::HidesFailures, "failures put in", Clause::FailureTold);
    is_noticed(Flaw::HidesFailuresOfReads, "failures put in", Clause::FailureTold);
    is_noticed(Flaw::HidesFailuresOfNames, "failures put in", Clause::FailureTold);
    is_noticed(Flaw::HidesFailures, "disk failures", Clause::DiskContent);
    is_noticed(Flaw::SwallowsErrors, "disk failures", Clause::FailureTold);
    is_noticed(Flaw::SaysOnlyNumbers, "disk failures", Clause::FailureTold);
    #[cfg(target_os = "linux")]
    is_noticed(Flaw::LeavesSyncsOut, "disk failures", Clause::FailureTold);
    is_noticed(Flaw::TriesAgain, "failures put in", Clause::FailureTold);
    is_noticed(Flaw::PanicsAtFailures, "failures put in", Clause::Panicked);
}

#[test]
fn flaws_of_the_machine_lane_are_noticed() {
    is_noticed(Flaw::CapturesLate, "machine order", Clause::MachineInOrder);
    is_noticed(Flaw::ClaimsTooMuch, "machine order", Clause::MachineInOrder);
    is_noticed(Flaw::ClaimsBeforehand, "machine order", Clause::MachineInOrder);
    is_noticed(Flaw::AnswersTheNewestRestore, "machine order", Clause::MachineInOrder);
    is_noticed(Flaw::PassesOverEmptyRestores, "machine order", Clause::MachineInOrder);
    is_noticed(Flaw::ReversesSteps, "machine order", Clause::MachineInOrder);
    is_noticed(Flaw::HidesRefusals, "machine order", Clause::MachineInOrder);
}

#[test]
fn losses_of_the_network_are_noticed() {
    is_noticed(Flaw::LosesInSilence, "messages", Clause::LossTold);
    is_noticed(Flaw::OverrunsItsQueue, "messages", Clause::LossTold);
    is_noticed(Flaw::LosesInSilence, "losses put in", Clause::LossTold);
    is_noticed(Flaw::LosesInSilence, "a peer that restarts", Clause::LossTold);
    is_noticed(Flaw::OverrunsItsQueue, "a peer that restarts", Clause::LossTold);
}

#[test]
fn flaws_of_the_network_are_noticed() {
    is_noticed(Flaw::StaysDown, "messages", Clause::LinkUp);
    is_noticed(Flaw::ReordersSends, "messages", Clause::SendsInOrder);
    is_noticed(Flaw::CutsMessages, "messages", Clause::SendsInOrder);
    is_noticed(Flaw::SharesBuffers, "messages", Clause::OwnBuffer);
    is_noticed(Flaw::ReadsIntoOneBuffer, "messages", Clause::OwnBuffer);
}

/// What a message's memory is, and who else reads it, is the driver's own affair.
#[test]
fn a_buffer_of_its_own_is_any_that_no_other_message_lies_in() {
    for flaw in [Flaw::KeepsMessages, Flaw::OwnsItsBuffers] {
        for case in ["messages", "a peer that restarts", "three engines, restarted"] {
            assert_eq!(drive(flaw, case), Verdict::Passed, "{flaw:?}, {case}");
        }
    }
}

#[test]
fn every_case_has_its_own_name() {
    let mut names = CASES.to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), CASES.len());
}
