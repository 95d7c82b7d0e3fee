//! What is to come in the world of one group.

use super::{hearsay::Age, taking::Taking};
use bytes::Bytes;
use lakebed::{Event, OpId};

/// Something to come.
#[derive(Clone, Debug)]
pub(super) enum Coming {
    Deliver { from: u32, to: u32, life: u32, age: Age, bytes: Bytes },
    Completion { node: usize, life: u32, op: OpId },
    MachineStep { node: usize, life: u32 },
    Wake { node: usize, life: u32 },
    Start { node: usize, life: u32 },
    LinkUp { node: usize, peer: usize, lives: (u32, u32) },
    LinkDown { node: usize, peer: usize, number: u64 },
    Think { client: usize, round: u32 },
    Patience { client: usize },
    ArmedCut { number: u64 },
    Change { number: u64, turn: u32 },
    BackUp(Box<Taking>),
    Late { node: usize, life: u32, event: Box<Event> },
}
