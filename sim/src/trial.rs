//! What a node would do with a disk: started on it as far as it needs nobody else. Knows no world.

use crate::{
    disk::{Outcome, SimDisk, Survivors},
    oracle::Violation,
};
use lakebed::{
    Action, Engine, Event, Halt, Instant, LogIndex, Start,
    report::{Inspection, LogFound},
};

/// How a node starts from a disk.
pub(crate) enum Trial {
    /// It would vote and acknowledge.
    Starts(Box<Engine>),
    Halts(Halt),
}

/// Starts an engine that has seen nothing from a disk, up to its verdict.
pub(crate) fn trial(mut engine: Engine, mut disk: SimDisk, start: Start) -> Trial {
    let mut events = vec![Event::Start(start)];
    let mut actions = Vec::new();
    while let Some(event) = events.pop() {
        engine.handle(Instant(1), Some(event), &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Halt(halt) => return Trial::Halts(*halt),
                Action::Disk { op, request, .. } => disk.submit(op, request),
                _ => {}
            }
        }
        if engine.probe().judged {
            return Trial::Starts(Box::new(engine));
        }
        let next = disk.in_flight().next();
        events.extend(next.map(|op| Event::Completed { op, result: disk.complete(op) }));
    }
    unreachable!("a restart ends with a verdict");
}

/// What a power cut would leave of a disk now: of all that is not durable it takes everything.
pub(crate) fn after_power_cut(disk: &SimDisk, seed: u64) -> SimDisk {
    let mut disk = disk.clone();
    disk.cut_power_to(Outcome::Drawn(Survivors::None, 0), seed);
    disk
}

/// How it is told that a node would refuse to start then.
pub(crate) fn refuses(node: usize, halt: &Halt) -> Violation {
    let what = format!("after a power cut now it would end: {halt}");
    Violation::new("a power cut would leave a node that starts", node, what)
}

/// What the records on a disk prove durable, as an engine that has seen nothing says.
pub(crate) fn proven(engine: Engine, disk: &SimDisk) -> LogIndex {
    log(engine, disk).map_or(LogIndex(0), |log| log.proven)
}

/// The log on a disk, if an engine that has seen nothing finds one.
pub(crate) fn log(engine: Engine, disk: &SimDisk) -> Option<LogFound> {
    inspection(engine, disk)?.log
}

/// What an engine that has seen nothing finds on a disk.
pub(crate) fn inspection(engine: Engine, disk: &SimDisk) -> Option<Box<Inspection>> {
    let Trial::Halts(Halt::Inspected(found)) = trial(engine, disk.clone(), Start::Inspect) else {
        return None;
    };
    Some(found)
}
