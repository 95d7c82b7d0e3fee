//! What a node would do with a disk: started on it as far as it needs nobody else. Knows no world.

use crate::{
    disk::{Outcome, SimDisk, Survivors},
    oracle::Violation,
};
use lakebed::{
    Action, DiskRequest, Engine, Event, File, Halt, Instant, LogIndex, Start,
    report::{Inspection, LogFound},
};
use std::collections::BTreeMap;

/// How a node starts from a disk.
pub(crate) enum Trial {
    /// It would vote and acknowledge.
    Starts(Box<Engine>),
    Halts(Halt),
}

/// Starts an engine that has seen nothing from a disk, up to its verdict.
pub(crate) fn trial(engine: Engine, disk: SimDisk, start: Start) -> Trial {
    watched(engine, disk, start, |_| {})
}

/// The same; `see` is shown what it asks of the disk.
fn watched(
    mut engine: Engine,
    mut disk: SimDisk,
    start: Start,
    mut see: impl FnMut(&DiskRequest),
) -> Trial {
    let mut events = vec![Event::Start(start)];
    let mut actions = Vec::new();
    while let Some(event) = events.pop() {
        engine.handle(Instant(1), Some(event), &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Halt(halt) => return Trial::Halts(*halt),
                Action::Disk { op, request, .. } => {
                    see(&request);
                    disk.submit(op, request);
                }
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
    after(disk, Survivors::None, seed)
}

fn after(disk: &SimDisk, survivors: Survivors, seed: u64) -> SimDisk {
    let mut disk = disk.clone();
    disk.cut_power_to(Outcome::Drawn(survivors, 0), seed);
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
fn inspection(engine: Engine, disk: &SimDisk) -> Option<Box<Inspection>> {
    looked(engine, disk).0
}

/// The same, and how many bytes of each segment it reads for that.
fn looked(engine: Engine, disk: &SimDisk) -> (Option<Box<Inspection>>, BTreeMap<u64, u64>) {
    let mut read = BTreeMap::new();
    let told = watched(engine, disk.clone(), Start::Inspect, |request| {
        if let DiskRequest::Read { file: File::Segment(sequence), len, .. } = request {
            *read.entry(*sequence).or_default() += u64::from(*len);
        }
    });
    let Trial::Halts(Halt::Inspected(found)) = told else { return (None, read) };
    (Some(found), read)
}

/// What a power cut would leave of a disk, as engines that have seen nothing find it.
pub(crate) struct Left {
    pub(crate) found: Option<Box<Inspection>>,
    /// A full segment of which the record that says what is in it would be gone.
    pub(crate) untold: Option<u64>,
}

pub(crate) fn left(engine: impl Fn() -> Engine, disk: &SimDisk, seed: u64) -> Left {
    let [(_, before), (found, after)] = [Survivors::All, Survivors::None]
        .map(|survivors| looked(engine(), &after(disk, survivors, seed)));
    let hard = found.as_ref().and_then(|found| found.hard_state.as_ref());
    let newest = hard.map_or(0, |hard| hard.newest_segment);
    // Without that record all of the segment is read.
    let is_untold = |(sequence, read): &(&u64, &u64)| {
        **sequence < newest && before.get(sequence).is_some_and(|before| before < read)
    };
    let untold = after.iter().find(is_untold).map(|(sequence, _)| *sequence);
    Left { found, untold }
}
