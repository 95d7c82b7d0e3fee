//! A node's handle, as the RESP server sees a node.

use crate::metrics::Source;
use bytes::Bytes;
use lakebed::{Batch, LogId, ReadMode, Status};
use lakebed_kv::serve::{Failure, Store};
use std::sync::Arc;

/// The store that this node is one of.
#[derive(Clone)]
pub(crate) struct Replicated(pub(crate) Source);

impl Store for Replicated {
    async fn propose(&self, batch: Batch, out: &mut Vec<u8>) -> Result<(), Failure> {
        let answers = self.0.handle.propose(batch).await.map_err(failure)?;
        answers.iter().for_each(|answer| out.extend_from_slice(answer));
        Ok(())
    }

    async fn read(&self, query: &[u8]) -> Result<Bytes, Failure> {
        self.0.handle.read_one(query, ReadMode::Linearizable).await.map_err(failure)
    }

    async fn status(&self) -> Result<Status, Failure> {
        self.0.handle.status().await.map_err(failure)
    }

    /// What the engine does not see: its disk, and what was asked of it.
    async fn surroundings(&self, status: &Status) -> Vec<(&'static str, String)> {
        let (health, asked) = (Arc::clone(&self.0.health), status.clone());
        // The file system may have to wait for a disk.
        let files =
            tokio::task::spawn_blocking(move || (health.room(), health.snapshot_age(&asked)));
        let (room, age) = files.await.unwrap_or_default();
        let (latency, traffic) = (self.0.health.latency(), self.0.handle.traffic());
        let age = age.filter(|_| status.snapshot != LogId::ZERO);
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

fn failure(failure: lakebed_runtime::Failure) -> Failure {
    match failure {
        lakebed_runtime::Failure::Refused(refusal) => Failure::Refused(refusal),
        lakebed_runtime::Failure::Unknown => Failure::Unknown,
    }
}
