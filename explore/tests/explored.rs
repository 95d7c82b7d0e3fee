//! The small explorations, whole: every state they can reach keeps what Raft promises.

use lakebed_explore::{FOUNDING, SMALL, explore, walk};

fn goes_through(name: &str, states_at_least: usize) {
    let limits = SMALL.iter().find(|limits| limits.name == name).expect("it is one of them");
    let explored = explore(limits, 1, usize::MAX);
    println!("{name}: {explored}");
    assert_eq!(explored.violation, None);
    assert!(explored.is_whole, "{explored}");
    assert_eq!(explored.unreached, [""; 0], "what it is for was not reached");
    assert!(explored.states >= states_at_least, "fewer states than there were: {explored}");
}

#[test]
fn an_election() {
    goes_through("election", 3_000);
}

#[test]
fn an_entry_and_a_power_cut() {
    goes_through("entry", 700);
}

#[test]
fn messages_that_overtake_each_other_and_come_twice() {
    goes_through("overtaking", 4_000);
}

#[test]
fn a_handover() {
    goes_through("handover", 1_500);
}

#[test]
fn a_removal_by_one_leader_or_two() {
    goes_through("removal", 600);
}

/// It keeps term and vote, and nobody is elected by it who lacks what was committed with its word.
#[test]
fn a_gate_behind_which_a_log_is_lost_while_another_stands() {
    goes_through("gate", 8_000);
}

/// Who was behind it is so still when it has lost power once more.
#[test]
fn a_gate_behind_which_the_power_fails() {
    goes_through("cut-gate", 500);
}

#[test]
fn a_learner_that_is_added_and_promoted() {
    goes_through("learner", 1_500);
}

/// Too many states to see them all.
#[test]
fn walks_while_founders_meet_and_one_loses_its_disk() {
    let walked = walk(&FOUNDING, 1, 12_000);
    println!("founding: {walked}");
    assert_eq!(walked.violation, None);
    assert_eq!(walked.unreached, [""; 0], "what it is for was not reached");
    assert!(walked.steps >= 12_000, "{walked}");
}
