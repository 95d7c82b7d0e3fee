//! A whole driver in forty lines: one thread, a directory, and a channel for all that comes in.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Clocks and threads live here.

use bytes::Bytes;
use lakebed::{
    Action, Batch, Clients, ClusterId, Completion, Config, Core, DiskError, DiskRequest, Engine,
    Event, GroupId, Halt, Instant, Member, Membership, NodeId, OpId, Outcome, RequestId, Runner,
    Small, SmallMachine, Start, StateMachine, Timestamp, files::Directory,
};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, mpsc},
    time::{SystemTime, UNIX_EPOCH},
};

/// Drives a node until it halts. `perform` is its disk; `inbox` brings messages, links, proposals and
/// reads, and is never closed; `send` says whether it could.
pub fn drive<M: StateMachine>(
    (mut core, start): (impl Core, Start),
    mut perform: impl FnMut(OpId, DiskRequest) -> Result<Completion, DiskError>,
    machine: M,
    clients: &mut impl Clients,
    inbox: &mpsc::Receiver<Event>,
    mut send: impl FnMut(NodeId, &[u8], &[u8]) -> bool,
) -> Halt {
    let (origin, mut runner) = (std::time::Instant::now(), Runner::new(machine));
    let now = || Instant(origin.elapsed().as_nanos() as u64);
    let (mut events, mut actions) = (vec![Event::Start(start)], Vec::new());
    loop {
        core.handle(now(), events.drain(..), &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Disk { op, request, .. } => {
                    events.push(Event::Completed { op, result: perform(op, request) });
                }
                Action::Send { to, head, body } if !send(to, &head, &body) => {
                    events.push(Event::Link { peer: to, up: false });
                }
                Action::Machine(step) => events.extend(runner.perform(step, clients)),
                Action::Respond { requests, outcome } => {
                    requests.ids().for_each(|id| clients.answer(id, Err(&outcome)));
                }
                Action::Halt(halt) => return *halt,
                Action::Send { .. } | Action::Members(_) | Action::Note(_) => {}
            }
        }
        if events.is_empty() {
            let wait = core.deadline().map(|deadline| deadline.since(now()));
            events.extend(match wait {
                Some(wait) => inbox.recv_timeout(wait).ok(),
                None => inbox.recv().ok(),
            });
        }
        events.extend(inbox.try_iter());
        // What others forward to this node is dated by its clock.
        events.push(Event::time(wall()));
    }
}

fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_nanos() as u64))
}

/// A replicated sum. A command is a number to add; the answer to everything is the sum.
#[derive(Default)]
struct Sum(u64);

impl SmallMachine for Sum {
    fn apply(&mut self, _: Timestamp, command: &[u8]) -> Vec<u8> {
        self.0 += command.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        self.save()
    }

    fn save(&self) -> Vec<u8> {
        self.0.to_string().into()
    }

    fn load(bytes: &[u8]) -> Option<Self> {
        str::from_utf8(bytes).ok()?.parse().ok().map(Self)
    }
}

/// Proposes until an answer comes, then stops the node.
struct Once(mpsc::Sender<Event>);

impl Once {
    fn propose(&self) {
        let batch = Batch::one(&[40, 2]);
        let event = Event::Propose { first: RequestId(1), time: wall(), batch };
        self.0.send(event).expect("the driver listens");
    }
}

impl Clients for Once {
    fn query(&mut self, _: RequestId) -> &[u8] {
        unreachable!("nobody reads")
    }

    fn answer(&mut self, _: RequestId, answer: Result<&[u8], &Outcome>) {
        match answer {
            Ok(sum) => {
                println!("{}", String::from_utf8_lossy(sum));
                self.0.send(Event::Stop { hand_over: false }).expect("the driver listens");
            }
            Err(_) => self.propose(),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("lakebed-minimal-{}", std::process::id()));
    let me = Member { id: NodeId(1), incarnation: 0, address: Bytes::new() };
    let members = Arc::new(Membership::of([me]));
    let start = Start::Format { cluster: ClusterId(1), members };
    // All the entropy the engine uses: the keys of a hash are drawn by the system.
    let seed = RandomState::new().build_hasher().finish();
    let engine = Engine::new(Config::new(GroupId(1), NodeId(1)), seed)?;
    let (outside, inbox) = mpsc::channel();
    let mut clients = Once(outside);
    clients.propose();
    let disk = Directory::open(&path)?;
    let perform = |_, request| disk.perform(&request);
    let (machine, nobody) =
        (Small::<Sum>::default(), |_: NodeId, _: &[u8], _: &[u8]| unreachable!());
    let halt = drive((engine, start), perform, machine, &mut clients, &inbox, nobody);
    assert_eq!(halt, Halt::Stopped);
    Ok(std::fs::remove_dir_all(path)?)
}
