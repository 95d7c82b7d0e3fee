//! Nobody on a disk's threads sleeps while there is work, and none of it ends unheard.

use super::{
    Ending,
    gate::Gate,
    lane::{Done, Job, Lane},
    place::Place,
    pool::Pool,
};
use crate::woken::{found, model};
use lakebed::{Class, Completion, DiskError, DiskRequest, File, GroupId, OpId};
use loom::future::block_on;
use std::sync::Arc;

/// Where all is done at once, and a new file is made in one piece.
struct Nowhere;

impl Place for Nowhere {
    fn perform(&self, _: &DiskRequest) -> Ending {
        Ok(Completion::Done)
    }

    fn read(&self, _: File, _: u64, _: &mut [u8]) -> Result<usize, DiskError> {
        Ok(0)
    }

    fn create(&self, _: File, _: u64, before_piece: &mut dyn FnMut()) -> Ending {
        before_piece();
        Ok(Completion::Done)
    }

    fn remove(&self, _: File, before_piece: &mut dyn FnMut()) -> Ending {
        before_piece();
        Ok(Completion::Done)
    }
}

const SYNC: DiskRequest = DiskRequest::Sync { file: File::Segment(1) };
const READ: DiskRequest = DiskRequest::Read { file: File::Segment(1), offset: 0, len: 1 };
const CREATE: DiskRequest = DiskRequest::Create { file: File::Spare(1), len: 1, zeroed: true };
const REMOVE: DiskRequest = DiskRequest::Remove { file: File::Spare(2) };

#[test]
fn a_lane_sleeps_only_when_there_is_nothing_to_do() {
    model(3, || {
        let done = Arc::new(Done::default());
        let gate = Arc::new(Gate::default());
        let lane = Lane::new("lane", Arc::new(Nowhere), gate, Arc::clone(&done)).unwrap();
        for (op, class, request) in
            [(1, Class::Background, CREATE), (2, Class::Commit, SYNC), (3, Class::Serve, READ)]
        {
            lane.push(Job { op: OpId(op), class, request });
        }
        let mut ended = Vec::new();
        block_on(found(3, |waker| done.take(waker, &mut ended)));
        drop(lane);
    });
}

/// Runs these operations of groups, those of each round behind the end of the ones before.
fn run(rounds: &[&[(u64, Class, DiskRequest)]]) {
    let mut pool = Pool::new().unwrap();
    pool.add(GroupId(1), Nowhere);
    pool.add(GroupId(2), Nowhere);
    for round in rounds {
        for (op, (group, class, request)) in (0..).zip(*round) {
            pool.submit(GroupId(*group), OpId(op), *class, request.clone());
        }
        pool.flush();
        block_on(found(round.len(), |waker| pool.take(waker).len()));
    }
}

#[test]
fn each_crew_of_a_pool_is_woken_for_its_own() {
    model(1, || run(&[&[(1, Class::Commit, SYNC), (1, Class::Serve, READ)]]));
}

#[test]
fn what_gathers_behind_a_groups_turn_has_one() {
    model(1, || run(&[&[(1, Class::Commit, SYNC)], &[(1, Class::Commit, SYNC)]]));
}

/// One thread is kept for what is more urgent: whatever else waits has its turn when the other is free.
#[test]
fn what_nobody_waits_for_is_done_by_one_of_two_threads() {
    model(1, || run(&[&[(1, Class::Background, CREATE), (2, Class::Background, REMOVE)]]));
}
