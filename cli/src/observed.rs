//! A node as the RESP server sees it, and with it the disk and the traffic that INFO tells of.

use crate::{
    metrics::{Seat, Source},
    store::Replicated,
};
use bytes::Bytes;
use lakebed::{Batch, Control, LogId, Outcome, ReadMode, Refusal, Role, Status};
use lakebed_kv::serve::{Failure, Store};
use lakebed_runtime::Health;
use std::sync::Arc;

/// A group of the store that this node is one of, and its surroundings.
#[derive(Clone)]
pub(crate) struct Observed {
    store: Replicated,
    group: usize,
    source: Source,
}

impl Observed {
    /// All groups, in their order.
    pub(crate) fn all(source: &Source) -> Vec<Self> {
        let seats = source.groups.iter().enumerate();
        let observed = |(group, seat): (usize, &Seat)| Self {
            store: Replicated(seat.handle.clone()),
            group,
            source: source.clone(),
        };
        seats.map(observed).collect()
    }
}

impl Observed {
    /// A group that has ended alone is another matter than a node that is about to stop: whoever tries
    /// again here is refused for ever.
    fn seen(&self, failure: Failure) -> Failure {
        let lives = |seat: &Seat| !seat.handle.has_ended();
        let is_alone = self.store.0.has_ended() && self.source.groups.iter().any(lives);
        match failure {
            Failure::Refused(Refusal::Stopping) if is_alone => Failure::Ended,
            failure => failure,
        }
    }
}

impl Store for Observed {
    async fn propose(&self, batch: Batch, out: &mut Vec<u8>) -> Result<(), Failure> {
        self.store.propose(batch, out).await.map_err(|failure| self.seen(failure))
    }

    async fn read(&self, query: &[u8], mode: ReadMode) -> Result<Bytes, Failure> {
        self.store.read(query, mode).await.map_err(|failure| self.seen(failure))
    }

    /// A group that has ended here, while others go on, says how it was. It leads nobody, whatever it
    /// did then.
    async fn status(&self) -> Result<Status, Failure> {
        let mut status = self.store.status().await?;
        status.marks.add(self.source.groups[self.group].met.marks());
        if self.has_ended() {
            (status.role, status.leader, status.ready) = (Role::Follower, None, false);
            status.peers.clear();
        }
        Ok(status)
    }

    fn has_ended(&self) -> bool {
        self.store.0.has_ended()
    }

    async fn control(&self, order: Control) -> Result<Outcome, Failure> {
        self.store.control(order).await.map_err(|failure| self.seen(failure))
    }

    /// What the engine does not see: its disk, and what was asked of it.
    async fn surroundings(&self, status: Option<&Status>) -> Vec<(&'static str, String)> {
        let (health, seat) = (Arc::clone(&self.source.health), &self.source.groups[self.group]);
        let asked = status.filter(|status| status.snapshot != LogId::ZERO).cloned();
        let dir = seat.dir.clone();
        let look = move || {
            (health.room(), asked.and_then(|status| Health::snapshot_age_in(&dir, &status)))
        };
        let (room, age) = self.source.looks.find(look).await;
        let traffic = match status {
            Some(_) => seat.handle.traffic(),
            None => self.source.traffic(),
        };
        let latency = self.source.health.latency();
        let told =
            |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
        vec![
            ("disk_free_bytes", told(room.map(|room| room.free_bytes))),
            ("disk_size_bytes", told(room.map(|room| room.total_bytes))),
            ("disk_writes", latency.count().to_string()),
            ("disk_write_mean_us", latency.mean().as_micros().to_string()),
            ("disk_write_slowest_us", latency.slowest.as_micros().to_string()),
            ("snapshot_age_seconds", told(age.map(|age| age.as_secs()))),
            ("commands", traffic.commands.to_string()),
            ("command_bytes", traffic.command_bytes.to_string()),
            ("queries", traffic.queries.to_string()),
        ]
    }
}
