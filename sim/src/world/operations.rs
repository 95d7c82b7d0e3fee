//! What disks are given and what they end: in their time, with the failure that is due, or with a lie.

use super::{SITE_PARTLY, SITE_READ, SITE_SYNC, SITE_WRITE, World, coming::Coming};
use crate::{client::Workload, node::is_sync, oracle::Checked, plan};
use lakebed::{DiskRequest, Event, File, OpId, StateMachine};

impl<M: StateMachine, W: Workload> World<M, W> {
    pub(super) fn submit(&mut self, at: usize, op: OpId, request: DiskRequest) -> Checked {
        if let DiskRequest::Read { file, offset, len } = request {
            self.oracle.on_read(at, (file, offset, len.into()), self.now)?;
        }
        if let DiskRequest::Write { file, .. } = request {
            self.oracle.on_write(at, file);
        }
        let times = self.plan.disk;
        let (site, latency) = if is_sync(&request) {
            (SITE_SYNC, times.sync)
        } else if matches!(request, DiskRequest::Write { .. }) {
            (SITE_WRITE, times.write)
        } else {
            (SITE_READ, times.read)
        };
        if self.nodes[at].next_unheard.is_some() {
            self.dooms(at, op, &request);
        }
        let node = &mut self.nodes[at];
        let delay = self.disks.lane(site, at as u32).delay(latency.least, latency.tail);
        let (delay, life) = (delay * node.slowness, node.life);
        node.operations += 1;
        node.flights.insert(op, node.operations);
        let is_log = matches!(request, DiskRequest::Write { file: File::Segment(_), .. });
        node.disk.submit(op, request);
        self.schedule(self.now + delay, Coming::Completion { node: at, life, op });
        if is_log { self.check_log_writes(at) } else { Ok(()) }
    }

    pub(super) fn complete(&mut self, at: usize, op: OpId) -> Checked {
        let node = &mut self.nodes[at];
        if let Some(held) = &mut node.hangs {
            held.push(op);
            return Ok(());
        }
        if (node.scars.lie.is_some() || node.scars.misread.is_some())
            && let Some(result) = self.lie(at, op).or_else(|| self.misread(at, op))
        {
            self.nodes[at].flights.remove(&op);
            return self.feed(at, Some(Event::Completed { op, result }));
        }
        let node = &mut self.nodes[at];
        let number = node.flights.remove(&op).expect("it was given to the disk in this life");
        if let Some(mishap) = node.mishaps.remove(&number)
            && node.disk.mishaps(op).contains(&mishap)
        {
            let draw = self.disks.lane(SITE_PARTLY, at as u32);
            let result = node.disk.end_badly(op, mishap, draw);
            self.stats.disk_failures += 1;
            self.struck("fail-at");
            return self.feed(at, Some(Event::Completed { op, result }));
        }
        if node.unheard.is_some() && self.fails_unheard(at, op) {
            return Ok(());
        }
        let node = &mut self.nodes[at];
        let late = node.disk.late_failure(op);
        let failure = late.or_else(|| node.next_sync_fails.take_if(|_| node.disk.is_promise(op)));
        let partly = node.next_fails.take_if(|(victim, _)| node.disk.is_a(op, *victim));
        let result = match (failure, partly) {
            (Some(failure), _) => node.disk.fail(op, failure),
            (None, Some((_, error))) => {
                node.disk.fail_partly(op, error, self.disks.lane(SITE_PARTLY, at as u32))
            }
            (None, None) => node.disk.complete(op),
        };
        if failure.is_some() || partly.is_some() {
            self.withheld(at);
            self.stats.disk_failures += 1;
            let of_syncs = if late.is_some() { "late-report" } else { "sync-failure" };
            self.struck(if failure.is_some() { of_syncs } else { "failed-operation" });
        }
        self.feed(at, Some(Event::Completed { op, result }))
    }

    /// A fault of this kind had its effect.
    pub(super) fn struck(&mut self, kind: &str) {
        let number = plan::kind_names().position(|name| name == kind);
        self.stats.faults[number.expect("faults are told by the names of their kinds")] += 1;
    }
}
