//! An engine alone with a directory, until it has done what it was started for.
//!
//! Knows no network and no clock. Invariant: a request is performed when it is asked for, one after
//! the other: there is nobody else whom the disk could serve meanwhile.

use lakebed::{
    Action, DiskRequest, Engine, Event, Halt, Instant, Machine, Start, files::Directory,
};

/// Runs it to its end; `machine` takes its steps, and `performed` is told of each request behind it.
pub(crate) fn run(
    mut engine: Engine,
    start: Start,
    directory: &Directory,
    mut machine: impl FnMut(Machine) -> Option<Event>,
    mut performed: impl FnMut(&DiskRequest),
) -> Halt {
    let (mut events, mut actions) = (vec![Event::Start(start)], Vec::new());
    loop {
        // It is bounded by its disk, not by time: the engine needs no clock for it.
        engine.handle(Instant(1), events.drain(..), &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Halt(halt) => return *halt,
                Action::Disk { op, request, .. } => {
                    let result = directory.perform(&request);
                    performed(&request);
                    events.push(Event::Completed { op, result });
                }
                Action::Machine(step) => events.extend(machine(step)),
                _ => {}
            }
        }
    }
}
